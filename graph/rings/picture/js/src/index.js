// The picture of a ring. One bundle serves a page of its own, a notebook (anywidget) and the console.
//
//   mount(element, scene, { theme, head, renderer }) draws a scene into an element and returns a Picture. `renderer` is
//   "webgl" (sigma), "canvas" or "auto": WebGL where a graphics card draws it.
//   A <script type="application/json" class="ringwatch-scene"> in a page is drawn in its place by itself.

import { CanvasStage } from "./canvas.js";
import { h, refill, s } from "./dom.js";
import { count, moment, short, sums } from "./format.js";
import { help, listen } from "./keys.js";
import { Model } from "./model.js";
import { Panel } from "./panel.js";
import { Stage, webgl } from "./stage.js";
import css from "./style.css";
import { download } from "./svg.js";
import { outline, riskColour, shapeOf, THEMES } from "./theme.js";
import { Timeline } from "./timeline.js";

let styled = false;
function style() {
  if (styled) return;
  const sheet = new CSSStyleSheet(); // not an element, so that no policy of the page has to allow inline style
  sheet.replaceSync(css);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  styled = true;
}

export class Picture {
  constructor(element, scene, { theme = "auto", head = true, renderer = "auto" } = {}) {
    style();
    this.model = new Model(scene);
    this.listeners = new Map();
    this.system = matchMedia("(prefers-color-scheme: dark)");
    this.chosen = theme;
    this.act = this._acts();
    this.canvas = h("div", { class: "rw-canvas" });
    this.tip = h("div", { class: "rw-tip", hidden: true });
    this.key = h("div", { class: "rw-key", role: "group", "aria-label": "Key" });
    this.field = h("div", { class: "rw-stage", tabindex: 0, role: "application", "aria-roledescription": "graph",
      "aria-label": `Graph of ring ${scene.ring.id}. Arrow keys select nodes, ? lists the keys, t shows a table instead.` },
    this.canvas, this.tip);
    this.panel = new Panel(this.model, this.act);
    this.timeline = new Timeline(this.model, (us) => this.set({ moment: us }));
    this.live = h("div", { class: "rw-unseen", role: "status", "aria-live": "polite" });
    this.notice = h("div", { class: "rw-notice" });
    this.help = help();
    this.root = h("section", { class: "rw", "aria-label": `Ring ${scene.ring.id}`, "data-lm-suppress-shortcuts": "true" },
      head ? this._head() : h("div", { class: "rw-head" }, this._tools()),
      this.notice, this.field, this.key, this.timeline.element, this.panel.element, this.live, this.help);
    element.append(this.root);
    this.drawnBy = renderer === "auto" ? (webgl() ? "webgl" : "canvas") : renderer;
    const made = this.drawnBy === "webgl" ? Stage : CanvasStage;
    this.stage = new made(this.canvas, this.model, {
      pick: (numbers, more) => this._pick(numbers, more), expand: (a) => this.act.expand(a),
      hover: (a, x, y) => this._hover(a, x, y), camera: () => this._tell("camera"),
    });
    listen(this.root, this.field, this.model, this.act);
    this.system.addEventListener("change", () => this._draw());
    this.watch = new ResizeObserver(() => this.stage.resize());
    this.watch.observe(this.canvas);
    this._draw();
    requestAnimationFrame(() => setTimeout(() => performance.mark("ringwatch-drawn"))); // the first picture is there
  }

  _acts() {
    const { model } = this;
    const selected = () => [...model.selection];
    const toggled = (set, list) => list.forEach((a) => (set.has(a) ? set.delete(a) : set.add(a)));
    return {
      pick: (numbers) => this._pick(numbers, false),
      expand: (a) => this._grow(() => toggled(model.expanded, [a]), `Neighbours of ${model.scene.nodes.name[a]}`),
      expandSelected: () => this._grow(() => toggled(model.expanded, selected()), "Neighbours of what is selected"),
      hide: (numbers) => this._change(() => {
        numbers.forEach((a) => model.hidden.add(a));
        model.selection.clear();
      }, count(numbers.length, "node") + " hidden", "hidden", "selection"),
      hideSelected: () => model.selection.size && this.act.hide(selected()),
      unhide: () => this._change(() => model.hidden.clear(), "All nodes shown again", "hidden"),
      everyone: () => this._grow(() => (model.everyone = true), "All members shown"),
      list: () => this._change(() => (this.panel.listing = !this.panel.listing)),
      theme: () => this.set({ theme: this.dark ? "light" : "dark" }),
      enter: () => {
        const { element } = this.panel;
        (element.querySelector(".rw-scroll") ?? element.querySelector("button"))?.focus();
      },
      clear: () => (this.panel.listing ? this.act.list() : this._pick([], false)),
      help: () => this.help.showModal(),
      play: () => this.timeline.toggle(), step: (share) => this.timeline.step(share),
      pan: (right, up) => this.stage.pan(right, up), zoom: (factor) => this.stage.zoom(factor), fit: () => this.stage.fit(),
      save: (kind) => download(model, this.palette, kind),
    };
  }

  _head() {
    const { ring } = this.model.scene;
    const lost = ring.money.lost && ring.money.lost !== "0" ? `, ${ring.money.lost} lost` : "";
    return h("header", { class: "rw-head" }, h("h1", null, `Ring ${ring.id}`),
      h("span", { class: "rw-sub" }, `${ring.state}, confidence ${ring.confidence.toFixed(2)}; ${count(ring.accounts, "account")}, `
        + `${ring.money.tried} tried${lost}; ${moment(ring.first_seen)} to ${moment(ring.last_seen)} UTC`),
      this._tools());
  }

  _tools() {
    const button = (text, title, act) => h("button", { type: "button", title, onclick: act }, text);
    return h("div", { class: "rw-tools" },
      button("+", "Zoom in (+)", () => this.act.zoom(1.3)), button("−", "Zoom out (-)", () => this.act.zoom(1 / 1.3)),
      button("Fit", "Show everything (0)", () => this.act.fit()),
      button("Table", "The picture as a table (t)", () => this.act.list()),
      button("PNG", "Save as PNG", () => this.act.save("png")), button("SVG", "Save as SVG", () => this.act.save("svg")),
      button("Dark / light", "Dark or light (d)", () => this.act.theme()),
      button("?", "Keys", () => this.act.help()));
  }

  get dark() {
    return this.chosen === "auto" ? this.system.matches : this.chosen === "dark";
  }

  get palette() {
    return this.dark ? THEMES.dark : THEMES.light;
  }

  _key() {
    const roles = [...new Set(this.model.scene.nodes.role.filter((_, a) => this.model.node.shown[a]))];
    const seen = `${roles} ${this.dark}`;
    if (seen === this.keySeen) return;
    this.keySeen = seen;
    const theme = this.palette;
    const line = (mark, text) => h("div", null, mark, h("span", null, text));
    const svg = (width, ...inside) => s("svg", { width, height: 16, viewBox: `-${width / 2} -8 ${width} 16`, "aria-hidden": "true" }, inside);
    const bar = [0, 0.25, 0.5, 0.75, 1].map((risk, i) => s("rect", { x: -30 + 12 * i, y: -5, width: 12, height: 10, fill: riskColour(risk, theme) }));
    refill(this.key,
      roles.map((role) => line(svg(18, s("path", { d: outline(shapeOf(role), 6.5), fill: theme.muted })), role)),
      line(svg(60, bar), "mean risk, 0 to 1"),
      line(svg(18, s("path", { d: outline("circle", 6), fill: "none", stroke: theme.fraud, "stroke-width": 2.5 })), "reported as fraud"),
      line(svg(18, s("circle", { r: 7.5, fill: theme.glow })), "just now"),
      line(svg(24, s("path", { d: "M-11,-1H3V-5L11,0L3,5V1H-11Z", fill: theme.muted })), "pays; width: money, log scale"));
  }

  _notice() {
    const { model } = this;
    const parts = [];
    if (model.waiting && !model.everyone) {
      const most = (model.size - model.waiting).toLocaleString("en-US");
      parts.push(h("span", null, `A large ring, summarised: ${model.waiting.toLocaleString("en-US")} of its members are not shown yet; `
        + `shown are those that hold it together and those with the riskiest payments (at most ${most} nodes).`),
      h("button", { type: "button", onclick: () => this.act.everyone() }, "Show all members"));
    }
    refill(this.notice, parts);
  }

  _hover(a, x, y) {
    this.tip.hidden = a === null;
    if (a === null) return;
    const { nodes, payments, decimals } = this.model.scene;
    const found = this.model.payments([a]);
    const total = sums(payments, found, decimals).map(([, text]) => text).join(" + ");
    refill(this.tip, h("strong", null, short(nodes.name[a], 60)), h("br"), [nodes.role[a], nodes.member[a]].filter(Boolean).join(", "),
      h("br"), `${count(found.length, "payment")}, ${this.model.node.frauds[a]} reported as fraud`, h("br"), total);
    const wide = this.field.clientWidth;
    this.tip.style.left = `${Math.min(x + 14, Math.max(0, wide - 330))}px`;
    this.tip.style.top = `${y + 14}px`;
  }

  _pick(numbers, more) {
    this._change(() => {
      const { selection } = this.model;
      if (!more) selection.clear();
      numbers.forEach((a) => (more && selection.has(a) ? selection.delete(a) : selection.add(a)));
      if (numbers.length) this.panel.listing = false;
    }, numbers.length ? `${numbers.map((a) => this.model.label(a)).join(" and ")}: ${count(this.model.payments(numbers).length, "payment")}`
      : "Nothing selected", "selection");
  }

  _change(change, said, ...told) {
    change();
    if (said) this.live.textContent = said;
    this._draw();
    told.forEach((name) => this._tell(name));
  }

  /** A change that shows more: the view follows it. */
  _grow(change, said) {
    this._change(change, said);
    this.stage.fit();
  }

  _draw() {
    this.root.dataset.theme = this.dark ? "dark" : "light";
    this.model.compute();
    this.stage.update(this.palette);
    this.panel.update();
    this.timeline.update();
    this._key();
    this._notice();
  }

  /** What can be read and set from outside: selection and hidden (keys), moment (us), camera, theme. */
  get(name) {
    const keys = (set) => [...set].map((a) => this.model.key[a]);
    return { selection: () => keys(this.model.selection), hidden: () => keys(this.model.hidden), moment: () => this.model.moment,
      camera: () => this.stage.camera, theme: () => this.chosen }[name]();
  }

  set(values) {
    const { model } = this;
    const numbers = (keys) => keys.map((key) => {
      if (!model.number.has(key)) throw new Error(`ringwatch: the picture has no node ${key}`);
      return model.number.get(key);
    });
    if (values.selection) model.selection = new Set(numbers(values.selection));
    if (values.hidden) model.hidden = new Set(numbers(values.hidden));
    if (values.moment !== undefined) model.moment = Math.min(model.end, Math.max(model.start, values.moment));
    if (values.theme) this.chosen = values.theme;
    if (values.camera) this.stage.camera = values.camera;
    this._draw();
    Object.keys(values).forEach((name) => this._tell(name));
  }

  /** Call `heard(value)` whenever something of that name has changed. */
  on(name, heard) {
    this.listeners.set(name, [...(this.listeners.get(name) ?? []), heard]);
  }

  _tell(name) {
    for (const heard of this.listeners.get(name) ?? []) heard(this.get(name));
  }

  destroy() {
    this.timeline.stop();
    this.watch.disconnect();
    this.stage.destroy();
    this.root.remove();
  }
}

export const mount = (element, scene, options) => new Picture(element, scene, options);

function render({ model, el }) {
  el.style.height = `${model.get("height")}px`;
  const picture = mount(el, model.get("scene"), { theme: model.get("theme") });
  const differs = (name, value) => JSON.stringify(model.get(name)) !== JSON.stringify(value);
  const push = (name) => (value) => {
    if (!differs(name, value)) return;
    model.set(name, value);
    model.save_changes();
  };
  let later = null;
  const names = ["selection", "hidden", "camera", "moment", "theme"];
  for (const name of names) {
    const now = push(name);
    picture.on(name, (value) => {
      if (name !== "camera" && name !== "moment") return now(value);
      clearTimeout(later); // these change with every frame: Python hears of them once they rest
      later = setTimeout(() => ["camera", "moment"].forEach((n) => push(n)(picture.get(n))), 150);
    });
    const pull = () => {
      const value = model.get(name);
      if (value !== null && JSON.stringify(value) !== JSON.stringify(picture.get(name))) picture.set({ [name]: value });
    };
    model.on(`change:${name}`, pull);
    if (name === "camera" ? Object.keys(model.get(name) ?? {}).length : name !== "theme") pull();
  }
  push("moment")(picture.get("moment"));
  push("camera")(picture.get("camera"));
  return () => picture.destroy();
}

export default { render };

for (const data of document.querySelectorAll("script.ringwatch-scene[type='application/json']")) {
  const place = h("div", { class: "ringwatch-picture" });
  data.after(place);
  place.style.height = "100%";
  const renderer = /[#&]renderer=(webgl|canvas)\b/.exec(location.hash)?.[1] ?? "auto";
  place.picture = mount(place, JSON.parse(data.textContent), { head: data.dataset.head !== "false", renderer });
}
