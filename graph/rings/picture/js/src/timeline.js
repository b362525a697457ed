// The slider that plays the ring's growth, with a strip of when payments came and when frauds were reported.

import { h, refill, s } from "./dom.js";
import { moment } from "./format.js";

const STEPS = 1000;
const BINS = 120;
const SWEEP_MS = 14_000; // from beginning to end at speed 1

export class Timeline {
  /** @param set Called with the moment that was chosen, us. */
  constructor(model, set) {
    this.model = model;
    this.set = set;
    this.speed = 1;
    this.clock = null;
    this.play = h("button", { type: "button", class: "rw-play", onclick: () => this.toggle() });
    this.slider = h("input", {
      type: "range", min: 0, max: STEPS, step: 1, value: STEPS, class: "rw-slider", "aria-label": "Moment shown",
      oninput: () => {
        this.stop();
        this.set(this.at(Number(this.slider.value)));
      },
    });
    this.said = h("span", { class: "rw-moment" });
    const speeds = [0.25, 0.5, 1, 2, 4].map((v) => h("option", { value: v, selected: v === 1 }, `${v}×`));
    const choice = h("select", { "aria-label": "Speed", onchange: () => (this.speed = Number(choice.value)) }, speeds);
    this.element = h("div", { class: "rw-timeline" }, this.play,
      h("div", { class: "rw-track" }, this._strip(), this.slider), this.said, choice);
    this._button();
  }

  at(step) {
    const { start, end } = this.model;
    return Math.round(start + ((end - start) * step) / STEPS);
  }

  _strip() {
    const { start, end, scene } = this.model;
    const bins = { payments: new Array(BINS).fill(0), reports: new Array(BINS).fill(0) };
    const put = (list, at) => {
      if (at !== null && at >= start) list[Math.min(BINS - 1, Math.floor(((at - start) / (end - start || 1)) * BINS))] += 1;
    };
    scene.payments.time.forEach((at) => put(bins.payments, at));
    scene.payments.reported.forEach((at) => put(bins.reports, at));
    const top = Math.max(1, ...bins.payments, ...bins.reports);
    const tall = (n) => (n ? Math.max(1.5, (20 * Math.log1p(n)) / Math.log1p(top)) : 0);
    const bars = (list, name, up) => list.map((n, i) =>
      n ? s("rect", { class: name, x: i + 0.1, width: 0.8, y: up ? 22 - tall(n) : 23, height: tall(n) * (up ? 1 : 0.6) }) : null);
    return s("svg", { class: "rw-strip", viewBox: `0 0 ${BINS} 36`, preserveAspectRatio: "none", role: "img",
      "aria-label": "When payments came (upper bars) and when frauds were reported (lower bars)" },
      bars(bins.payments, "rw-bar", true), bars(bins.reports, "rw-bar-fraud", false));
  }

  _button() {
    const playing = this.clock !== null;
    refill(this.play, s("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
      s("path", { fill: "currentColor", d: playing ? "M3 2h4v12H3zM9 2h4v12H9z" : "M3 1.5l11 6.5-11 6.5z" })));
    this.play.setAttribute("aria-label", playing ? "Pause" : "Play the ring's growth");
    this.play.title = playing ? "Pause (space)" : "Play the ring's growth (space)";
  }

  get playing() {
    return this.clock !== null;
  }

  toggle() {
    if (this.playing) this.stop();
    else this.start();
  }

  start() {
    const { start, end } = this.model;
    if (this.model.moment >= end) this.set(start);
    let before = performance.now();
    const tick = (now) => {
      const step = ((now - before) / SWEEP_MS) * this.speed * (end - start);
      before = now;
      const next = Math.min(end, this.model.moment + step);
      this.set(Math.round(next));
      if (next >= end) this.stop();
      else this.clock = requestAnimationFrame(tick);
    };
    this.clock = requestAnimationFrame(tick);
    this._button();
  }

  stop() {
    if (this.clock !== null) cancelAnimationFrame(this.clock);
    this.clock = null;
    this._button();
  }

  /** Step by a share of the whole. */
  step(share) {
    const { start, end } = this.model;
    this.stop();
    this.set(Math.round(Math.min(end, Math.max(start, this.model.moment + share * (end - start)))));
  }

  /** Show the model's moment. */
  update() {
    const { start, end } = this.model;
    const text = `${moment(this.model.moment)} UTC`;
    this.slider.value = Math.round(((this.model.moment - start) / (end - start || 1)) * STEPS);
    this.slider.setAttribute("aria-valuetext", text);
    this.said.textContent = text;
  }
}
