"""Connected components over what accounts share, kept up to date payment by payment, with expiry and stable ring ids.

A *tie* is a distinct pair (account, entity); an entity that more than a set number of accounts use is a *hub* and ties
nobody. Unions cannot be undone in a union-find (Tarjan, "Efficiency of a good but not linear set union algorithm",
JACM 1975), so old ties leave as garbage leaves in a copying collector: beside the *live* forest a *builder* is made
from the live forest's ties that are still inside the window, `stride` of them for each payment, and takes its place:

1. copy: ties whose newest payment is inside the window are copied and counted, so that hubs are known before any union;
2. tie: the copied ties are united;
3. claim: each ring of the live forest, oldest first, gives its id to the component that holds most of its accounts.

Every payment goes to both forests, so the builder is never behind. The work for a payment is bounded by `stride`, and
nothing depends on a batch or on the size of the store's buffer: the result is a function of the journal.
A known fraud is kept as a tie of the account with its own payment, and expires like one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph.jit import jit
from graph.store import Columns, grown

FRAUD = -1  # `link` of a known fraud
WITHDRAWN = np.iinfo(np.int64).min  # `last` of a fraud that was overturned: outside every window
REST, COPY, TIE, CLAIM, READY = range(5)  # phases of the builder

TIE_TYPE = np.dtype([("key", "i8"), ("last", "i8"), ("account", "i4"), ("link", "i4")], align=True)
NODE_TYPE = np.dtype(
    [
        ("parent", "i4"),  # node + 1; 0 while the forest has not met the node
        ("next", "i4"),  # next member of the component, a circle
        ("size", "i4"),  # nodes in the component; this and the next four are kept at the root
        ("accounts", "i4"),
        ("shared", "i4"),  # entities that tie two accounts or more
        ("frauds", "i4"),  # payments of its accounts that are known frauds
        ("users", "i4"),  # distinct accounts that use this entity
        ("fan", "i4"),  # distinct accounts that this account pays
        ("tied", "i4"),  # accounts united through this entity
        ("votes", "i4"),  # scratch of `claim`, zero outside it
        ("ring", "i8"),  # ring id + 1 at the root, 0 none
        ("account", "i4"),  # 1 for accounts
    ],
    align=True,
)
RING_TYPE = np.dtype([("id", "i8"), ("born", "i8"), ("anchor", "i4")], align=True)
HEIR_TYPE = np.dtype([("id", "i8"), ("heir", "i8")])
PROGRESS_TYPE = np.dtype([("phase", "i8"), ("at", "i8"), ("age", "i8"), ("clock", "i8"), ("retired", "i8")])


class Forest(NamedTuple):
    """One generation. Ties and rings are lists in order of arrival; P, N and K are capacities."""

    ties: NDArray[np.void]  # [P] TIE_TYPE
    table: NDArray[np.int32]  # [H] open addressing: tie + 1, 0 free; H a power of two, at least 2 P
    nodes: NDArray[np.void]  # [N] NODE_TYPE
    rings: NDArray[np.void]  # [K] RING_TYPE, in order of id; one whose id is not at its anchor's root has merged
    counts: NDArray[np.int64]  # [2] ties, rings


class Rules(NamedTuple):
    """What ties. L linking roles."""

    links: NDArray[np.int64]  # [L] column of each linking role
    limits: NDArray[np.int64]  # [L] accounts above which an entity is a hub
    transfer: NDArray[np.bool_]  # [L] the entity is an account that is paid
    window_us: int
    min_accounts: int  # a component of this many is a ring
    stride: int  # ties, or members of rings, that the builder moves on by for each payment
    rest: int  # payments between a takeover and the next builder's start


def forest(ties: int, nodes: int, rings: int) -> Forest:
    """An empty forest. Zeroed memory comes page by page on first use, so this takes no time."""
    size = 1 << max(4, (2 * ties - 1).bit_length())
    return Forest(
        np.zeros(ties, TIE_TYPE),
        np.zeros(size, np.int32),
        np.zeros(nodes, NODE_TYPE),
        np.zeros(rings, RING_TYPE),
        np.zeros(2, np.int64),
    )


def with_room(f: Forest, ties: int, nodes: int, rings: int) -> Forest:
    """The forest, its arrays at least doubled where they are too short."""
    table = f.table
    if 2 * ties > len(table):
        table = np.zeros(1 << max(4, (4 * ties - 1).bit_length()), np.int32)
        _rehash(f, table)
    wider = f.nodes
    if nodes > len(wider):
        wider = np.zeros(max(nodes, 2 * len(f.nodes)), NODE_TYPE)
        wider[: len(f.nodes)] = f.nodes
    return Forest(grown(f.ties, ties), table, wider, grown(f.rings, rings), f.counts)


@jit()
def _rehash(f: Forest, table: NDArray[np.int32]) -> None:
    mask = table.shape[0] - 1
    for i in range(f.counts[0]):
        at = _hash(f.ties[i].key) & mask
        while table[at]:
            at = (at + 1) & mask
        table[at] = i + 1


@jit()
def _hash(key: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014)."""
    x = np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int(np.int64(x >> np.uint64(1)))


@jit()
def _lookup(f: Forest, key: int) -> int:
    """Slot of the table that holds the key, or the free one where it belongs."""
    mask = f.table.shape[0] - 1
    at = _hash(key) & mask
    while f.table[at] and f.ties[f.table[at] - 1].key != key:
        at = (at + 1) & mask
    return at


@jit()
def _insert(f: Forest, at: int, key: int, account: int, link: int, last: int) -> int:
    i = f.counts[0]
    tie = f.ties[i]
    tie.key = key
    tie.account = account
    tie.link = link
    tie.last = last
    f.table[at] = i + 1
    f.counts[0] = i + 1
    return i


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
def _meet(f: Forest, node: int, account: int) -> None:
    n = f.nodes[node]
    if n.parent == 0:
        n.parent = node + 1
        n.next = node
        n.size = 1
        n.accounts = account
        n.account = account


@jit()
def _unite(f: Forest, heirs: NDArray[np.void], progress: NDArray[np.void], a: int, b: int) -> int:
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
        _retire(heirs, progress, max(root.ring, other.ring) - 1, min(root.ring, other.ring) - 1)
        root.ring = min(root.ring, other.ring)  # the older id survives
    elif other.ring:
        root.ring = other.ring
    return a


@jit()
def _retire(heirs: NDArray[np.void], progress: NDArray[np.void], ring: int, heir: int) -> None:
    at = progress[0].retired
    heirs[at].id = ring
    heirs[at].heir = heir
    progress[0].retired = at + 1


@jit()
def _tie(f: Forest, rules: Rules, heirs: NDArray[np.void], progress: NDArray[np.void], i: int) -> None:
    account, link = f.ties[i].account, f.ties[i].link
    if link == FRAUD:
        return
    entity = f.ties[i].key & 0xFFFFFFFF
    limit = rules.limits[link]
    # One who pays very many is as little of a tie as one whom very many pay: a payroll, a landlord.
    if f.nodes[entity].users > limit or (rules.transfer[link] and f.nodes[account].fan > limit):
        return
    root = _unite(f, heirs, progress, account, entity)
    f.nodes[entity].tied += 1
    if f.nodes[entity].tied == 2:
        f.nodes[root].shared += 1


@jit()
def _pay(
    f: Forest,
    rules: Rules,
    heirs: NDArray[np.void],
    progress: NDArray[np.void],
    entities: NDArray[np.int32],
    time: int,
    unite: bool,
) -> None:
    """Take in one payment; without `unite` new ties are only counted and wait in the list."""
    account = int(entities[0])
    _meet(f, account, 1)
    for link in range(rules.links.shape[0]):
        entity = int(entities[rules.links[link]])
        if entity < 0 or entity == account:
            continue
        _meet(f, entity, 1 if rules.transfer[link] else 0)
        key = account << 32 | entity
        at = _lookup(f, key)
        if f.table[at]:
            f.ties[f.table[at] - 1].last = time
            continue
        i = _insert(f, at, key, account, link, time)
        _count(f, rules, i)
        if unite:
            _tie(f, rules, heirs, progress, i)


@jit()
def _count(f: Forest, rules: Rules, i: int) -> None:
    tie = f.ties[i]
    if tie.link == FRAUD:
        f.nodes[find(f, tie.account)].frauds += 1
        return
    f.nodes[tie.key & 0xFFFFFFFF].users += 1
    if rules.transfer[tie.link]:
        f.nodes[tie.account].fan += 1


@jit()
def _copy(live: Forest, f: Forest, rules: Rules, i: int, cutoff: int) -> None:
    tie = live.ties[i]
    if tie.last < cutoff:
        return
    at = _lookup(f, tie.key)
    if f.table[at]:  # a payment or a label since the builder began has brought it
        return
    _meet(f, tie.account, 1)
    if tie.link != FRAUD:
        _meet(f, tie.key & 0xFFFFFFFF, 1 if rules.transfer[tie.link] else 0)
    _count(f, rules, _insert(f, at, tie.key, tie.account, tie.link, tie.last))


@jit()
def _claim(
    live: Forest, f: Forest, rules: Rules, heirs: NDArray[np.void], progress: NDArray[np.void], ring: int
) -> int:
    """Hand one ring's id on; how many nodes were looked at."""
    old = live.rings[ring]
    root = find(live, old.anchor)
    if live.nodes[root].ring - 1 != old.id:
        return 1
    # Three rounds of the circle: vote, look for the winner, clear the votes.
    best, anchor, winner = 0, -1, -1
    for lap in range(3):
        node = root
        while True:
            if live.nodes[node].account and f.nodes[node].parent:
                to = find(f, node)
                if lap == 0:
                    f.nodes[to].votes += 1
                elif lap == 1:
                    votes = f.nodes[to].votes
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
            _retire(heirs, progress, old.id, new.ring - 1)
        elif new.accounts >= rules.min_accounts:
            new.ring = old.id + 1
            _found(f, old.id, old.born, anchor)
    return int(live.nodes[root].size)


@jit()
def _found(f: Forest, ring: int, born: int, anchor: int) -> None:
    at = f.counts[1]
    f.rings[at].id = ring
    f.rings[at].born = born
    f.rings[at].anchor = anchor
    f.counts[1] = at + 1


@jit()
def extend(
    columns: Columns,
    live: Forest,
    builder: Forest,
    rules: Rules,
    heirs: NDArray[np.void],
    progress: NDArray[np.void],
    first: int,
    last: int,
) -> int:
    """Take in payments in order and write their ring columns.

    The arrays must have room for L ties and one ring a payment, and for the retired ids.

    Returns:
        The row after the last one taken in: `last`, or earlier where the builder is ready to take over.
    """
    mask = columns.time.shape[0] - 1
    now = progress[0]
    for row in range(first, last):
        s = row & mask
        time = columns.time[s]
        now.clock = time
        entities = columns.entity[s]
        _pay(live, rules, heirs, progress, entities, time, True)
        root = live.nodes[find(live, int(entities[0]))]
        if root.ring == 0 and root.accounts >= rules.min_accounts:
            root.ring = row + 1
            _found(live, row, time, entities[0])
        columns.ring[s, 0] = root.accounts
        columns.ring[s, 1] = root.shared
        columns.ring[s, 2] = root.frauds
        columns.ring_id[s] = root.ring - 1

        now.age += 1
        if now.phase == REST:
            if now.age < rules.rest:
                continue
            now.phase = COPY
        _pay(builder, rules, heirs, progress, entities, time, now.phase == CLAIM)
        left = rules.stride
        while left > 0 and now.phase != READY:
            i = now.at
            if now.phase == COPY and i < live.counts[0]:
                _copy(live, builder, rules, i, time - rules.window_us)
                left -= 1
            elif now.phase == TIE and i < builder.counts[0]:
                _tie(builder, rules, heirs, progress, i)
                left -= 1
            elif now.phase == CLAIM and i < live.counts[1]:
                left -= _claim(live, builder, rules, heirs, progress, i)
            else:
                now.phase += 1
                now.at = -1
            now.at += 1
        if now.phase == READY:
            return row + 1
    return last


@jit()
def relabel(f: Forest, rules: Rules, row: int, account: int, time: int, delta: int) -> None:
    """Enter (+1) or withdraw (-1) a known fraud of an account. The forest must have room for one more tie."""
    key = ~row
    at = _lookup(f, key)
    if f.table[at] == 0:
        if delta > 0:
            _meet(f, account, 1)
            _count(f, rules, _insert(f, at, key, account, FRAUD, time))
        return
    tie = f.ties[f.table[at] - 1]
    if (tie.last != WITHDRAWN) == (delta > 0):
        return
    tie.last = time if delta > 0 else WITHDRAWN
    f.nodes[find(f, account)].frauds += delta


@jit()
def members(f: Forest, root: int) -> NDArray[np.int32]:
    """All nodes of a component, ascending, int32 [its size]."""
    out = np.empty(f.nodes[root].size, np.int32)
    node = root
    for i in range(out.shape[0]):
        out[i] = node
        node = f.nodes[node].next
    return np.sort(out)
