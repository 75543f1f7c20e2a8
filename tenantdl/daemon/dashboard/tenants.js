// A card for every tenant; updated in place, so that focus and selections stay.

import { histogram, seconds } from "./charts.js";
import { colour, count, element, ms, percent, round } from "./format.js";

const FACTS = [
  ["p50", (t) => ms(t.p50_ms)],
  ["p95", (t) => ms(t.p95_ms)],
  ["p99", (t) => ms(t.p99_ms)],
  ["Requests/s", (t) => (t.rate >= 100 ? count(t.rate) : t.rate.toFixed(1))],
  ["Queue", (t) => `${t.queue} of ${t.queue_max}`],
  ["Core time", (t) => percent(t.core_share)],
  ["Waiting", (t) => ms(t.queue_ms)],
  ["Running", (t) => ms(t.compute_ms)],
  ["Refused", (t) => refusals(t)],
];

function refusals(tenant) {
  const reasons = Object.entries(tenant.refused);
  if (!reasons.length) return "0";
  const [most] = reasons.sort((a, b) => b[1] - a[1]);
  const all = reasons.reduce((sum, [, n]) => sum + n, 0);
  return `${count(all)} (${most[0].replaceAll("_", " ")})`;
}

// Three promises kept in four is bad, one missed in a hundred worth a look.
export function grade(attainment) {
  if (attainment === null) return "quiet";
  return attainment >= 0.99 ? "good" : attainment >= 0.9 ? "warn" : "bad";
}

export class Tenants {
  constructor(root, legend) {
    this.root = root;
    this.legend = legend;
    this.cards = new Map();
  }

  show(status) {
    const names = status.tenants.map((tenant) => tenant.name);
    if (names.join("\n") !== [...this.cards.keys()].join("\n")) this.rebuild(status.tenants);
    const variants = new Map(status.models.map((model) => [model.name, model.variants]));
    status.tenants.forEach((tenant, number) => this.update(tenant, colour(number), variants));
  }

  rebuild(tenants) {
    this.cards.clear();
    this.root.replaceChildren();
    this.legend.replaceChildren();
    tenants.forEach((tenant, number) => {
      const facts = FACTS.map(([name]) => {
        const value = element("dd");
        return { value, row: element("div", {}, element("dt", {}, name), value) };
      });
      const card = {
        models: element("p", { class: "quiet" }),
        attainment: element("b"),
        facts,
        swatch: element("span", { class: "swatch", "aria-hidden": "true" }),
        key: element("span", { class: "swatch", "aria-hidden": "true" }),
        latencies: element("div"),
        minute: element("div"),
      };
      this.cards.set(tenant.name, card);
      this.legend.append(element("li", {}, card.key, tenant.name));
      const title = element("h3", { id: `tenant-${number}` }, tenant.name);
      this.root.append(element(
        "article", { class: "card tenant", "aria-labelledby": `tenant-${number}` },
        element("header", {},
          card.swatch,
          element("div", {}, title, card.models),
          element("div", { class: "attainment" }, card.attainment,
            element("span", {}, `within ${round(tenant.qos_ms)}`)),
        ),
        element("dl", { class: "facts" }, ...facts.map((fact) => fact.row)),
        element("figure", { class: "figure" },
          element("figcaption", {}, "Answers by latency"), card.latencies),
        element("figure", { class: "figure" },
          element("figcaption", {}, "Requests by second: in time, late or refused"), card.minute),
      ));
    });
  }

  update(tenant, fill, variants) {
    const card = this.cards.get(tenant.name);
    card.swatch.style.background = card.key.style.background = fill;
    card.attainment.textContent = percent(tenant.attainment);
    card.attainment.className = grade(tenant.attainment);
    card.models.textContent = tenant.models.map((name) => model(name, variants.get(name))).join(", ");
    FACTS.forEach(([, value], index) => { card.facts[index].value.textContent = value(tenant); });
    card.latencies.replaceChildren(histogram(tenant, fill));
    card.minute.replaceChildren(seconds(tenant, fill));
  }
}

function model(name, variants = {}) {
  const used = Object.keys(variants);
  if (used.length < 2) return name;
  const [most] = Object.entries(variants).sort((a, b) => b[1] - a[1]);
  return `${name} · variant ${most[0]}`;
}
