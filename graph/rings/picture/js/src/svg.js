// The picture as an SVG of its own, for export.

import { h, s } from "./dom.js";
import { moment, short } from "./format.js";
import { outline, riskColour, shapeOf } from "./theme.js";

const FONT = "system-ui, 'DejaVu Sans', Arial, sans-serif";

/** Where the shown nodes lie: {x, y, width, height} around them, y down. */
export function frame(model) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let a = 0; a < model.size; a++) {
    if (!model.node.shown[a]) continue;
    left = Math.min(left, model.x[a]);
    right = Math.max(right, model.x[a]);
    low = Math.min(low, -model.y[a]);
    high = Math.max(high, -model.y[a]);
  }
  if (left > right) return { x: -1, y: -1, width: 2, height: 2 };
  return { x: left, y: low, width: Math.max(1, right - left), height: Math.max(1, high - low) };
}

/** The scale and shift that fit a frame into a box of pixels. */
export function fitting(box, width, height, margin) {
  const scale = Math.min((width - 2 * margin) / box.width, (height - 2 * margin) / box.height);
  const dx = width / 2 - (box.x + box.width / 2) * scale;
  const dy = height / 2 - (box.y + box.height / 2) * scale;
  return { at: (model, a) => [model.x[a] * scale + dx, -model.y[a] * scale + dy] };
}

function drawnTie(model, theme, t, at) {
  const { source, target, directed } = model.scene.ties;
  const [x0, y0] = at(source[t]);
  const [x1, y1] = at(target[t]);
  const length = Math.hypot(x1 - x0, y1 - y0) || 1;
  const width = model.width(t);
  const gap = directed[t] ? model.radius(target[t]) + 2 : 0;
  const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
  const [ex, ey] = [x1 - ux * gap, y1 - uy * gap];
  const colour = model.tie.payments[t] ? tieColour(model, theme, t) : theme.tie;
  const faded = model.stands(source[t]) && model.stands(target[t]) ? 1 : 0.2;
  const head = Math.min(3 * width + 4, length / 2);
  const points = [[ex, ey], [ex - ux * head - uy * head * 0.45, ey - uy * head + ux * head * 0.45],
    [ex - ux * head + uy * head * 0.45, ey - uy * head - ux * head * 0.45]];
  return s("g", { opacity: faded * (model.tie.evidence[t] ? 0.9 : 0.4), "data-tie": t, class: "rw-tie" },
    s("line", { x1: x0, y1: y0, x2: directed[t] ? ex - ux * head * 0.8 : ex, y2: directed[t] ? ey - uy * head * 0.8 : ey,
      stroke: colour, "stroke-width": width.toFixed(2) }),
    directed[t] ? s("path", { d: `M${points.map((p) => p.map((v) => v.toFixed(1)).join(",")).join("L")}Z`, fill: colour }) : null);
}

/** A tie is as risky as its payments; where nothing speaks against them it is grey. */
export function tieColour(model, theme, t) {
  return model.tie.risk[t] < 0.25 ? theme.tie : riskColour(0.5 + model.tie.risk[t] / 2, theme);
}

function drawnNode(model, theme, a, [x, y]) {
  const r = model.radius(a);
  const shape = shapeOf(model.scene.nodes.role[a]);
  const frauds = model.node.frauds[a];
  const opacity = (model.stands(a) ? 1 : 0.25) * (model.isMember(a) ? 1 : 0.6);
  return s("g", { transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`, opacity, "data-node": a, class: "rw-node" },
    model.node.lit[a] > 0 ? s("circle", { r: r * 1.9, fill: theme.glow, opacity: 0.75 * model.node.lit[a] }) : null,
    model.selection.has(a) ? s("circle", { r: r + 5, fill: "none", stroke: theme.picked, "stroke-width": 3 }) : null,
    s("path", { d: outline(shape, r), fill: riskColour(model.node.risk[a], theme),
      stroke: frauds ? theme.fraud : theme.rim, "stroke-width": (model.crowd ** 0.5 * (frauds ? 3 : 1.5)).toFixed(2) }));
}

/** Labels that do not run into each other, the most telling first. */
function labels(model, theme, at, wanted) {
  const taken = [];
  const drawn = [];
  const order = [...Array(model.size).keys()].filter((a) => model.node.shown[a]);
  order.sort((a, b) => model.importance(b) - model.importance(a));
  for (const a of order) {
    if (drawn.length >= wanted) break;
    const text = short(model.label(a), 30);
    const [x, y] = at(a);
    const [half, top] = [text.length * 3.3 + 2, y + model.radius(a) + 4];
    const box = [x - half, top, x + half, top + 14];
    if (taken.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) continue;
    taken.push(box);
    drawn.push(s("text", { x: x.toFixed(1), y: (top + 11).toFixed(1), "text-anchor": "middle", "font-size": 11,
      fill: theme.ink, stroke: theme.ground, "stroke-width": 3, "paint-order": "stroke",
      opacity: model.stands(a) ? 1 : 0.3 }, text));
  }
  return drawn;
}

/** Ties, nodes and labels, for `at(a)` that gives a node's place in pixels. */
export function content(model, theme, at, wanted = 400) {
  const ties = [];
  const nodes = [];
  for (let t = 0; t < model.tie.shown.length; t++) if (model.tie.shown[t]) ties.push(drawnTie(model, theme, t, at));
  for (let a = 0; a < model.size; a++) if (model.node.shown[a]) nodes.push(drawnNode(model, theme, a, at(a)));
  return [s("g", null, ties), s("g", null, nodes), s("g", { "font-family": FONT, "pointer-events": "none" },
    labels(model, theme, at, wanted))];
}

function key(model, theme, x, y) {
  const roles = [...new Set(model.scene.nodes.role.filter((_, a) => model.node.shown[a]))];
  const line = (i, mark, text) => s("g", { transform: `translate(${x},${y + 20 * i})` }, mark,
    s("text", { x: 16, y: 4, "font-size": 12, fill: theme.ink }, text));
  const bars = [0, 0.25, 0.5, 0.75, 1].map((risk, i) =>
    s("rect", { x: -8 + 12 * i, y: -6, width: 12, height: 12, fill: riskColour(risk, theme) }));
  return s("g", { "font-family": FONT },
    roles.map((role, i) => line(i, s("path", { d: outline(shapeOf(role), 6), fill: theme.muted }), role)),
    line(roles.length, s("path", { d: outline("circle", 6), fill: "none", stroke: theme.fraud, "stroke-width": 3 }),
      "rim: payments reported as fraud"),
    s("g", { transform: `translate(${x},${y + 20 * (roles.length + 1)})` }, bars,
      s("text", { x: 60, y: 4, "font-size": 12, fill: theme.ink }, "mean risk of its payments, 0 to 1")));
}

/** The whole picture with title and key, as the text of an SVG file. */
export function drawing(model, theme, width = 1600, height = 1000) {
  const fit = fitting(frame(model), width, height - 60, 90);
  const at = (a) => {
    const [x, y] = fit.at(model, a);
    return [x, y + 60];
  };
  const { ring } = model.scene;
  const root = s("svg", { xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${width} ${height}`, width, height },
    s("title", null, `Ring ${ring.id}`),
    s("rect", { width, height, fill: theme.ground }),
    content(model, theme, at),
    s("text", { x: 24, y: 36, "font-size": 22, "font-weight": 600, fill: theme.ink, "font-family": FONT },
      `Ring ${ring.id}: ${ring.accounts} accounts, as of ${moment(model.moment)} UTC`),
    key(model, theme, 32, 72));
  return new XMLSerializer().serializeToString(root);
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** The same as a PNG, two pixels for each. */
export async function png(model, theme, width = 1600, height = 1000) {
  const image = new Image(width, height);
  const url = URL.createObjectURL(new Blob([drawing(model, theme, width, height)], { type: "image/svg+xml" }));
  try {
    image.src = url;
    await image.decode();
    const canvas = h("canvas", { width: 2 * width, height: 2 * height });
    canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
    return await new Promise((done) => canvas.toBlob(done, "image/png"));
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Hand the picture to the reader as a file: kind is "svg" or "png". */
export async function download(model, theme, kind) {
  const name = `ring-${model.scene.ring.id.replace(/[^\w.-]/g, "_")}.${kind}`;
  if (kind === "png") save(await png(model, theme), name);
  else save(new Blob([drawing(model, theme)], { type: "image/svg+xml" }), name);
}
