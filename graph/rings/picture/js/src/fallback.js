// The drawing surface where there is no WebGL: an SVG. Slower in large rings, and otherwise the same.

import { refill, s } from "./dom.js";
import { content, fitting, frame } from "./svg.js";

const WIDTH = 1200;
const HEIGHT = 800;

export class SvgStage {
  /** As `Stage`. */
  constructor(element, model, listen) {
    this.model = model;
    this.listen = listen;
    this.state = { x: 0.5, y: 0.5, ratio: 1 };
    this.root = s("svg", { class: "rw-svg", preserveAspectRatio: "xMidYMid meet" });
    element.append(this.root);
    this.box = frame(model);
    this._view();
    const number = (event, name) => event.target.closest(`[data-${name}]`)?.dataset[name];
    this.root.addEventListener("click", (event) => {
      const more = event.shiftKey || event.ctrlKey || event.metaKey;
      const [node, tie] = [number(event, "node"), number(event, "tie")];
      const { source, target } = model.scene.ties;
      if (this.moved) return;
      if (node !== undefined) listen.pick([Number(node)], more);
      else if (tie !== undefined) listen.pick([source[tie], target[tie]], more);
      else if (!more) listen.pick([], false);
    });
    this.root.addEventListener("dblclick", (event) => {
      const node = number(event, "node");
      if (node !== undefined) listen.expand(Number(node));
    });
    this.root.addEventListener("pointermove", (event) => {
      const node = number(event, "node");
      const place = element.getBoundingClientRect();
      listen.hover(node === undefined ? null : Number(node), event.clientX - place.left, event.clientY - place.top);
    });
    this._drag();
    this.root.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2);
    }, { passive: false });
  }

  /** A node that is dragged moves; anything else that is dragged moves the view. */
  _drag() {
    let held = null;
    this.root.addEventListener("pointerdown", (event) => {
      const node = event.target.closest("[data-node]")?.dataset.node;
      held = { x: event.clientX, y: event.clientY, node: node === undefined ? null : Number(node) };
      this.moved = false;
    });
    const move = (event) => {
      if (!held) return;
      const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
      if (!this.moved && Math.hypot(dx, dy) < 4) return;
      this.moved = true;
      const scale = this._scale();
      if (held.node === null) this.camera = { ...this.state, x: this.state.x - (dx * scale) / WIDTH, y: this.state.y + (dy * scale) / HEIGHT };
      else {
        this.model.x[held.node] += (dx * scale) / this.unit;
        this.model.y[held.node] -= (dy * scale) / this.unit;
        this.update(this.theme);
      }
      Object.assign(held, { x: event.clientX, y: event.clientY });
    };
    const end = () => (held = null);
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerup", end);
    this.release = () => {
      document.removeEventListener("pointermove", move);
      document.removeEventListener("pointerup", end);
    };
  }

  /** Units of the SVG for a pixel of the page. */
  _scale() {
    const place = this.root.getBoundingClientRect();
    return this.state.ratio / Math.min(place.width / WIDTH || 1, place.height / HEIGHT || 1);
  }

  _view() {
    const { x, y, ratio } = this.state;
    const [width, height] = [WIDTH * ratio, HEIGHT * ratio];
    this.root.setAttribute("viewBox", `${WIDTH * x - width / 2} ${HEIGHT * (1 - y) - height / 2} ${width} ${height}`);
  }

  update(theme) {
    this.theme = theme;
    const fit = fitting(this.box, WIDTH, HEIGHT, 60);
    this.unit = Math.min((WIDTH - 120) / this.box.width, (HEIGHT - 120) / this.box.height);
    refill(this.root, content(this.model, theme, (a) => fit.at(this.model, a)));
  }

  get camera() {
    return { ...this.state };
  }

  set camera(state) {
    this.state = { ...this.state, ...state };
    this._view();
    this.listen.camera(this.camera);
  }

  zoom(factor) {
    this.camera = { ratio: Math.min(5, Math.max(0.01, this.state.ratio / factor)) };
  }

  pan(right, up) {
    const { x, y, ratio } = this.state;
    this.camera = { x: x + 0.08 * ratio * right, y: y + 0.08 * ratio * up };
  }

  fit() {
    this.box = frame(this.model);
    this.camera = { x: 0.5, y: 0.5, ratio: 1 };
    this.update(this.theme);
  }

  resize() {}

  destroy() {
    this.release();
    this.root.remove();
  }
}
