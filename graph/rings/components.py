"""Connected components over what accounts share, kept up to date payment by payment, with expiry and stable ring ids.

A *tie* is a distinct pair (account, entity); an entity that more than a set number of accounts use is a *hub* and ties
nobody. Unions cannot be undone in a union-find (Tarjan, "Efficiency of a good but not linear set union algorithm",
JACM 1975), so old ties leave as garbage leaves a collector: beside the *live* forest a *builder* goes through the list
of ties, `stride` or more for each payment, and then takes the live forest's place:

1. scan: a tie whose newest payment is inside the window is united; another is left out, and dropped by the next scan;
2. claim: each ring of the live forest, oldest first, gives its id to the component that holds most of its accounts.

How many accounts use an entity is counted over all ties, so a hub is a hub for the builder from its first tie on. The
work for a payment is bounded: by `stride`, or where payments bring so many ties that the builder would fall behind by
what takes it through the list in a quarter of the window's rows (and by the largest ring, which claims in one go).
Nothing depends on a batch or on the size of the store's buffer: the result is a function of the journal.
A known fraud is kept as a tie of the account with its own payment, and expires like one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit, prefetch, signed
from graph.dag.protocol import MAX_RING_COUNT, MAX_RING_DISTANCE
from graph.rings.events import Log, tell_born, tell_union
from graph.rings.forest import FRAUD, Forest, Rules, Ties, add_tie, drop_tie, find, home, slot_of_key

WITHDRAWN = np.iinfo(np.int64).min  # `last` of a fraud that was overturned: outside every window
REST, SCAN, CLAIM, READY = range(4)  # phases of the builder
SCANS_PER_WINDOW = 4  # scans of all ties that fit into the rows of a window, at least
PREFETCHED = 8  # payments, or ties, whose reads are asked for before they are taken in


class Arrivals(NamedTuple):
    """Payments that have just been appended, in order. n of them, R roles."""

    entity: NDArray[np.int32]  # [n, R]
    time: NDArray[np.int64]  # [n] journal time, us
    cut: NDArray[np.int64]  # [n] oldest row inside the ring window of each


class RingColumns(NamedTuple):
    """What the rows of payments say of their rings, each as of itself."""

    size: NDArray[np.uint16]  # [n, 3] accounts, tying entities, known frauds
    back: NDArray[np.uint32]  # [n] 1 + rows back to the payment that founded the ring, 0 where there is none


@jit(inline=True)
def _use(t: Ties, rules: Rules, i: int, counted: int) -> None:
    tie = t.list[i]
    if tie.link != FRAUD:
        t.uses[tie.key & 0xFFFFFFFF].users += counted - tie.counted
        if rules.transfer[tie.link]:
            t.uses[tie.account].fan += counted - tie.counted
    tie.counted = counted


@jit(inline=True)
def _meet(f: Forest, t: Ties, node: int) -> None:
    n = f.nodes[node]
    if n.parent == 0:
        n.parent = node + 1
        n.next = node
        n.size = 1
        n.accounts = t.uses[node].account


@jit(inline=True)
def _unite(f: Forest, t: Ties, a: int, b: int, log: Log, listen: bool) -> int:
    a, b = find(f, a), find(f, b)
    if a == b:
        return a
    if f.nodes[a].size < f.nodes[b].size:
        a, b = b, a
    root, other = f.nodes[a], f.nodes[b]
    if listen and (root.ring or other.ring):
        tell_union(log, f, t, a, b)
    other.parent = a + 1
    root.next, other.next = other.next, root.next  # two circles become one
    root.size += other.size
    root.accounts += other.accounts
    root.shared += other.shared
    root.frauds += other.frauds
    if root.ring and other.ring:
        _retire(t, max(root.ring, other.ring) - 1, min(root.ring, other.ring) - 1)
        root.ring = min(root.ring, other.ring)  # the older id survives
    elif other.ring:
        root.ring = other.ring
    return a


@jit(inline=True)
def _retire(t: Ties, ring: int, heir: int) -> None:
    entry = t.heirs[t.progress[0].retired]
    entry.id = ring
    entry.heir = heir
    t.progress[0].retired += 1


@jit(inline=True)
def _enter(f: Forest, t: Ties, rules: Rules, i: int, log: Log, listen: bool) -> None:
    """Put one tie into a forest; what happens to rings is told where the forest is the live one."""
    tie = t.list[i]
    account = int(tie.account)
    if tie.link == FRAUD:
        _meet(f, t, account)
        f.nodes[find(f, account)].frauds += 1
        return
    entity = int(tie.key & 0xFFFFFFFF)
    limit = rules.limits[tie.link]
    # One who pays very many is as little of a tie as one whom very many pay: a payroll, a landlord.
    if t.uses[entity].users > limit or (rules.transfer[tie.link] and t.uses[account].fan > limit):
        return
    _meet(f, t, account)
    _meet(f, t, entity)
    root = _unite(f, t, account, entity, log, listen)
    f.nodes[entity].tied += 1
    if f.nodes[entity].tied == 2:
        f.nodes[root].shared += 1


@jit(inline=True)
def _renew(live: Forest, builder: Forest, t: Ties, rules: Rules, i: int, log: Log) -> None:
    """Put a tie that has just been seen wherever it is missing; a builder that has still to scan it comes to it."""
    now, tie = t.progress[0], t.list[i]
    if tie.counted == 0:
        _use(t, rules, i, 1)
    if tie.entered < now.generation:
        tie.entered = now.generation
        _enter(live, t, rules, i, log, rules.listen)
    if tie.entered == now.generation and (now.phase == CLAIM or i < now.at):
        tie.entered = now.generation + 1
        _enter(builder, t, rules, i, log, False)


@jit()
def _claim(live: Forest, f: Forest, t: Ties, rules: Rules, ring: int) -> int:
    """Hand one ring's id on; how many nodes were looked at."""
    old = live.rings[ring]
    root = find(live, int(old.anchor))
    if live.nodes[root].ring - 1 != old.id:
        return 1
    # Three rounds of the circle: vote, look for the winner, clear the votes.
    best, anchor, winner = 0, -1, -1
    for lap in range(3):
        node = root
        while True:
            if t.uses[node].account and f.nodes[node].parent:
                to = find(f, node)
                if lap == 0:
                    f.nodes[to].votes += 1
                elif lap == 1:
                    votes = int(f.nodes[to].votes)
                    if votes > best:  # of equals the first in the circle, whose order is a matter of history alone
                        best, anchor, winner = votes, node, to
                else:
                    f.nodes[to].votes = 0
            node = int(live.nodes[node].next)
            if node == root:
                break
    if winner >= 0:
        new = f.nodes[winner]
        if new.ring:  # an older ring has claimed it
            _retire(t, old.id, new.ring - 1)
        elif new.accounts >= rules.min_accounts:
            new.ring = old.id + 1
            _found(f, old.id, old.born, anchor)
    return int(live.nodes[root].size)


@jit()
def _found(f: Forest, ring: int, born: int, anchor: int) -> None:
    entry = f.rings[f.counts[0]]
    entry.id = ring
    entry.born = born
    entry.anchor = anchor
    f.counts[0] += 1


@jit()
def extend(
    arrived: Arrivals, live: Forest, builder: Forest, t: Ties, rules: Rules, first: int, out: RingColumns, log: Log
) -> int:
    """Take in payments in order, the first of them row `first`, and say what their rings are.

    The arrays must have room for L ties and one ring a payment, and for the ids that may retire; the log, where
    somebody listens, for an event for each node and ring and two for each payment.

    Returns:
        How many were taken in: all, or fewer where the builder is ready to take over.
    """
    n, now = arrived.time.shape[0], t.progress[0]
    for b in range(n):
        if b + PREFETCHED < n:
            _ask_for_payment(arrived.entity[b + PREFETCHED], live, t, rules)
        row, entities = first + b, arrived.entity[b]
        now.clock = arrived.time[b]
        cut = max(now.cut, arrived.cut[b])
        now.cut = cut
        log.at[1] = row
        account = signed(entities[0])
        t.uses[account].account = 1
        _meet(live, t, account)
        for link in range(rules.links.shape[0]):
            entity = signed(entities[rules.links[link]])
            if entity < 0 or entity == account:
                continue
            if rules.transfer[link]:
                t.uses[entity].account = 1
            key = account << 32 | entity
            at = slot_of_key(t.list, t.table, key)
            i = int(t.table[at]) - 1
            if i < 0:
                i = add_tie(t, at, key, account, link, row)
            t.list[i].last = row
            _renew(live, builder, t, rules, i, log)
        top = find(live, account)
        root = live.nodes[top]
        if root.ring == 0 and root.accounts >= rules.min_accounts:
            root.ring = row + 1
            _found(live, row, arrived.time[b], account)
            if rules.listen:
                tell_born(log, live, t, top, row)
        out.size[b, 0] = min(root.accounts, MAX_RING_COUNT)
        out.size[b, 1] = min(root.shared, MAX_RING_COUNT)
        out.size[b, 2] = min(root.frauds, MAX_RING_COUNT)
        out.back[b] = min(row - root.ring + 2, MAX_RING_DISTANCE) if root.ring > 0 else 0
        now.age += 1
        if now.phase == REST and now.age > rules.rest:
            now.phase = SCAN
            now.scan_cut = cut
        if now.phase != REST:
            _advance(live, builder, t, rules, log)
            if now.phase == READY:
                return b + 1
    return n


@jit(inline=True)
def _ask_for_payment(entities: NDArray[np.int32], live: Forest, t: Ties, rules: Rules) -> None:
    """Ask for what a payment will read."""
    account = signed(entities[0])
    prefetch(live.nodes, account)
    prefetch(t.uses, account)
    for link in range(rules.links.shape[0]):
        entity = signed(entities[rules.links[link]])
        if entity >= 0:
            prefetch(t.table, home(t.table, account << 32 | entity))
            prefetch(live.nodes, entity)
            prefetch(t.uses, entity)


@jit(inline=True)
def _ask_for_tie(builder: Forest, t: Ties, i: int) -> None:
    """Ask for what entering a tie will read."""
    tie = t.list[i]
    prefetch(builder.nodes, tie.account)
    if tie.link != FRAUD:
        prefetch(builder.nodes, tie.key & 0xFFFFFFFF)
        prefetch(t.uses, tie.key & 0xFFFFFFFF)


@jit()
def _advance(live: Forest, builder: Forest, t: Ties, rules: Rules, log: Log) -> None:
    """Bring the builder on by one payment's share of the work."""
    now = t.progress[0]
    left = max(rules.stride, SCANS_PER_WINDOW * now.ties // rules.window_rows)
    while left > 0 and now.phase != READY:
        if now.phase == SCAN and now.at < now.ties:
            left -= 1
            if now.at + PREFETCHED < now.ties:
                _ask_for_tie(builder, t, now.at + PREFETCHED)
            tie = t.list[now.at]
            if tie.last >= now.cut:
                tie.entered = now.generation + 1
                _enter(builder, t, rules, now.at, log, False)
            elif tie.entered < now.generation:
                drop_tie(t, now.at)  # the last tie is now here: look again
                continue
            else:  # the live forest has it still, and must not take it for a new one if it comes again
                _use(t, rules, now.at, 0)
        elif now.phase == CLAIM and now.at < live.counts[0]:
            left -= _claim(live, builder, t, rules, now.at)
        else:
            now.phase += 1
            now.at = -1
        now.at += 1


@jit()
def relabel(live: Forest, builder: Forest, t: Ties, rules: Rules, row: int, account: int, delta: int, log: Log) -> None:
    """Enter (+1) or withdraw (-1) a known fraud of an account. There must be room for one more tie."""
    now = t.progress[0]
    if row < now.cut:  # whether the store still holds such a row is a matter of its buffer, and must make no difference
        return
    at = slot_of_key(t.list, t.table, ~row)
    i = int(t.table[at]) - 1
    if delta > 0:
        if i < 0:
            i = add_tie(t, at, ~row, account, FRAUD, row)
        t.list[i].last = row
        _renew(live, builder, t, rules, i, log)
    elif i >= 0:
        tie = t.list[i]
        if tie.entered >= now.generation:
            live.nodes[find(live, account)].frauds -= 1
        if tie.entered > now.generation:
            builder.nodes[find(builder, account)].frauds -= 1
        tie.entered, tie.last = -1, WITHDRAWN
