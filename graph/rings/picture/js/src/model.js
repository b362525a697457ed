// What is known of a ring as of a moment, and what of it is shown. Nothing here knows how it is drawn.

/** The sum of a list. */
export const sum = (values) => values.reduce((a, b) => a + b, 0);

/** Numbers by node or tie: which payments each one has. */
function inverted(lists, size) {
  const found = Array.from({ length: size }, () => []);
  lists.forEach((list, i) => list.forEach((at) => found[at].push(i)));
  return found;
}

export class Model {
  /** @param scene Made by `graph.rings.picture.scene`. */
  constructor(scene) {
    if (scene?.version !== 1) throw new Error(`ringwatch: a scene of version ${scene?.version} cannot be drawn`);
    this.scene = scene;
    const { nodes, ties, payments } = scene;
    this.size = nodes.name.length;
    this.x = [...nodes.x];
    this.y = [...nodes.y];
    this.key = nodes.name.map((name, i) => `${nodes.role[i]}:${name}`);
    this.number = new Map(this.key.map((key, i) => [key, i]));
    this.paymentsOf = inverted(payments.nodes, this.size);
    this.paymentsOfTie = inverted(payments.ties, ties.source.length);
    this.neighbours = Array.from({ length: this.size }, () => new Set());
    ties.source.forEach((a, i) => {
      this.neighbours[a].add(ties.target[i]);
      this.neighbours[ties.target[i]].add(a);
    });
    this.hidden = new Set();
    this.expanded = new Set();
    this.selection = new Set();
    this.everyone = false;
    this.waiting = sum(nodes.later);
    this._span();
    this.moment = this.end;
    this._room();
    this.compute();
  }

  /** The slider runs from the ring's beginning to its end; what members did before is there from the start. */
  _span() {
    const { nodes, payments } = this.scene;
    const told = payments.time.filter((_, i) => payments.evidence[i] || payments.reported[i] !== null);
    const joined = nodes.joined.filter((at) => at !== null);
    const reports = payments.reported.filter((at) => at !== null);
    const least = (list) => list.reduce((a, b) => Math.min(a, b), Infinity);
    const most = (list) => list.reduce((a, b) => Math.max(a, b), -Infinity);
    const first = Math.min(least(told), least(joined));
    const from = Number.isFinite(first) ? first : least(payments.time);
    const to = Math.max(most(payments.time), most(reports), most(joined));
    if (!Number.isFinite(from) || !Number.isFinite(to)) {
      this.start = this.end = this.scene.ring.first_seen;
      return;
    }
    this.start = from - Math.max(1, Math.round((to - from) * 0.02));
    this.end = Math.max(to, this.start + 1);
  }

  _room() {
    const ties = this.scene.ties.source.length;
    this.node = {
      payments: new Int32Array(this.size), risk: new Float64Array(this.size), frauds: new Int32Array(this.size),
      weight: new Float64Array(this.size), lit: new Float64Array(this.size), shown: new Uint8Array(this.size),
    };
    this.tie = {
      payments: new Int32Array(ties), risk: new Float64Array(ties), frauds: new Int32Array(ties),
      weight: new Float64Array(ties), evidence: new Uint8Array(ties), shown: new Uint8Array(ties),
    };
  }

  /** Risk of a payment as it was known at the moment: reported 1, cleared 0, else what the model said. */
  risk(i) {
    const p = this.scene.payments;
    if (p.reported[i] !== null && p.reported[i] <= this.moment) return 1;
    return p.legitimate[i] ? 0 : (p.probability[i] ?? 0);
  }

  /** Bring counts, risks and what is shown in line with the moment, the hidden and the expanded. */
  compute() {
    const { node, tie, moment } = this;
    const p = this.scene.payments;
    for (const part of [node, tie]) for (const column of Object.values(part)) column.fill(0);
    const glow = Math.max(1, (this.end - this.start) * 0.05);
    for (let i = 0; i < p.time.length; i++) {
      if (p.time[i] > moment) continue;
      const risk = this.risk(i);
      const reported = p.reported[i] !== null && p.reported[i] <= moment;
      const lit = reported && moment < this.end ? Math.max(0, 1 - (moment - p.reported[i]) / glow) : 0;
      for (const a of p.nodes[i]) {
        node.payments[a] += 1;
        node.risk[a] += risk;
        node.weight[a] += p.weight[i];
        if (reported) node.frauds[a] += 1;
        if (lit > node.lit[a]) node.lit[a] = lit;
      }
      for (const a of p.ties[i]) {
        tie.payments[a] += 1;
        tie.risk[a] += risk;
        tie.weight[a] += p.weight[i];
        if (reported) tie.frauds[a] += 1;
        if (p.evidence[i]) tie.evidence[a] = 1;
      }
    }
    for (let a = 0; a < this.size; a++) {
      if (node.payments[a]) node.risk[a] /= node.payments[a];
      node.shown[a] = this._shows(a) ? 1 : 0;
    }
    // Many nodes have little room each.
    this.crowd = Math.min(1, (80 / Math.max(1, sum(node.shown))) ** 0.4);
    const { source, target } = this.scene.ties;
    for (let t = 0; t < tie.payments.length; t++) {
      if (!tie.payments[t]) continue;
      tie.risk[t] /= tie.payments[t];
      tie.shown[t] = node.shown[source[t]] && node.shown[target[t]] ? 1 : 0;
    }
  }

  /** Whether a node is in the ring at the moment. */
  isMember(a) {
    const joined = this.scene.nodes.joined[a];
    return joined !== null && joined <= this.moment;
  }

  _shows(a) {
    const { member, joined, later } = this.scene.nodes;
    const there = this.node.payments[a] > 0 || (joined[a] !== null && joined[a] <= this.moment);
    if (!there || this.hidden.has(a)) return false;
    if (member[a] !== null && (!later[a] || this.everyone)) return true;
    for (const b of this.neighbours[a]) if (this.expanded.has(b)) return true;
    return this.selection.has(a);
  }

  /** Whether a node stands out while others are selected: it is one of them, or tied to one. */
  stands(a) {
    if (!this.selection.size || this.selection.has(a)) return true;
    for (const b of this.neighbours[a]) if (this.selection.has(b)) return true;
    return false;
  }

  /** Neighbours of a node that are not shown although they have payments at the moment. */
  unseen(a) {
    return [...this.neighbours[a]].filter((b) => this.node.payments[b] && !this.node.shown[b] && !this.hidden.has(b));
  }

  /** Payments at the moment that have all of these nodes, newest first. */
  payments(nodes) {
    if (!nodes.length) return [];
    const [first, ...rest] = [...nodes].sort((a, b) => this.paymentsOf[a].length - this.paymentsOf[b].length);
    const p = this.scene.payments;
    const found = this.paymentsOf[first].filter(
      (i) => p.time[i] <= this.moment && rest.every((b) => p.nodes[i].includes(b)),
    );
    return found.sort((i, j) => p.time[j] - p.time[i]);
  }

  /** How much a node says: for the order of labels and lists. */
  importance(a) {
    const role = this.scene.nodes.member[a];
    const part = role === null ? 0 : role === "account" || role === "shared" ? 1 : 3;
    return part + Math.log1p(this.node.weight[a]) * (0.2 + this.node.risk[a]) + this.neighbours[a].size * 0.01;
  }

  label(a) {
    const role = this.scene.nodes.member[a];
    const plain = role === null || role === "account" || role === "shared";
    return plain ? this.scene.nodes.name[a] : `${this.scene.nodes.name[a]} · ${role}`;
  }

  /** Radius in pixels, before the zoom. */
  radius(a) {
    const part = this.scene.nodes.member[a] === null ? 0.7 : 1;
    return this.crowd * part * Math.min(20, 8 + 2.4 * Math.log1p(this.node.payments[a]));
  }

  /** Width in pixels: money, on a log scale, each currency in its own median payments. */
  width(t) {
    return this.crowd ** 0.5 * Math.min(10, 1.2 + 1.9 * Math.log1p(this.tie.weight[t]));
  }
}
