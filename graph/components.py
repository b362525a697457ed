"""Connected components over what accounts share, kept up to date payment by payment, with expiry and stable ring ids.

A *tie* is a distinct pair (account, entity); an entity that more than a set number of accounts use is a *hub* and ties
nobody. Unions cannot be undone in a union-find (Tarjan, "Efficiency of a good but not linear set union algorithm",
JACM 1975), so old ties leave as garbage leaves a collector: beside the *live* forest a *builder* goes through the list
of ties, `stride` for each payment, and then takes the live forest's place:

1. scan: a tie whose newest payment is inside the window is united; another is left out, and dropped by the next scan;
2. claim: each ring of the live forest, oldest first, gives its id to the component that holds most of its accounts.

How many accounts use an entity is counted over all ties, so a hub is a hub for the builder from its first tie on. The
work for a payment is bounded by `stride` (and by the largest ring, which claims in one go), and nothing depends on a
batch or on the size of the store's buffer: the result is a function of the journal.
A known fraud is kept as a tie of the account with its own payment, and expires like one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph.jit import jit
from graph.store import Columns, grown

FRAUD = -1  # `link` of a known fraud
WITHDRAWN = np.iinfo(np.int64).min  # `last` of a fraud that was overturned: outside every window
REST, SCAN, CLAIM, READY = range(4)  # phases of the builder

Records = NDArray[np.void]
TIE = np.dtype(
    [
        ("key", "i8"),  # account << 32 | entity; of a known fraud, ~ its row
        ("last", "i8"),  # journal time of its newest payment, us
        ("account", "i4"),
        ("link", "i4"),  # linking role
        ("entered", "i4"),  # newest generation that has it; the live one has then, too
        ("counted", "i4"),  # 1 while it counts in `uses`
    ],
    align=True,
)
USE = np.dtype(
    [
        ("users", "i4"),  # accounts that use this entity
        ("fan", "i4"),  # accounts that this account pays
        ("account", "i4"),  # 1 for accounts
    ]
)
NODE = np.dtype(
    [
        ("parent", "i4"),  # node + 1; 0 while the forest has not met the node
        ("next", "i4"),  # next member of the component, a circle
        ("size", "i4"),  # nodes in the component; this and the next three are kept at the root
        ("accounts", "i4"),
        ("shared", "i4"),  # entities that tie two accounts or more
        ("frauds", "i4"),  # payments of its accounts that are known frauds
        ("tied", "i4"),  # accounts united through this entity
        ("votes", "i4"),  # scratch of a claim, zero outside it
        ("ring", "i8"),  # at the root: ring id + 1, 0 none
    ],
    align=True,
)
RING = np.dtype([("id", "i8"), ("born", "i8"), ("anchor", "i4")], align=True)
HEIR = np.dtype([("id", "i8"), ("heir", "i8")])
PROGRESS = np.dtype(
    [
        ("ties", "i8"),  # ties in the list
        ("clock", "i8"),  # journal time of the newest payment, us
        ("phase", "i8"),
        ("at", "i8"),  # next tie to scan (0 at rest), or next ring to claim
        ("age", "i8"),  # payments since the last takeover
        ("retired", "i8"),  # entries of `heirs`
        ("generation", "i8"),  # of the live forest; the builder's is the next
    ]
)


class Ties(NamedTuple):
    """What both generations share. P, N and Q are capacities."""

    list: Records  # [P] TIE, in no order that matters
    table: NDArray[np.int32]  # [H] open addressing by key: tie + 1, 0 free; H a power of two, at least 2 P
    uses: Records  # [N] USE, by node
    heirs: Records  # [Q] HEIR, in order of retirement: an id that is gone, and the older one that took its place
    progress: Records  # [1] PROGRESS


class Forest(NamedTuple):
    """One generation. N and K are capacities."""

    nodes: Records  # [N] NODE
    rings: Records  # [K] RING, in order of id; one whose id is not at its anchor's root has merged
    counts: NDArray[np.int64]  # [1] rings


class Rules(NamedTuple):
    """What ties. L linking roles."""

    links: NDArray[np.int64]  # [L] column of each linking role
    limits: NDArray[np.int64]  # [L] accounts above which an entity is a hub
    transfer: NDArray[np.bool_]  # [L] the entity is an account that is paid
    window_us: int
    min_accounts: int  # a component of this many is a ring
    stride: int  # ties, or members of rings, that the builder moves on by for each payment
    rest: int  # payments between a takeover and the next builder's start


def empty_ties() -> Ties:
    """No ties yet."""
    return Ties(
        np.zeros(1024, TIE), np.zeros(2048, np.int32), np.zeros(1024, USE), np.zeros(64, HEIR), np.zeros(1, PROGRESS)
    )


def empty_forest(nodes: int, rings: int) -> Forest:
    """No nodes met yet. Zeroed memory comes page by page on first use, so this takes no time."""
    return Forest(np.zeros(nodes, NODE), np.zeros(rings, RING), np.zeros(1, np.int64))


def ties_with_room(t: Ties, ties: int, nodes: int, heirs: int) -> Ties:
    """The ties, arrays that are too short at least doubled."""
    rows, table = grown(t.list, ties), t.table
    if len(table) < 2 * len(rows):
        table = np.zeros(1 << (2 * len(rows) - 1).bit_length(), np.int32)
        _rehash(rows, table, int(t.progress["ties"][0]))
    return Ties(rows, table, grown(t.uses, nodes, 0), grown(t.heirs, heirs), t.progress)


def forest_with_room(f: Forest, nodes: int, rings: int) -> Forest:
    """The forest, arrays that are too short at least doubled."""
    return Forest(grown(f.nodes, nodes, 0), grown(f.rings, rings), f.counts)


@jit()
def _rehash(rows: Records, table: NDArray[np.int32], n: int) -> None:
    for i in range(n):
        table[_slot(rows, table, rows[i].key)] = i + 1


@jit()
def _home(table: NDArray[np.int32], key: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014)."""
    x = np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int(np.int64(x >> np.uint64(1)) & (table.shape[0] - 1))


@jit()
def _slot(rows: Records, table: NDArray[np.int32], key: int) -> int:
    """Slot of the table that holds the key, or the free one where it belongs."""
    at = _home(table, key)
    while table[at] and rows[table[at] - 1].key != key:
        at = (at + 1) & (table.shape[0] - 1)
    return at


@jit()
def _add(t: Ties, at: int, key: int, account: int, link: int, last: int) -> int:
    i = int(t.progress[0].ties)
    tie = t.list[i]
    tie.key = key
    tie.account = account
    tie.link = link
    tie.last = last
    tie.entered = -1
    tie.counted = 0
    t.table[at] = i + 1
    t.progress[0].ties = i + 1
    return i


@jit()
def _use(t: Ties, rules: Rules, i: int, counted: int) -> None:
    tie = t.list[i]
    if tie.link != FRAUD:
        t.uses[tie.key & 0xFFFFFFFF].users += counted - tie.counted
        if rules.transfer[tie.link]:
            t.uses[tie.account].fan += counted - tie.counted
    tie.counted = counted


@jit()
def _drop(t: Ties, i: int) -> None:
    """Take a tie out; the last of the list takes its place."""
    rows, table, mask = t.list, t.table, t.table.shape[0] - 1
    hole = _slot(rows, table, rows[i].key)
    at = hole
    while True:  # close the gap, so that no search ends early at a free slot (Knuth, TAOCP 3, algorithm 6.4R)
        at = (at + 1) & mask
        if table[at] == 0:
            break
        home = _home(table, rows[table[at] - 1].key)
        if (at - home) & mask >= (at - hole) & mask:
            table[hole] = table[at]
            hole = at
    table[hole] = 0
    last = int(t.progress[0].ties) - 1
    if i != last:
        table[_slot(rows, table, rows[last].key)] = i + 1
        rows[i] = rows[last]
    t.progress[0].ties = last


@jit()
def find(f: Forest, node: int) -> int:
    """Root of a node that the forest has met. Halves the path, which changes no answer."""
    nodes = f.nodes
    while nodes[node].parent - 1 != node:
        up = nodes[node].parent - 1
        nodes[node].parent = nodes[up].parent
        node = up
    return node


@jit()
def _meet(f: Forest, t: Ties, node: int) -> None:
    n = f.nodes[node]
    if n.parent == 0:
        n.parent = node + 1
        n.next = node
        n.size = 1
        n.accounts = t.uses[node].account


@jit()
def _unite(f: Forest, t: Ties, a: int, b: int) -> int:
    a, b = find(f, a), find(f, b)
    if a == b:
        return a
    if f.nodes[a].size < f.nodes[b].size:
        a, b = b, a
    root, other = f.nodes[a], f.nodes[b]
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


@jit()
def _retire(t: Ties, ring: int, heir: int) -> None:
    entry = t.heirs[t.progress[0].retired]
    entry.id = ring
    entry.heir = heir
    t.progress[0].retired += 1


@jit()
def _enter(f: Forest, t: Ties, rules: Rules, i: int) -> None:
    """Put one tie into a forest."""
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
    root = _unite(f, t, account, entity)
    f.nodes[entity].tied += 1
    if f.nodes[entity].tied == 2:
        f.nodes[root].shared += 1


@jit()
def _renew(live: Forest, builder: Forest, t: Ties, rules: Rules, i: int) -> None:
    """Put a tie that has just been seen wherever it is missing; a builder that has still to scan it comes to it."""
    now, tie = t.progress[0], t.list[i]
    if tie.counted == 0:
        _use(t, rules, i, 1)
    if tie.entered < now.generation:
        tie.entered = now.generation
        _enter(live, t, rules, i)
    if tie.entered == now.generation and (now.phase == CLAIM or i < now.at):
        tie.entered = now.generation + 1
        _enter(builder, t, rules, i)


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
                    if votes > best or (votes == best and node < anchor):
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
def extend(columns: Columns, live: Forest, builder: Forest, t: Ties, rules: Rules, first: int, last: int) -> int:
    """Take in payments in order and write their ring columns.

    The arrays must have room for L ties and one ring a payment, and for the ids that may retire.

    Returns:
        The row after the last one taken in: `last`, or earlier where the builder is ready to take over.
    """
    mask = columns.time.shape[0] - 1
    now = t.progress[0]
    for row in range(first, last):
        s = row & mask
        time = columns.time[s]
        now.clock = time
        account = int(columns.entity[s, 0])
        t.uses[account].account = 1
        _meet(live, t, account)
        for link in range(rules.links.shape[0]):
            entity = int(columns.entity[s, rules.links[link]])
            if entity < 0 or entity == account:
                continue
            if rules.transfer[link]:
                t.uses[entity].account = 1
            key = account << 32 | entity
            at = _slot(t.list, t.table, key)
            i = int(t.table[at]) - 1
            if i < 0:
                i = _add(t, at, key, account, link, time)
            t.list[i].last = time
            _renew(live, builder, t, rules, i)
        root = live.nodes[find(live, account)]
        if root.ring == 0 and root.accounts >= rules.min_accounts:
            root.ring = row + 1
            _found(live, row, time, account)
        columns.ring[s, 0] = root.accounts
        columns.ring[s, 1] = root.shared
        columns.ring[s, 2] = root.frauds
        columns.ring_id[s] = root.ring - 1
        now.age += 1
        if now.phase == REST and now.age > rules.rest:
            now.phase = SCAN
        if now.phase != REST:
            _advance(live, builder, t, rules)
            if now.phase == READY:
                return row + 1
    return last


@jit()
def _advance(live: Forest, builder: Forest, t: Ties, rules: Rules) -> None:
    now = t.progress[0]
    cutoff = now.clock - rules.window_us
    left = rules.stride
    while left > 0 and now.phase != READY:
        if now.phase == SCAN and now.at < now.ties:
            left -= 1
            tie = t.list[now.at]
            if tie.last >= cutoff:
                tie.entered = now.generation + 1
                _enter(builder, t, rules, now.at)
            elif tie.entered < now.generation:
                _drop(t, now.at)  # the last tie is now here: look again
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
def relabel(
    live: Forest, builder: Forest, t: Ties, rules: Rules, row: int, account: int, time: int, delta: int
) -> None:
    """Enter (+1) or withdraw (-1) a known fraud of an account. There must be room for one more tie."""
    now = t.progress[0]
    at = _slot(t.list, t.table, ~row)
    i = int(t.table[at]) - 1
    if delta > 0:
        if time < now.clock - rules.window_us:
            return
        if i < 0:
            i = _add(t, at, ~row, account, FRAUD, time)
        t.list[i].last = time
        _renew(live, builder, t, rules, i)
    elif i >= 0:
        tie = t.list[i]
        if tie.entered >= now.generation:
            live.nodes[find(live, account)].frauds -= 1
        if tie.entered > now.generation:
            builder.nodes[find(builder, account)].frauds -= 1
        tie.entered, tie.last = -1, WITHDRAWN


@jit()
def members(f: Forest, root: int) -> NDArray[np.int32]:
    """All nodes of a component, ascending, int32 [its size]."""
    out = np.empty(f.nodes[root].size, np.int32)
    node = root
    for i in range(out.shape[0]):
        out[i] = node
        node = f.nodes[node].next
    return np.sort(out)
