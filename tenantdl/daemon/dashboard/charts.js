// A tenant's two figures: latencies against the deadline, and the last minute second by second.

import { drawn, ms, percent, round } from "./format.js";

const WIDTH = 300;

// Answers by latency on a logarithmic axis; what is right of the deadline is late.
export function histogram(tenant, fill) {
  const height = 92, base = height - 16, top = 14;
  const ends = tenant.histogram.map(([end]) => end);
  const low = Math.min(tenant.qos_ms / 8, ...ends) / 1.1;
  const high = Math.max(tenant.qos_ms * 2, ...ends);
  const x = (value) => (WIDTH * Math.log(value / low)) / Math.log(high / low);
  const most = Math.max(1, ...tenant.histogram.map(([, n]) => n));
  const svg = drawn("svg", {
    viewBox: `0 0 ${WIDTH} ${height}`, role: "img",
    "aria-label": `Latencies: median ${ms(tenant.p50_ms)}, 99th percentile ${ms(tenant.p99_ms)}, `
      + `deadline ${ms(tenant.qos_ms)}`,
  });
  svg.append(drawn("line", { class: "axis", x1: 0, x2: WIDTH, y1: base + 0.5, y2: base + 0.5 }));
  for (const [end, n] of tenant.histogram) {
    const right = x(end), left = x(Math.max(low, end / 2 ** (1 / 8)));
    const tall = Math.max(1, ((base - top) * n) / most);
    const late = end / 2 ** (1 / 16) > tenant.qos_ms;
    svg.append(drawn("rect", {
      x: left.toFixed(1), width: Math.max(1, right - left - 0.6).toFixed(1),
      y: (base - tall).toFixed(1), height: tall.toFixed(1),
      ...(late ? { class: "bar-late" } : { fill }),
    }, null));
  }
  const deadline = x(tenant.qos_ms);
  svg.append(
    drawn("line", { class: "deadline", x1: deadline, x2: deadline, y1: 2, y2: base }),
    drawn("text", {
      class: "deadline-label", y: 11, x: deadline > WIDTH - 90 ? deadline - 5 : deadline + 5,
      "text-anchor": deadline > WIDTH - 90 ? "end" : "start",
    }, `deadline ${round(tenant.qos_ms)}`),
    drawn("text", { x: 0, y: height - 3 }, ms(low)),
    drawn("text", { x: WIDTH, y: height - 3, "text-anchor": "end" }, ms(high)),
  );
  return svg;
}

// Requests that ended in each second: in time below, late or refused on top.
export function seconds(tenant, fill) {
  const height = 44, step = WIDTH / tenant.seconds.length;
  const most = Math.max(1, ...tenant.seconds.map(([ended]) => ended));
  const svg = drawn("svg", {
    viewBox: `0 0 ${WIDTH} ${height}`, role: "img",
    "aria-label": `The last minute, second by second: ${percent(tenant.attainment)} in time, `
      + `at most ${most} requests a second`,
  });
  tenant.seconds.forEach(([ended, inTime], second) => {
    const bar = { x: (second * step).toFixed(1), width: (step - 0.8).toFixed(1) };
    const good = (height * inTime) / most, bad = (height * (ended - inTime)) / most;
    if (inTime) {
      svg.append(drawn("rect", { ...bar, y: (height - good).toFixed(1), height: good.toFixed(1), fill }));
    }
    if (ended > inTime) {
      svg.append(drawn("rect", {
        ...bar, y: (height - good - bad).toFixed(1), height: Math.max(1, bad).toFixed(1),
        class: "bar-late",
      }));
    }
  });
  svg.append(drawn("line", { class: "axis", x1: 0, x2: WIDTH, y1: height - 0.5, y2: height - 0.5 }));
  return svg;
}
