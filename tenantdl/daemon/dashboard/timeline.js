// Cores × time: the newest blocks, coloured by tenant, on a canvas that can be asked for details.

import { colour, ms, round } from "./format.js";

const KEPT_NS = 6e9, KEPT_MAX = 50000, LEFT = 52, BOTTOM = 20;
// The members of a block, in the order in which the daemon sends them.
const [TENANT, MODEL, REQUEST, CORES, VARIANT, BEGIN, END, START, ELAPSED, EXPECTED,
  SIZE] = [1, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13];

export class Timeline {
  constructor(canvas, tip, note) {
    this.canvas = canvas;
    this.tip = tip;
    this.note = note;
    this.blocks = [];
    this.cores = [];
    this.tenants = [];
    this.now = 0;
    this.span = 250;
    this.shown = [];
    this.chosen = -1;
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.choose(-1));
    canvas.addEventListener("blur", () => this.choose(-1));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  add(status) {
    this.now = status.now;
    this.cores = status.cores.map((core) => core.core);
    this.busy = status.cores.map((core) => core.busy);
    this.tenants = status.tenants.map((tenant) => tenant.name);
    this.blocks.push(...status.blocks);
    const oldest = this.now - KEPT_NS;
    if (this.blocks.length > KEPT_MAX || (this.blocks[0] && this.blocks[0][START] < oldest)) {
      const last = this.blocks.at(-1);
      this.blocks = this.blocks.filter((block) => block[START] >= oldest).slice(-KEPT_MAX);
      // The last thing that happened stays, however long ago.
      if (!this.blocks.length && last) this.blocks.push(last);
    }
    this.draw();
  }

  // The span ends now, or with the last block where nothing has run since.
  window() {
    const newest = this.blocks.reduce((most, b) => Math.max(most, b[START] + b[ELAPSED]), 0);
    const idle = newest && this.now - newest > this.span * 1e6;
    const end = idle ? newest : this.now;
    this.note.textContent = idle
      ? `last active ${ms((this.now - newest) / 1e6)} ago`
      : "blocks that ran, by tenant";
    return [end - this.span * 1e6, end];
  }

  draw() {
    const { canvas } = this;
    const width = canvas.clientWidth, rows = Math.max(1, this.cores.length);
    if (!width) return;
    const row = Math.max(4, Math.min(34, Math.floor(560 / rows)));
    const height = rows * row + BOTTOM, scale = window.devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const [from, to] = this.window();
    const x = (time) => LEFT + ((width - LEFT) * (time - from)) / (to - from);
    this.axes(pen, style, width, rows, row);
    const fills = this.tenants.map((_, number) => colour(number));
    const places = new Map(this.cores.map((core, index) => [core, index]));
    const numbers = new Map(this.tenants.map((tenant, index) => [tenant, index]));
    this.shown = [];
    for (const block of this.blocks) {
      const left = Math.max(LEFT, x(block[START]));
      const right = Math.min(width, x(block[START] + block[ELAPSED]));
      if (right <= LEFT || left >= width) continue;
      pen.fillStyle = fills[numbers.get(block[TENANT])] || style.getPropertyValue("--quiet");
      for (const core of block[CORES]) {
        const y = places.get(core) * row + 1;
        const wide = Math.max(1, right - left - (right - left > 3 ? 0.7 : 0));
        pen.fillRect(left, y, wide, row - 2);
        this.shown.push({ left, right: left + wide, top: y, bottom: y + row - 2, core, block });
      }
    }
    if (this.chosen >= 0) this.mark(pen, style);
    this.describe();
  }

  axes(pen, style, width, rows, row) {
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const every = Math.ceil(14 / row);
    for (let index = 0; index < rows; index += 1) {
      pen.fillStyle = style.getPropertyValue("--grid");
      pen.fillRect(LEFT, index * row + 1, width - LEFT, row - 2);
      pen.fillStyle = style.getPropertyValue("--quiet");
      if (index % every === 0) {
        pen.fillText(`core ${this.cores[index] ?? "–"}`, 0, index * row + row / 2, LEFT - 4);
      }
    }
    pen.textBaseline = "alphabetic";
    const steps = width < 500 ? 2 : 5;
    for (let step = 0; step <= steps; step += 1) {
      const at = LEFT + ((width - LEFT) * step) / steps;
      const text = step === steps ? "0" : `−${round(this.span * (1 - step / steps))}`;
      pen.textAlign = step === 0 ? "left" : step === steps ? "right" : "center";
      pen.fillText(text, at, rows * row + BOTTOM - 5);
    }
    pen.textAlign = "left";
  }

  mark(pen, style) {
    const box = this.shown[this.chosen];
    if (!box) return;
    pen.strokeStyle = style.getPropertyValue("--text");
    pen.lineWidth = 2;
    pen.strokeRect(box.left - 1, box.top - 1, Math.max(3, box.right - box.left + 2), box.bottom - box.top + 2);
  }

  describe() {
    const cores = this.cores.map((core, i) => `core ${core} ${Math.round(100 * this.busy[i])} % busy`);
    this.canvas.setAttribute(
      "aria-label",
      `${this.shown.length} blocks in ${ms(this.span)}; ${cores.join(", ")}. Arrow keys step through them.`,
    );
  }

  choose(index) {
    this.chosen = index;
    this.draw();
    const box = this.shown[index];
    this.tip.hidden = !box;
    if (!box) return;
    const { block } = box;
    const what = block[SIZE] > 1 ? `a batch of ${block[SIZE]}` : `request ${block[REQUEST]}`;
    const expected = block[EXPECTED] ? `, predicted ${ms(block[EXPECTED] / 1e6)}` : "";
    this.tip.textContent = `${block[TENANT]} · ${block[MODEL]} · ${what}\n`
      + `segments ${block[BEGIN]}–${block[END]}, variant ${block[VARIANT]}, `
      + `core${block[CORES].length > 1 ? "s" : ""} ${block[CORES].join(", ")}\n`
      + `${ms(block[ELAPSED] / 1e6)}${expected}`;
    const width = this.canvas.clientWidth;
    this.tip.style.left = `${Math.max(0, Math.min(box.left, width - 244))}px`;
    this.tip.style.top = `${box.bottom + 6}px`;
  }

  point(event) {
    const x = event.offsetX, y = event.offsetY;
    const found = this.shown.findLastIndex(
      (box) => x >= box.left - 1 && x <= box.right + 1 && y >= box.top && y <= box.bottom,
    );
    if (found !== this.chosen) this.choose(found);
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") this.choose(-1);
    if (!step || !this.shown.length) return;
    event.preventDefault();
    const from = this.chosen < 0 ? (step > 0 ? -1 : this.shown.length) : this.chosen;
    this.choose(Math.max(0, Math.min(this.shown.length - 1, from + step)));
  }
}
