// The panel beside the picture: the ring, or the payments behind what is selected, or everything as a table.

import { h, refill } from "./dom.js";
import { count, moment, sums } from "./format.js";
import { sum } from "./model.js";

const PAGE = 100; // rows added at a time

/** A table whose further rows come on demand. */
function table(columns, rows, caption) {
  const body = h("tbody");
  const more = h("button", { type: "button", class: "rw-more", onclick: () => add() });
  let shown = 0;
  const add = () => {
    body.append(...rows.slice(shown, shown + PAGE).map((row) =>
      h("tr", null, row().map((cell, i) => h(i ? "td" : "th", { scope: i ? null : "row" }, cell)))));
    shown = Math.min(rows.length, shown + PAGE);
    more.textContent = `Show ${Math.min(PAGE, rows.length - shown)} more of ${(rows.length - shown).toLocaleString("en-US")}`;
    more.hidden = shown >= rows.length;
  };
  add();
  return h("div", { class: "rw-scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", null, h("caption", { class: "rw-unseen" }, caption),
      h("thead", null, h("tr", null, columns.map((name) => h("th", { scope: "col" }, name)))), body), more);
}

function facts(pairs) {
  return h("dl", { class: "rw-facts" }, pairs.filter(([, value]) => value !== null && value !== "" && value !== "0" && value !== undefined)
    .map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}

export class Panel {
  /** @param act pick(numbers), expand(number), hide(numbers), unhide(), everyone(). */
  constructor(model, act) {
    this.model = model;
    this.act = act;
    this.listing = false;
    this.element = h("aside", { class: "rw-panel", "aria-label": "What is selected" });
  }

  update() {
    const chosen = [...this.model.selection];
    const seen = `${this.listing} ${this.model.everyone} ${chosen} ${this.model.moment} ${[...this.model.hidden]} ${[...this.model.expanded]}`;
    if (seen === this.seen) return; // what the reader scrolls through is not built anew for nothing
    this.seen = seen;
    const rest = this.model.hidden.size
      ? h("button", { type: "button", onclick: () => this.act.unhide() }, `Show ${count(this.model.hidden.size, "hidden node")} again`)
      : null;
    refill(this.element, this.listing ? this._everything() : chosen.length ? this._selected(chosen) : this._ring(), rest);
  }

  _ring() {
    const { ring } = this.model.scene;
    const { node } = this.model;
    const reported = this.model.scene.payments.reported.filter((at) => at !== null && at <= this.model.moment).length;
    const shown = sum(node.shown);
    return [
      h("h2", null, "The ring"),
      h("p", { class: "rw-reasons" }, ring.reasons),
      facts([
        ["state", ring.state], ["confidence", ring.confidence.toFixed(2)],
        ["members", `${ring.members}, of them ${count(ring.accounts, "account")}`],
        ["money tried", ring.money.tried], ["lost", ring.money.lost], ["stopped", ring.money.stopped],
        ["first seen", moment(ring.first_seen)], ["named", moment(ring.named_at)], ["last seen", moment(ring.last_seen)],
        ["ended", moment(ring.ended_at)], ["merged into", ring.merged_into], ["came from", ring.parents.join(", ")],
        ["shown now", `${count(shown, "node")}, ${count(reported, "reported fraud")}`],
      ]),
      h("p", { class: "rw-hint" }, "Click a node or a tie for the payments behind it. Double-click shows its neighbours."),
    ];
  }

  _selected(chosen) {
    const { model } = this;
    const { nodes, payments, decimals } = model.scene;
    const found = model.payments(chosen);
    const one = chosen.length === 1 ? chosen[0] : null;
    const title = chosen.map((a) => nodes.name[a]).join(" and ");
    const unseen = one === null ? [] : model.unseen(one);
    const frauds = found.filter((i) => payments.reported[i] !== null && payments.reported[i] <= model.moment).length;
    const total = sums(payments, found, decimals).map(([, text]) => text).join(" + ");
    return [
      h("h2", null, title),
      facts([
        ["is", chosen.map((a) => [nodes.role[a], nodes.member[a]].filter(Boolean).join(", ")).join(" and ")],
        ["in the ring since", one === null ? "" : moment(nodes.joined[one])],
        ["payments", `${count(found.length, "payment")}, ${frauds} reported as fraud`], ["money", total],
        ["mean risk", one === null || !found.length ? "" : model.node.risk[one].toFixed(2)],
      ]),
      h("p", { class: "rw-buttons" },
        unseen.length ? h("button", { type: "button", onclick: () => this.act.expand(one) },
          `Show ${count(unseen.length, "neighbour")}`) : null,
        one !== null && model.expanded.has(one) ? h("button", { type: "button", onclick: () => this.act.expand(one) },
          "Put its neighbours away") : null,
        h("button", { type: "button", onclick: () => this.act.hide(chosen) }, one === null ? "Hide these" : "Hide it"),
        h("button", { type: "button", onclick: () => this.act.pick([]) }, "Back to the ring")),
      found.length ? this._payments(found) : h("p", null, chosen.length > 1
        ? "No payment has all of them." : "It has no payment up to this moment."),
    ];
  }

  _payments(found) {
    const { nodes, payments, decimals } = this.model.scene;
    const rows = found.map((i) => () => {
      const late = payments.reported[i] !== null && payments.reported[i] <= this.model.moment;
      const said = late ? `fraud since ${moment(payments.reported[i])}` : payments.legitimate[i] ? "known legitimate" : "";
      const amount = sums(payments, [i], decimals)[0][1];
      return [moment(payments.time[i]), h("span", { class: "rw-figure" }, amount),
        payments.probability[i] === null ? "" : payments.probability[i].toFixed(2),
        h("span", { class: late ? "rw-fraud" : "" }, said),
        payments.id[i], payments.nodes[i].map((a, at) => [at ? ", " : "", this._link(a)])];
    });
    return table(["time, UTC", "amount", "risk then", "known now", "payment", "who and what"], rows,
      `Payments, ${found.length}`);
  }

  _link(a) {
    return h("button", { type: "button", class: "rw-link", onclick: () => this.act.pick([a]) }, this.model.scene.nodes.name[a]);
  }

  /** The picture in words: every node that is shown. */
  _everything() {
    const { model } = this;
    const { nodes } = model.scene;
    const shown = [...Array(model.size).keys()].filter((a) => model.node.shown[a]);
    shown.sort((a, b) => model.importance(b) - model.importance(a));
    const rows = shown.map((a) => () => [this._link(a), nodes.role[a], nodes.member[a] ?? "neighbour", moment(nodes.joined[a]),
      String(model.node.payments[a]), String(model.node.frauds[a]), model.node.risk[a].toFixed(2),
      [...model.neighbours[a]].filter((b) => model.node.shown[b]).length.toString()]);
    return [h("h2", null, "All that is shown"),
      table(["name", "what", "in the ring", "since", "payments", "frauds", "mean risk", "ties"], rows, "Nodes of the picture")];
  }
}
