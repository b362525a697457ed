// The keyboard: everything that the mouse can do.

import { h } from "./dom.js";

const KEYS = [
  ["Tab", "go from control to control; the picture itself is one of them"],
  ["arrows", "select the next node in that direction (in the picture)"],
  ["Shift + arrows", "move the view"],
  ["+  −  0", "zoom in, zoom out, fit everything"],
  ["space", "play or pause"],
  [",  .", "a step back or on in time"],
  ["e", "show or put away the neighbours of what is selected"],
  ["h", "hide what is selected"],
  ["u", "show everything hidden again"],
  ["t", "the picture as a table"],
  ["d", "dark or light"],
  ["Enter", "go to the payments of what is selected"],
  ["Escape", "select nothing; close this"],
  ["?", "this list"],
];

/** The list of keys, as a dialog. */
export function help() {
  const dialog = h("dialog", { class: "rw-help", "aria-label": "Keys" }, h("h2", null, "Keys"),
    h("dl", { class: "rw-facts" }, KEYS.map(([key, what]) => [h("dt", null, h("kbd", null, key)), h("dd", null, what)])),
    h("p", { class: "rw-hint" }, "Mouse: drag a node to move it, drag the ground to move the view, wheel to zoom, click to ",
      "select, Shift + click to select more, double-click for neighbours."),
    h("button", { type: "button", onclick: () => dialog.close() }, "Close"));
  return dialog;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** The shown node that lies best in a direction from another; the most telling one where nothing is selected. */
export function towards(model, from, [right, up]) {
  let [best, least] = [null, Infinity];
  for (let a = 0; a < model.size; a++) {
    if (!model.node.shown[a] || a === from) continue;
    if (from === null) {
      if (-model.importance(a) < least) [best, least] = [a, -model.importance(a)];
      continue;
    }
    const [dx, dy] = [model.x[a] - model.x[from], model.y[a] - model.y[from]];
    const along = dx * right + dy * up;
    const across = Math.abs(dx * up) + Math.abs(dy * right);
    if (along > 1e-6 && along >= 0.4 * across && along + 2 * across < least) [best, least] = [a, along + 2 * across];
  }
  return best;
}

/** Listen to keys in the whole picture; `act` does what they ask for. */
export function listen(root, stage, model, act) {
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("dialog")) return;
    const control = event.target.closest("input, select, button, textarea, summary");
    const inside = stage.contains(event.target);
    const arrow = ARROWS[event.key];
    const done = () => {
      event.preventDefault();
      event.stopPropagation();
    };
    if (arrow && inside) {
      if (event.shiftKey) act.pan(...arrow);
      else {
        const [from] = model.selection;
        const next = towards(model, from ?? null, arrow);
        if (next !== null) act.pick([next]);
      }
      return done();
    }
    if (control && (arrow || event.key === " " || event.key === "Enter")) return event.stopPropagation();
    const what = {
      " ": act.play, ",": () => act.step(-0.02), ".": () => act.step(0.02), "+": () => act.zoom(1.3), "=": () => act.zoom(1.3),
      "-": () => act.zoom(1 / 1.3), 0: act.fit, e: act.expandSelected, h: act.hideSelected, u: act.unhide, t: act.list,
      d: act.theme, Enter: act.enter, Escape: act.clear, "?": act.help,
    }[event.key];
    if (what) {
      what();
      done();
    }
  });
}
