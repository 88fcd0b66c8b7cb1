// Line charts over the last minutes, drawn as SVG, each with a table behind it.

import { el, svg, text } from "./dom.js";
import { known, time } from "./units.js";

const HEIGHT = 124;
const LEFT = 46;
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 18;
const GAP_S = 15; // no line is drawn over a longer silence
const ROWS = 12;

// The next round number, so that the scale does not twitch: 1, 2, 5 times a power of ten.
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 5, 10]) if (value <= step * power * 1.0001) return step * power;
  return 10 * power;
}

// Stretches of points without a gap, as [x, y] in the plot.
function stretches(points, name, x, y) {
  const found = [];
  let last = null;
  for (const point of points) {
    if (!known(point[name])) { last = null; continue; }
    if (last === null || point.t - last > GAP_S) found.push([]);
    found.at(-1).push([x(point.t), y(point[name])]);
    last = point.t;
  }
  return found;
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

export class Chart {
  // spec: {title, series: [{name, label, line}], max, least, format, area}
  constructor(spec) {
    this.spec = spec;
    this.points = [];
    this.played = [];
    this.width = 0;
    this.now = 0;
    this.seconds = 180;
    this.values = new Map();
    this.plot = svg("svg", { class: "plot", role: "img", "aria-label": spec.title });
    this.tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.body = el("tbody");
    const legend = el("span", { class: "legend" }, ...spec.series.map((one) => this.key(one)));
    const head = el("tr", {}, el("th", { scope: "col" }, "Time"), ...spec.series.map((one) => el("th", { scope: "col", class: "n" }, one.label)));
    this.table = el("details", { ontoggle: () => this.fillTable() },
      el("summary", {}, "As a table", el("span", { class: "vh" }, `: ${spec.title}`)),
      el("table", {}, el("thead", {}, head), this.body));
    this.element = el("figure", {}, el("figcaption", {}, spec.title, legend), this.plot, this.tip, this.table);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.unpoint());
    new ResizeObserver(([entry]) => {
      this.width = Math.round(entry.contentRect.width);
      this.draw();
    }).observe(this.plot);
  }

  key(one) {
    const value = el("b", {}, "–");
    this.values.set(one.name, value);
    const sample = svg("svg", { viewBox: "0 0 20 8", "aria-hidden": "true" },
      svg("line", { x1: 0, y1: 4, x2: 20, y2: 4, class: one.line, "stroke-width": 2.4 }));
    return el("span", {}, sample, `${one.label} `, value);
  }

  take(points, played, now, seconds) {
    this.points = points;
    this.played = played;
    this.now = now;
    this.seconds = seconds;
    const last = points.at(-1);
    for (const one of this.spec.series) {
      text(this.values.get(one.name), last ? this.spec.format(last[one.name]) : "–");
    }
    this.draw();
    if (this.table.open) this.fillTable();
  }

  shown() {
    const from = this.now - this.seconds;
    return this.points.filter((point) => point.t >= from - GAP_S);
  }

  draw() {
    const { spec, width } = this;
    if (width < 80) return;
    const from = this.now - this.seconds;
    const points = this.shown();
    const inner = width - LEFT - RIGHT;
    const deep = HEIGHT - TOP - BOTTOM;
    const most = spec.max ?? ceiling(Math.max(spec.least ?? 0, ...points.flatMap((p) => spec.series.map((one) => p[one.name] ?? 0))));
    const x = (t) => LEFT + ((t - from) / this.seconds) * inner;
    const y = (value) => TOP + deep * (1 - Math.min(value, most) / most);
    this.scale = { x, y, from, inner };
    const parts = [];
    for (const one of this.played) {
      const a = Math.max(LEFT, x(one.since));
      const b = Math.min(LEFT + inner, x(one.until ?? this.now));
      if (b <= LEFT || a >= LEFT + inner) continue;
      parts.push(svg("rect", { class: "played-at", x: a, y: TOP, width: Math.max(1, b - a), height: deep }));
      if (x(one.since) >= LEFT) parts.push(svg("line", { class: "played", x1: a, x2: a, y1: TOP, y2: TOP + deep }));
    }
    for (const share of [0.5, 1]) {
      const at = y(most * share);
      parts.push(svg("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
    }
    parts.push(svg("line", { class: "base", x1: LEFT, x2: width - RIGHT, y1: TOP + deep, y2: TOP + deep }));
    for (const share of [0, 0.5, 1]) {
      const label = svg("text", { x: LEFT - 6, y: y(most * share) + 4, "text-anchor": "end" });
      label.textContent = spec.format(most * share);
      parts.push(label);
    }
    const steps = this.seconds / 60 <= 1 ? 20 : this.seconds <= 180 ? 60 : 120;
    for (let t = Math.ceil(from / steps) * steps; t <= this.now; t += steps) {
      const at = x(t);
      if (at < LEFT + 14 || at > width - RIGHT - 14) continue;
      const label = svg("text", { x: at, y: HEIGHT - 4, "text-anchor": "middle" });
      label.textContent = steps < 60 ? time(t) : time(t).slice(0, 5);
      parts.push(label);
    }
    // Values a little older than the span give the line its way in from the left edge.
    const clip = `clip-${spec.series[0].name}`;
    const lines = svg("g", { "clip-path": `url(#${clip})` });
    for (const one of spec.series) {
      for (const stretch of stretches(points, one.name, x, y)) {
        if (spec.area && stretch.length > 1) {
          const ends = `L${stretch.at(-1)[0].toFixed(1)} ${TOP + deep}L${stretch[0][0].toFixed(1)} ${TOP + deep}Z`;
          lines.append(svg("path", { class: spec.area, d: path(stretch) + ends }));
        }
        if (stretch.length === 1) lines.append(svg("circle", { class: one.line, cx: stretch[0][0], cy: stretch[0][1], r: 1.5 }));
        else lines.append(svg("path", { class: one.line, d: path(stretch) }));
      }
    }
    const cut = svg("clipPath", { id: clip }, svg("rect", { x: LEFT, y: 0, width: inner, height: HEIGHT }));
    this.cross = svg("line", { class: "cross", y1: TOP, y2: TOP + deep, visibility: "hidden" });
    this.plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.plot.replaceChildren(cut, ...parts, lines, this.cross);
    if (this.pointed !== undefined) this.show(this.pointed);
  }

  point(event) {
    this.pointed = event.clientX - this.plot.getBoundingClientRect().left;
    this.show(this.pointed);
  }

  unpoint() {
    this.pointed = undefined;
    this.tip.hidden = true;
    this.cross?.setAttribute("visibility", "hidden");
  }

  show(at) {
    if (!this.scale) return;
    const { x, from, inner } = this.scale;
    const wanted = from + ((at - LEFT) / inner) * this.seconds;
    let near = null;
    for (const point of this.shown()) {
      if (near === null || Math.abs(point.t - wanted) < Math.abs(near.t - wanted)) near = point;
    }
    if (near === null || x(near.t) < LEFT) return;
    const said = this.spec.series.map((one) => (this.spec.series.length > 1 ? `${one.label} ` : "") + this.spec.format(near[one.name]));
    text(this.tip, `${time(near.t)}  ${said.join(" · ")}`);
    this.tip.hidden = false;
    const left = Math.min(Math.max(0, x(near.t) + 10), this.width - this.tip.offsetWidth);
    this.tip.style.left = `${left}px`;
    this.cross.setAttribute("x1", x(near.t));
    this.cross.setAttribute("x2", x(near.t));
    this.cross.setAttribute("visibility", "visible");
  }

  fillTable() {
    if (!this.table.open) return;
    const points = this.shown();
    const each = Math.max(1, Math.ceil(points.length / ROWS));
    const rows = points.filter((_, i) => (points.length - 1 - i) % each === 0).reverse();
    this.body.replaceChildren(...rows.map((point) => el("tr", {},
      el("th", { scope: "row" }, time(point.t)),
      ...this.spec.series.map((one) => el("td", { class: "n" }, this.spec.format(point[one.name]))))));
  }
}
