// The drawing surface on a graphics card: WebGL by sigma. `canvas.js` offers the same where there is none.

import { MultiDirectedGraph } from "graphology";
import Sigma from "sigma";
import {
  extremityArrow, layerFill, layerPlain, pathCurved, pathLine,
  sdfCircle, sdfDiamond, sdfRectangle, sdfSquare, sdfTriangle,
} from "sigma/rendering";
import { short } from "./format.js";
import { sum } from "./model.js";
import { frame, tieColour } from "./svg.js";
import { riskColour, shapeOf } from "./theme.js";

/** A hexagon, flat at the top: places. */
const sdfHexagon = () => ({
  name: "hexagon",
  glsl: `
float sdf_hexagon(vec2 uv, float size) {
  vec2 p = abs(uv);
  return max(p.x * 0.8660254 + p.y * 0.5, p.y) - size * 0.8660254;
}`,
  uniforms: [],
  inradiusFactor: 0.8660254,
});

/** A rim inside the shape's edge, of a node's own colour and width in pixels. */
const layerRim = () => ({
  name: "rim",
  glsl: `
vec4 layer_rim(vec4 colour, float width) {
  float inside = -context.sdf - width * context.pixelToUV;
  return vec4(colour.rgb, colour.a * smoothstep(context.aaWidth, -context.aaWidth, inside));
}`,
  uniforms: [],
  attributes: [
    { name: "rimColour", size: 4, type: WebGL2RenderingContext.UNSIGNED_BYTE, normalized: true, source: "rim" },
    { name: "rimWidth", size: 1, type: WebGL2RenderingContext.FLOAT, source: "rimWidth" },
  ],
});

const of = (attribute) => ({ attribute });
const NODES = {
  x: of("x"), y: of("y"), size: of("size"), color: of("color"), opacity: of("opacity"), shape: of("shape"),
  label: of("label"), labelColor: of("labelColor"), labelSize: 12, labelPosition: "below", visibility: of("visibility"),
  rim: of("rim"), rimWidth: of("rimWidth"), cursor: "pointer",
  labelVisibility: (node, state) => (state.isHovered || node.named ? "visible" : "auto"),
  depth: (node, state) => (state.isHovered || node.pickedWidth ? "topNodes" : "nodes"),
  backdropVisibility: (node, state) => (node.backdrop || state.isHovered ? "visible" : "hidden"),
  backdropColor: (node) => node.backdrop || node.ground,
  backdropBorderColor: of("picked"), backdropBorderWidth: of("pickedWidth"),
  backdropPadding: of("padding"), backdropArea: "node", backdropShadowBlur: 0, backdropShadowColor: "#00000000",
};
const EDGES = {
  size: of("size"), color: of("color"), opacity: of("opacity"), head: of("head"), path: of("path"),
  visibility: of("visibility"), cursor: "pointer",
};
const PRIMITIVES = () => ({
  nodes: {
    shapes: [sdfCircle(), sdfSquare(), sdfDiamond(), sdfTriangle(), sdfRectangle({ aspectRatio: 1.6 }), sdfHexagon()],
    layers: [layerFill(), layerRim()],
    variables: { rim: { type: "color", default: "#000000" }, rimWidth: { type: "number", default: 0 } },
    label: { font: { family: "system-ui, DejaVu Sans, sans-serif" }, margin: 3 },
  },
  edges: {
    paths: [pathLine(), pathCurved({ curvature: 0.2 })],
    extremities: [extremityArrow({ lengthRatio: 3.2, widthRatio: 2.6 })],
    layers: [layerPlain()],
  },
});

/** Whether this browser draws with WebGL 2 on a graphics card, and not with the processor, which Canvas 2D suits better. */
export function webgl() {
  const context = document.createElement("canvas").getContext("webgl2");
  if (context === null) return false;
  const told = context.getExtension("WEBGL_debug_renderer_info");
  const by = told ? String(context.getParameter(told.UNMASKED_RENDERER_WEBGL)) : "";
  context.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(by);
}

export class Stage {
  /**
   * @param element Where to draw.
   * @param model What to draw.
   * @param listen pick(numbers, more), expand(number), hover(number | null, x, y), camera(state).
   */
  constructor(element, model, listen) {
    this.model = model;
    this.graph = new MultiDirectedGraph();
    model.key.forEach((_, a) => this.graph.addNode(a, { x: model.x[a], y: model.y[a], size: 1 }));
    const { source, target, directed } = model.scene.ties;
    const pairs = new Set(source.map((a, t) => `${a} ${target[t]}`));
    source.forEach((a, t) => {
      const both = directed[t] && pairs.has(`${target[t]} ${a}`);
      const fixed = { head: directed[t] ? "arrow" : "none", path: both ? "curved" : "straight" };
      this.graph.addEdgeWithKey(t, a, target[t], fixed);
    });
    this.sigma = new Sigma(this.graph, element, {
      primitives: PRIMITIVES(),
      styles: { nodes: [NODES], edges: [EDGES] },
      settings: {
        itemSizesReference: "screen", enableEdgeEvents: true, enableNodeDrag: true, enableCameraRotation: false,
        enableCameraMouseRotation: false, labelRenderedSizeThreshold: 3, labelDensity: 0.6, labelGridCellSize: 90,
        inertiaRatio: 0, minCameraRatio: 0.01, maxCameraRatio: 5, stagePadding: 50, allowInvalidContainer: true,
        hideEdgesOnMove: model.scene.ties.source.length > 30_000, nodePickingPadding: 2,
      },
    });
    this._frame();
    this._listen(listen);
  }

  _listen(listen) {
    const { sigma, model } = this;
    const more = (event) => Boolean(event.original.shiftKey || event.original.ctrlKey || event.original.metaKey);
    sigma.on("clickNode", ({ node, event }) => listen.pick([Number(node)], more(event)));
    sigma.on("clickEdge", ({ edge, event }) => listen.pick(this.graph.extremities(edge).map(Number), more(event)));
    sigma.on("clickStage", ({ event }) => more(event) || listen.pick([], false));
    sigma.on("doubleClickNode", (payload) => {
      payload.preventSigmaDefault();
      listen.expand(Number(payload.node));
    });
    sigma.on("enterNode", ({ node, event }) => listen.hover(Number(node), event.x, event.y));
    sigma.on("leaveNode", () => listen.hover(null, 0, 0));
    sigma.on("nodeDragEnd", ({ allDraggedNodes }) => {
      for (const node of allDraggedNodes) {
        model.x[Number(node)] = this.graph.getNodeAttribute(node, "x");
        model.y[Number(node)] = this.graph.getNodeAttribute(node, "y");
      }
    });
    sigma.getCamera().on("updated", () => listen.camera(this.camera));
  }

  /** The picture is fitted to what is shown now, and stays when nodes come and go. */
  _frame() {
    const box = frame(this.model);
    const pad = 0.02 * Math.max(box.width, box.height);
    this.sigma.setCustomBBox({
      x: [box.x - pad, box.x + box.width + pad], y: [-box.y - box.height - pad, -box.y + pad],
    });
  }

  /** Draw the model as it is now. */
  update(theme) {
    const { model } = this;
    const { node, tie } = model;
    const { source, target } = model.scene.ties;
    const few = sum(node.shown) <= 40; // so few that every name is shown
    this.graph.updateEachNodeAttributes((key, had) => {
      const a = Number(key);
      const shown = node.shown[a];
      if (!shown && had.visibility === "hidden") return had;
      const [frauds, picked, lit] = [node.frauds[a], model.selection.has(a), node.lit[a]];
      return Object.assign(had, {
        x: model.x[a], y: model.y[a], visibility: shown ? "visible" : "hidden", size: model.radius(a),
        color: riskColour(node.risk[a], theme), shape: shapeOf(model.scene.nodes.role[a]),
        opacity: (model.stands(a) ? 1 : 0.25) * (model.isMember(a) ? 1 : 0.6),
        label: short(model.label(a), 30), labelColor: model.stands(a) ? theme.ink : `${theme.muted}66`, named: picked || (few && shown),
        rim: frauds ? theme.fraud : theme.rim, rimWidth: model.crowd ** 0.5 * (frauds ? Math.min(5, 2.6 + Math.log2(frauds) * 0.6) : 1.2),
        backdrop: lit > 0 ? faded(theme.glow, 0.85 * lit) : picked ? theme.ground : "", ground: theme.ground,
        picked: picked ? theme.picked : "#00000000", pickedWidth: picked ? 3 : 0, padding: lit > 0 ? 4 + 8 * lit : 3,
      });
    });
    this.graph.updateEachEdgeAttributes((key, had) => {
      const t = Number(key);
      const shown = tie.shown[t];
      if (!shown && had.visibility === "hidden") return had;
      const stands = model.stands(source[t]) && model.stands(target[t]);
      return Object.assign(had, {
        visibility: shown ? "visible" : "hidden", size: model.width(t), color: tieColour(model, theme, t),
        opacity: (stands ? 1 : 0.2) * (tie.evidence[t] ? 0.9 : 0.4),
      });
    });
  }

  get camera() {
    const { x, y, ratio } = this.sigma.getCamera().getState();
    return { x, y, ratio };
  }

  set camera(state) {
    this.sigma.getCamera().setState(state);
  }

  /** Where a node is in the view, in pixels. */
  placeOf(a) {
    const { x, y } = this.sigma.framedGraphToViewport(this.sigma.getNodeDisplayData(a));
    return [x, y];
  }

  zoom(factor) {
    this.sigma.getCamera().animate({ ratio: this.camera.ratio / factor }, { duration: 120 });
  }

  pan(right, up) {
    const { x, y, ratio } = this.camera;
    this.sigma.getCamera().setState({ x: x + 0.08 * ratio * right, y: y + 0.08 * ratio * up });
  }

  fit() {
    this._frame();
    this.sigma.getCamera().animate({ x: 0.5, y: 0.5, ratio: 1 }, { duration: 200 });
  }

  resize() {
    this.sigma.resize();
    this.sigma.scheduleRender();
  }

  destroy() {
    this.sigma.kill();
  }
}

const faded = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");
