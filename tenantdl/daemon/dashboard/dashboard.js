// Asks the daemon once a second and shows what it says. No state but what is on the page.

import { count, duration, element, percent } from "./format.js";
import { Tenants, grade } from "./tenants.js";
import { Timeline } from "./timeline.js";

const EVERY_MS = 1000;
const at = (id) => document.getElementById(id);
const tenants = new Tenants(at("tenants"), at("legend"));
const timeline = new Timeline(at("timeline"), at("tip"), at("timeline-note"));
let next = 0, pid = null, paused = false, last = null, waiting = null;

// A token may come in the link (#token=…), which browsers do not send to servers.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("tenantdl-token", given);
  history.replaceState(null, "", location.pathname);
}

async function ask(path) {
  const token = sessionStorage.getItem("tenantdl-token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  return fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(5000) });
}

async function refresh() {
  try {
    const answer = await ask(`../status?since=${next}`);
    at("login").hidden = answer.status !== 401 && answer.status !== 403;
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    state(`no answer: ${error.message}`, "bad");
    document.body.classList.add("stale");
  }
}

function loop() {
  clearTimeout(waiting);
  if (paused || document.hidden) return;
  refresh().finally(() => { waiting = setTimeout(loop, EVERY_MS); });
}

function show(status) {
  if (pid !== null && pid !== status.pid) { // another daemon: its blocks count from 0
    pid = null;
    next = 0;
    timeline.blocks = [];
    return;
  }
  pid = status.pid;
  next = status.next_block;
  last = status;
  document.body.classList.remove("stale");
  document.title = `${status.workload || "tenantdl"} – tenantdl`;
  at("workload").textContent = status.workload;
  const down = status.lanes.filter((lane) => !lane.ready).length;
  if (!status.ready) state("loading", "warn");
  else if (down) state(`${down} of ${status.lanes.length} lanes down`, "warn");
  else state("serving", "good");
  at("about").textContent = `version ${status.version} · policy ${status.scheduler.policy} · `
    + `up ${duration(status.uptime_s)}`;
  tiles(status);
  advice(status.advice);
  tenants.show(status);
  timeline.add(status);
  tables(status);
}

function state(text, kind) {
  const pill = at("state");
  if (pill.textContent !== text) pill.textContent = text; // said aloud only when it changes
  pill.className = `pill ${kind}`;
}

function tiles(status) {
  const ended = status.tenants.reduce((n, t) => n + t.seconds.reduce((m, [e]) => m + e, 0), 0);
  const inTime = status.tenants.reduce((n, t) => n + t.in_time, 0);
  const attainment = ended ? inTime / ended : null;
  const rate = status.tenants.reduce((sum, t) => sum + t.rate, 0);
  const busy = status.cores.reduce((sum, core) => sum + core.busy, 0) / (status.cores.length || 1);
  const queue = status.tenants.reduce((sum, t) => sum + t.queue, 0);
  const { launches, conflicts, batches, batched } = status.scheduler;
  const shown = [
    ["In time", percent(attainment), grade(attainment)],
    ["Requests/s", rate >= 100 ? count(rate) : rate.toFixed(1)],
    ["Cores busy", percent(busy, 0)],
    ["Inside now", count(queue)],
    ["Conflicts", percent(launches ? conflicts / launches : 0)],
    batches ? ["Mean batch", (batched / batches).toFixed(1)]
      : ["Blocks", count(status.scheduler.blocks)],
  ];
  at("tiles").replaceChildren(...shown.map(([name, value, kind = ""]) =>
    element("div", {}, element("dt", {}, name), element("dd", { class: kind }, value))));
}

function advice({ cores, wanted, why }) {
  const text = wanted === cores ? `${cores} cores` : `${cores} cores, ${wanted} wanted`;
  const kind = wanted > cores ? "bad" : wanted < cores ? "good" : "";
  at("advice").replaceChildren(element("strong", { class: kind }, text), ` ${why}`);
}

function tables(status) {
  at("models").replaceChildren(...status.models.map((model) => {
    const ratio = model.actual_over_expected;
    return row(model.name, variants(model), [count(model.blocks)],
      [ratio === null ? "–" : ratio.toFixed(2)]);
  }));
  const busy = new Map(status.cores.map((core) => [core.core, core.busy]));
  at("lanes").replaceChildren(...status.lanes.map((lane) => {
    const share = lane.cores.reduce((sum, core) => sum + (busy.get(core) ?? 0), 0) / lane.cores.length;
    const name = `core${lane.cores.length > 1 ? "s" : ""} ${lane.cores.join(", ")}`;
    const lost = lane.lost ? `, lost ${lane.lost}×` : "";
    return element("li", lane.ready ? {} : { class: "down" }, name,
      element("span", {}, (lane.ready ? percent(share, 0) + " busy" : "down") + lost));
  }));
}

// The most used first; what is below a hundredth is not worth a place.
function variants(model) {
  const shares = Object.entries(model.variants).map(([number, n]) => [number, n / model.blocks]);
  const shown = shares.filter(([, share]) => share >= 0.01).sort((a, b) => b[1] - a[1]);
  return shown.map(([number, share]) => `${number}:\u00a0${percent(share, 0)}`).join(", ") || "–";
}

// A cell in a list is a number.
function row(...cells) {
  return element("tr", {}, ...cells.map((cell) =>
    (Array.isArray(cell) ? element("td", { class: "number" }, cell[0]) : element("td", {}, cell))));
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  at("pause").textContent = paused ? "Resume" : "Pause";
  loop();
});
at("span").addEventListener("change", (event) => {
  timeline.span = Number(event.target.value);
  timeline.draw();
});
at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("tenantdl-token", at("token").value);
  at("token").value = "";
  loop();
});
at("trace").addEventListener("click", async (event) => {
  if (!sessionStorage.getItem("tenantdl-token")) return; // a plain link does
  event.preventDefault();
  const blob = await (await ask("../trace")).blob();
  const link = element("a", { href: URL.createObjectURL(blob), download: "tenantdl-trace.json" });
  link.click();
  URL.revokeObjectURL(link.href);
});
document.addEventListener("visibilitychange", loop);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (last) show({ ...last, blocks: [] }); });
loop();
