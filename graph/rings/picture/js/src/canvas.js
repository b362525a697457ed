// The drawing surface where WebGL is missing or drawn by the processor (virtual machines, remote desktops): Canvas 2D.
//
// A large graph takes longer to draw than a frame lasts. So it is drawn onto a larger canvas that nobody sees, and while
// the view moves, that picture is moved. Before it no longer covers the view, the next one is begun, a slice in each
// frame. What changes the picture itself, such as the slider, draws it at once.

import { h } from "./dom.js";
import { short } from "./format.js";
import { sum } from "./model.js";
import { frame, tieColour } from "./svg.js";
import { outline, riskColour, shapeOf } from "./theme.js";

const MARGIN = 0.4; // of the view's size, drawn beyond each of its edges
const REST_MS = 120; // without movement, after which a picture that was scaled is drawn again
const SLICE_MS = 6; // of a frame, for the next picture
const SLICE = 100; // ties or nodes drawn between two looks at the clock
const QUICK_MS = 8; // a picture that is drawn faster than this is drawn in every frame
const LABELS = 120;
const TOGETHER = 50; // ties in a path
const BY_PROCESSOR = { willReadFrequently: true, alpha: false }; // a graphics card that is none would be slower
const FONT = "12px system-ui, 'DejaVu Sans', sans-serif";

const SMALL = 8; // pixels of radius, below which a node is copied from an image

/** Have the browser do now what it was told to draw, so that the clock tells how long that took. */
const settled = (ink) => ink.getImageData(0, 0, 1, 1).data.length;

const paths = new Map();
function path(shape, r) {
  const key = `${shape}${Math.round(r * 4)}`;
  if (!paths.has(key)) paths.set(key, new Path2D(outline(shape, Math.round(r * 4) / 4)));
  return paths.get(key);
}

export class CanvasStage {
  /** As `Stage`. */
  constructor(element, model, listen) {
    Object.assign(this, { element, model, listen, state: { x: 0.5, y: 0.5, ratio: 1 }, took: 0 });
    Object.assign(this, { next: null, rest: null, rested: false, work: null });
    this.front = h("canvas", { class: "rw-front" });
    this.back = h("canvas");
    this.spare = h("canvas");
    this.sprites = new Map();
    element.append(this.front);
    const { source, target, directed } = model.scene.ties;
    const pairs = new Set(source.map((a, t) => (directed[t] ? `${a} ${target[t]}` : "")));
    this.both = source.map((a, t) => directed[t] && pairs.has(`${target[t]} ${a}`));
    this.box = frame(model);
    this.resize();
    this._pointers();
  }

  resize() {
    const { width, height } = this.element.getBoundingClientRect();
    Object.assign(this, { width: Math.max(1, width), height: Math.max(1, height), dots: window.devicePixelRatio || 1 });
    this.front.width = Math.round(this.width * this.dots);
    this.front.height = Math.round(this.height * this.dots);
    this._later();
  }

  /** Draw the model as it is now. */
  update(theme) {
    this.theme = theme;
    this.order = [...Array(this.model.size).keys()].filter((a) => this.model.node.shown[a]);
    const important = Float64Array.from({ length: this.model.size }, (_, a) => this.model.importance(a));
    this.named = [...this.order].sort((a, b) => important[b] - important[a]).slice(0, 4 * LABELS);
    this._later();
  }

  /** Draw anew with the next frame, or only move what is drawn. */
  _later(stale = true) {
    this.stale = this.stale || stale;
    this.next ??= requestAnimationFrame(() => this._frame());
  }

  /** Pixels for a unit of the layout, and the shift, in a view of that camera. */
  _scale(ratio = this.state.ratio) {
    const { box, width, height } = this;
    return Math.min((width - 90) / box.width, (height - 100) / box.height) / ratio;
  }

  _at(a, camera = this.state) {
    const scale = this._scale(camera.ratio);
    const unit = this.width / this._scale(1);
    const { box } = this;
    return [
      (this.model.x[a] - box.x - box.width / 2 - (camera.x - 0.5) * unit) * scale + this.width / 2,
      (-this.model.y[a] - box.y - box.height / 2 + (camera.y - 0.5) * unit) * scale + this.height / 2,
    ];
  }

  /** Where the drawn picture lies in the view now: [left, top, how much larger]. */
  _moved() {
    const [now, then] = [this.state, this.drawn];
    const larger = then.ratio / now.ratio;
    const unit = this.width / this._scale(1) * this._scale();
    return [
      this.width / 2 - (0.5 + MARGIN) * this.width * larger - (now.x - then.x) * unit,
      this.height / 2 - (0.5 + MARGIN) * this.height * larger + (now.y - then.y) * unit,
      larger,
    ];
  }

  /** Whether the drawn picture covers the view and some share of its size around it. */
  _covers(around = 0) {
    const [left, top, larger] = this._moved();
    const [right, low] = [left + (1 + 2 * MARGIN) * this.width * larger, top + (1 + 2 * MARGIN) * this.height * larger];
    const [x, y] = [around * this.width, around * this.height];
    return larger < 4 && left <= -x && top <= -y && right >= this.width + x && low >= this.height + y;
  }

  _frame() {
    this.next = null;
    if (!this.theme) return;
    if (this.stale || !this.drawn || this.took < QUICK_MS) this._redraw();
    else if (this.work || this.rested || !this._covers(MARGIN / 2)) this._advance();
    this.rested = false;
    const [left, top, larger] = this._moved();
    clearTimeout(this.rest);
    if (larger !== 1) {
      this.rest = setTimeout(() => {
        this.rested = true;
        this._later(false);
      }, REST_MS);
    }
    const ink = this.front.getContext("2d", BY_PROCESSOR);
    ink.fillStyle = this.theme.ground;
    ink.fillRect(0, 0, this.front.width, this.front.height);
    const [wide, high] = [this.back.width * larger, this.back.height * larger];
    ink.drawImage(this.back, Math.round(left * this.dots), Math.round(top * this.dots), wide, high);
    if (this.work) this._later(false);
  }

  /** Draw all of it now. */
  _redraw() {
    const begun = performance.now();
    this.work = null;
    const camera = { ...this.state };
    for (const _ of this._drawing(this.back, camera));
    Object.assign(this, { drawn: camera, stale: false, took: performance.now() - begun });
  }

  /** Draw a slice of the next picture, which takes the place of this one when it is done. */
  _advance() {
    if (!this.work) {
      const camera = { ...this.state };
      this.work = { camera, steps: this._drawing(this.spare, camera) };
    }
    const begun = performance.now();
    let done = false;
    while (!done && performance.now() - begun < SLICE_MS) ({ done } = this.work.steps.next());
    if (!done) return;
    [this.back, this.spare] = [this.spare, this.back];
    this.drawn = this.work.camera;
    this.work = null;
  }

  /** Draws onto a canvas, in steps. */
  *_drawing(canvas, camera) {
    const bounds = [this.width * (1 + 2 * MARGIN), this.height * (1 + 2 * MARGIN)];
    const [wide, high] = bounds.map((size) => Math.round(size * this.dots));
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    const ink = canvas.getContext("2d", BY_PROCESSOR);
    ink.setTransform(1, 0, 0, 1, 0, 0);
    ink.globalAlpha = 1;
    ink.fillStyle = this.theme.ground;
    ink.fillRect(0, 0, wide, high);
    ink.setTransform(this.dots, 0, 0, this.dots, 0, 0);
    const places = new Float64Array(2 * this.model.size);
    for (const a of this.order) {
      const [x, y] = this._at(a, camera);
      places[2 * a] = x + MARGIN * this.width;
      places[2 * a + 1] = y + MARGIN * this.height;
    }
    const grown = 1 / Math.sqrt(camera.ratio);
    yield* this._ties(ink, places, bounds, grown);
    yield* this._nodes(ink, places, bounds, grown);
    this._labels(ink, places, bounds, grown);
  }

  get grown() {
    return 1 / Math.sqrt(this.state.ratio);
  }

  /** Ties of one look are drawn together, but not too many: the longer a path, the longer each of its lines takes. */
  *_ties(ink, places, [wide, high], grown) {
    const { model, theme } = this;
    const { source, target, directed } = model.scene.ties;
    const looks = new Map();
    const drawn = [];
    for (let t = 0; t < source.length; t++) {
      if (!model.tie.shown[t]) continue;
      const [a, b] = [source[t], target[t]];
      let [x0, y0, x1, y1] = [places[2 * a], places[2 * a + 1], places[2 * b], places[2 * b + 1]];
      if (Math.max(x0, x1) < 0 || Math.min(x0, x1) > wide || Math.max(y0, y1) < 0 || Math.min(y0, y1) > high) continue;
      const width = Math.max(0.5, Math.round(model.width(t) * grown * 2) / 2);
      const opacity = (model.stands(a) && model.stands(b) ? 1 : 0.2) * (model.tie.evidence[t] ? 0.9 : 0.4);
      const key = `${tieColour(model, theme, t)} ${width} ${opacity.toFixed(2)}`;
      let look = looks.get(key);
      if (!look || look.ties >= TOGETHER) {
        look = { key, lines: new Path2D(), heads: new Path2D(), ties: 0 };
        looks.set(key, look);
        drawn.push(look);
      }
      look.ties += 1;
      const { lines, heads } = look;
      const length = Math.hypot(x1 - x0, y1 - y0) || 1;
      const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
      if (this.both[t]) {
        const aside = width / 2 + 2;
        [x0, y0, x1, y1] = [x0 - uy * aside, y0 + ux * aside, x1 - uy * aside, y1 + ux * aside];
      }
      const head = directed[t] ? Math.min(5 + 2.2 * width, length / 2) : 0;
      if (head > 3 && model.crowd * grown > 0.35) {
        const gap = model.radius(b) * grown + 1;
        const [ex, ey] = [x1 - ux * gap, y1 - uy * gap];
        const [bx, by, side] = [ex - ux * head, ey - uy * head, head * 0.42];
        heads.moveTo(ex, ey);
        heads.lineTo(bx - uy * side, by + ux * side);
        heads.lineTo(bx + uy * side, by - ux * side);
        heads.closePath();
        [x1, y1] = [bx, by];
      }
      lines.moveTo(x0, y0);
      lines.lineTo(x1, y1);
    }
    let at = 0;
    for (const { key, lines, heads } of drawn) {
      const [colour, width, opacity] = key.split(" ");
      ink.globalAlpha = Number(opacity);
      ink.strokeStyle = ink.fillStyle = colour;
      ink.lineWidth = Number(width);
      ink.stroke(lines);
      ink.fill(heads);
      if ((at += 1) % (SLICE / TOGETHER) === 0) yield settled(ink);
    }
    ink.globalAlpha = 1;
  }

  *_nodes(ink, places, [wide, high], grown) {
    const { model, theme, dots } = this;
    const { node } = model;
    let at = 0;
    for (const a of this.order) {
      if ((at += 1) % SLICE === 0) yield settled(ink);
      const [x, y, r] = [places[2 * a], places[2 * a + 1], model.radius(a) * grown];
      if (x < -30 || y < -30 || x > wide + 30 || y > high + 30) continue;
      ink.setTransform(dots, 0, 0, dots, x * dots, y * dots);
      if (node.lit[a] > 0) {
        ink.globalAlpha = 0.8 * node.lit[a];
        ink.fillStyle = theme.glow;
        ink.fill(path("circle", r * (1.4 + 0.7 * node.lit[a])));
      }
      if (model.selection.has(a)) {
        ink.globalAlpha = 1;
        ink.strokeStyle = theme.picked;
        ink.lineWidth = 3;
        ink.stroke(path("circle", r + 5));
      }
      ink.globalAlpha = (model.stands(a) ? 1 : 0.25) * (model.isMember(a) ? 1 : 0.6);
      if (r < SMALL) {
        const image = this._sprite(a, r);
        const side = image.width / dots;
        ink.drawImage(image, -side / 2, -side / 2, side, side);
        continue;
      }
      ink.fillStyle = riskColour(node.risk[a], theme);
      const shape = path(shapeOf(model.scene.nodes.role[a]), r);
      ink.fill(shape);
      ink.strokeStyle = node.frauds[a] ? theme.fraud : theme.rim;
      ink.lineWidth = model.crowd ** 0.5 * (node.frauds[a] ? 2.6 : 1.2);
      ink.stroke(shape);
    }
    ink.setTransform(dots, 0, 0, dots, 0, 0);
    ink.globalAlpha = 1;
  }

  /** A small node as an image, which is copied faster than its shape is filled; its risk in steps of .05. */
  _sprite(a, r) {
    const { model, theme, dots } = this;
    const [level, fraud, shape] = [Math.round(model.node.risk[a] * 20), model.node.frauds[a] > 0, shapeOf(model.scene.nodes.role[a])];
    const key = `${shape} ${Math.round(r * 4)} ${level} ${fraud} ${theme.ground} ${dots} ${model.crowd}`;
    if (!this.sprites.has(key)) {
      const image = h("canvas", { width: Math.ceil(2 * (1.2 * r + 2) * dots), height: Math.ceil(2 * (1.2 * r + 2) * dots) });
      const ink = image.getContext("2d", { willReadFrequently: true });
      ink.setTransform(dots, 0, 0, dots, image.width / 2, image.height / 2);
      ink.fillStyle = riskColour(level / 20, theme);
      ink.fill(path(shape, r));
      ink.strokeStyle = fraud ? theme.fraud : theme.rim;
      ink.lineWidth = model.crowd ** 0.5 * (fraud ? 2.6 : 1.2);
      ink.stroke(path(shape, r));
      if (this.sprites.size > 2000) this.sprites.clear();
      this.sprites.set(key, image);
    }
    return this.sprites.get(key);
  }

  /** Names that do not run into each other; of few nodes, and of what is selected, all. */
  _labels(ink, places, [wide, high], grown) {
    const { model, theme } = this;
    const taken = [];
    const all = sum(model.node.shown) <= 40;
    ink.font = FONT;
    ink.textAlign = "center";
    ink.textBaseline = "top";
    ink.lineJoin = "round";
    ink.lineWidth = 3;
    const chosen = [...model.selection].filter((a) => model.node.shown[a]);
    for (const a of [...chosen, ...this.named]) {
      if (taken.length >= (model.crowd * grown > 0.35 ? LABELS : LABELS / 3)) break;
      const r = model.radius(a) * grown;
      const x = places[2 * a];
      let y = places[2 * a + 1] + r + 3;
      if (x < 0 || y < 0 || x > wide || y > high || taken.some((b) => b.a === a)) continue;
      const text = short(model.label(a), 30);
      const half = ink.measureText(text).width / 2 + 2;
      const box = { a, l: x - half, r: x + half, t: y, b: y + 15 };
      const meets = () => taken.some((o) => box.l < o.r && o.l < box.r && box.t < o.b && o.t < box.b);
      if (meets()) Object.assign(box, { t: y - 2 * r - 19, b: y - 2 * r - 4 }); // above, where there is no room below
      if (meets() && !all && !model.selection.has(a)) continue;
      y = box.t;
      taken.push(box);
      ink.globalAlpha = model.stands(a) ? 1 : 0.35;
      ink.strokeStyle = theme.ground;
      ink.strokeText(text, x, y);
      ink.fillStyle = theme.ink;
      ink.fillText(text, x, y);
    }
    ink.globalAlpha = 1;
  }

  /** What lies at a point of the view: a node's number, else the ends of a tie, else null. */
  hit(x, y) {
    const { model, grown } = this;
    let [best, least] = [null, Infinity];
    for (const a of this.order) {
      const [ax, ay] = this._at(a);
      const far = Math.hypot(ax - x, ay - y);
      if (far <= Math.max(5, model.radius(a) * grown + 2) && far < least) [best, least] = [a, far];
    }
    if (best !== null) return [best];
    const { source, target } = model.scene.ties;
    for (let t = 0; t < source.length; t++) {
      if (!model.tie.shown[t]) continue;
      const [[x0, y0], [x1, y1]] = [this._at(source[t]), this._at(target[t])];
      const long = (x1 - x0) ** 2 + (y1 - y0) ** 2 || 1;
      const along = Math.min(1, Math.max(0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / long));
      const far = Math.hypot(x0 + along * (x1 - x0) - x, y0 + along * (y1 - y0) - y);
      if (far <= Math.max(4, (model.width(t) * grown) / 2 + 2) && far < least) [best, least] = [t, far];
    }
    return best === null ? null : [source[best], target[best]];
  }

  /** A node that is dragged moves; anything else that is dragged moves the view. */
  _pointers() {
    const { front, listen, model } = this;
    let held = null;
    const place = (event) => {
      const box = front.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    front.addEventListener("pointerdown", (event) => {
      const [x, y] = place(event);
      const found = this.hit(x, y);
      held = { x, y, node: found?.length === 1 ? found[0] : null, moved: false };
      front.setPointerCapture(event.pointerId);
    });
    front.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (!held) {
        const found = this.hit(x, y);
        front.style.cursor = found ? "pointer" : "grab";
        return listen.hover(found?.length === 1 ? found[0] : null, x, y);
      }
      const [dx, dy] = [x - held.x, y - held.y];
      if (!held.moved && Math.hypot(dx, dy) < 4) return;
      const scale = this._scale();
      if (held.node === null) {
        const unit = (this.width / this._scale(1)) * scale;
        this.camera = { x: this.state.x - dx / unit, y: this.state.y + dy / unit };
      } else {
        model.x[held.node] += dx / scale;
        model.y[held.node] -= dy / scale;
        this._later();
      }
      Object.assign(held, { x, y, moved: true });
    });
    front.addEventListener("pointerup", (event) => {
      if (held && !held.moved) {
        const more = event.shiftKey || event.ctrlKey || event.metaKey;
        const found = this.hit(held.x, held.y);
        if (found || !more) listen.pick(found ?? [], more);
      }
      held = null;
    });
    front.addEventListener("pointerleave", () => listen.hover(null, 0, 0));
    front.addEventListener("dblclick", (event) => {
      const found = this.hit(...place(event));
      if (found?.length === 1) listen.expand(found[0]);
    });
    front.addEventListener("wheel", (event) => {
      event.preventDefault();
      this._zoomAt(Math.exp(-Math.sign(event.deltaY) * Math.min(0.3, Math.abs(event.deltaY) / 300)), ...place(event));
    }, { passive: false });
  }

  /** Zoom so that what lies at a point stays there. */
  _zoomAt(factor, x, y) {
    const ratio = Math.min(5, Math.max(0.01, this.state.ratio / factor));
    const share = (this.state.ratio - ratio) / this.width;
    this.camera = { ratio, x: this.state.x + (x - this.width / 2) * share, y: this.state.y - (y - this.height / 2) * share };
  }

  get camera() {
    return { ...this.state };
  }

  set camera(state) {
    this.state = { ...this.state, ...state };
    this._later(false);
    this.listen.camera(this.camera);
  }

  /** Where a node is in the view, in pixels. */
  placeOf(a) {
    return this._at(a);
  }

  zoom(factor) {
    this._zoomAt(factor, this.width / 2, this.height / 2);
  }

  pan(right, up) {
    const { x, y, ratio } = this.state;
    this.camera = { x: x + 0.08 * ratio * right, y: y + 0.08 * ratio * up };
  }

  fit() {
    this.box = frame(this.model);
    this._later();
    this.camera = { x: 0.5, y: 0.5, ratio: 1 };
  }

  destroy() {
    cancelAnimationFrame(this.next);
    clearTimeout(this.rest);
    this.front.remove();
  }
}
