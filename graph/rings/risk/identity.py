"""Which ring each community is: a ring keeps its id through growth, merges, splits and silence.

Every ring that had accounts in what an event touched goes on as the community that most of them are in now. Where
several go on as one, the oldest lives and has taken up the others. A community that no ring goes on as is a ring that
was over and whose accounts it mostly has, else a new one; its parent is the ring that most of its accounts come from.
"""

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from graph.rings.risk.communities import louvain
from graph.rings.risk.judging import confidence_of, features_of
from graph.rings.risk.tables import (
    DROPPED,
    ENDED,
    FOUNDED,
    FRAUD,
    JOINED,
    JUDGED,
    LEFT,
    LOGGED,
    LOOSE,
    MERGED,
    MOVED,
    OVER,
    PARENT,
    REVIVED,
    RINGS,
    STANDING,
    STANDS,
    TAKEN_UP,
    TOOK,
    Rules,
    Tables,
    Whole,
)
from graph.rings.risk.touched import Touched, gather

Ints = NDArray[np.int64]


@jit()
def tell(t: Tables, kind: int, ring: Whole, a: Whole, b: Whole, row: Whole, time: Whole, more: Whole) -> None:
    """Write an entry of the log."""
    at = t.now[LOGGED]
    t.log[at, 0], t.log[at, 1], t.log[at, 2] = kind, ring, a
    t.log[at, 3], t.log[at, 4], t.log[at, 5], t.log[at, 6] = b, row, time, more
    t.now[LOGGED] = at + 1


@jit()
def settle(t: Tables, rules: Rules, seeds: Ints, n_seeds: int, why: int, row: int, time: int) -> None:
    """Find the communities of what an event touched again, and what became of the rings there.

    Args:
        t: The tables, with the event's payment already in or out.
        rules: What a ring is.
        seeds: Accounts that the event touched.
        n_seeds: How many.
        why: Reason for what leaves because of it.
        row: Of the event.
        time: Its journal time, us.
    """
    part = gather(t, rules, seeds, n_seeds)
    n = len(part.node)
    community = louvain(n, part.a, part.b, part.weight, rules.resolution)
    count = 0
    for i in range(n):
        count = max(count, community[i] + 1)
    accounts = np.zeros(count, np.int64)
    for i in range(n):
        accounts[community[i]] += part.is_account[i]
    old, ring_of = _claim(t, rules, part, community, accounts, row, time)
    _move_members(t, part, community, ring_of, why, row, time)
    _take_evidence(t, part, community, ring_of, row, time, rules.payee)
    _judge(t, rules, part, community, ring_of, accounts, row, time)
    for k in old:
        ring = t.rings[k]
        if ring.state == OVER:
            tell(t, ENDED, k, why, 0, row, time, 0)


@jit()
def _claim(
    t: Tables, rules: Rules, part: Touched, community: Ints, accounts: Ints, row: int, time: int
) -> tuple[Ints, Ints]:
    """Give each community that is large enough its ring, int64 [communities], -1 for the others; and those before."""
    n, count = len(part.node), len(accounts)
    old, olds = np.empty(n, np.int64), 0
    for i in range(n):
        k = t.entities[part.node[i]].ring - 1
        if part.is_account[i] and k >= 0 and not t.rings[k].local:
            old[olds] = k
            olds += 1
            t.rings[k].local = olds
    old = old[:olds]
    heir, most = np.full(olds, -1), np.zeros(olds, np.int64)
    key, pairs = np.empty(n, np.int64), 0
    for i in range(n):
        k = t.entities[part.node[i]].ring - 1
        if part.is_account[i] and k >= 0 and accounts[community[i]] >= rules.min_accounts:
            key[pairs] = (t.rings[k].local - 1) * count + community[i]
            pairs += 1
    key = np.sort(key[:pairs])
    parent, from_parent = np.full(count, -1), np.zeros(count, np.int64)
    i = 0
    while i < pairs:
        j = i
        while j < pairs and key[j] == key[i]:
            j += 1
        o, c = key[i] // count, key[i] % count
        if j - i > most[o]:
            most[o], heir[o] = j - i, c
        if j - i > from_parent[c] or (j - i == from_parent[c] and t.rings[old[o]].id < t.rings[parent[c]].id):
            from_parent[c], parent[c] = j - i, old[o]
        i = j
    ring_of = np.full(count, -1)
    for o in range(olds):
        c = heir[o]
        if c >= 0 and (ring_of[c] < 0 or t.rings[old[o]].id < t.rings[ring_of[c]].id):
            ring_of[c] = old[o]
    for c in range(count):
        if accounts[c] >= rules.min_accounts and ring_of[c] < 0:
            ring_of[c] = _revived(t, part, community, c, accounts[c], row, time)
            if ring_of[c] < 0:
                ring_of[c] = _found(t, part, community, c, parent[c], row, time)
    for o in range(olds):
        ring = t.rings[old[o]]
        ring.local = 0
        if heir[o] < 0:
            ring.state, ring.accounts = OVER, 0
            t.now[STANDS] -= 1
        elif ring_of[heir[o]] != old[o]:
            ring.state, ring.accounts = MERGED, 0
            t.now[STANDS] -= 1
            tell(t, TAKEN_UP, old[o], ring_of[heir[o]], 0, row, time, 0)
    return old, ring_of


@jit()
def _revived(t: Tables, part: Touched, community: Ints, c: int, accounts: int, row: int, time: int) -> Whole:
    """The ring that was over and had at least half of a community's accounts, or -1."""
    best, votes = np.int64(-1), 0
    for i in range(len(part.node)):
        if community[i] != c or not part.is_account[i]:
            continue
        k = np.int64(t.entities[part.node[i]].past - 1)
        if k < 0 or t.entities[part.node[i]].ring or t.rings[k].state != OVER:
            continue
        t.rings[k].local += 1
        n = t.rings[k].local
        if n > votes or (n == votes and t.rings[k].id < t.rings[best].id):
            best, votes = k, n
    for i in range(len(part.node)):
        k = np.int64(t.entities[part.node[i]].past - 1)
        if community[i] == c and part.is_account[i] and k >= 0 and t.rings[k].state == OVER:
            t.rings[k].local = 0
    if best < 0 or 2 * votes < accounts:
        return -1
    t.rings[best].state = STANDING
    t.now[STANDS] += 1
    tell(t, REVIVED, best, 0, 0, row, time, 0)
    return best


@jit()
def _found(t: Tables, part: Touched, community: Ints, c: int, parent: int, row: int, time: int) -> Whole:
    """A new ring, named after the newest payment of the community's accounts that has named none; -1 without one."""
    place = np.int64(-1)
    size = 0
    for i in range(len(part.node)):
        t.entities[part.node[i]].local = i + 1
    for j in range(len(part.place) - 1, -1, -1):
        p = part.place[j]
        if not t.payments[t.row[p] % len(t.payments)].named and community[t.entities[t.entity[p, 0]].local - 1] == c:
            place = p
            break
    for i in range(len(part.node)):
        t.entities[part.node[i]].local = 0
        size += community[i] == c
    if place < 0:
        return -1
    t.payments[t.row[place] % len(t.payments)].named = 1
    k = t.now[RINGS]
    t.now[RINGS] += 1
    t.now[STANDS] += 1
    ring = t.rings[k]
    ring.id, ring.state, ring.last, ring.told, ring.confidence = t.row[place], STANDING, 0, -1.0, 0.0
    tell(t, FOUNDED, k, t.row[place], 0, row, time, 0)
    if parent >= 0:
        tell(t, PARENT, k, parent, 0, row, time, 0)
    return k


@jit()
def _move_members(t: Tables, part: Touched, community: Ints, ring_of: Ints, why: int, row: int, time: int) -> None:
    """Write the ring of each node, and tell who joined and who left."""
    for i in range(len(part.node)):
        k = ring_of[community[i]]
        if not part.is_account[i] and part.meets[i] < 2:
            k = -1
        place_member(t, part.node[i], k, part.is_account[i], why, row, time)


@jit()
def place_member(t: Tables, node: int, k: int, is_account: bool, why: int, row: int, time: int) -> None:
    """Have a node be of ring `k`, -1 for none, and tell it where that is new."""
    e = t.entities[node]
    if e.ring == k + 1:
        return
    if e.ring:
        tell(t, LEFT, e.ring - 1, node, MOVED if k >= 0 else why, row, time, 0)
        if is_account:
            e.past = e.ring
    e.ring = k + 1
    if k >= 0:
        tell(t, JOINED, k, node, is_account + 2 * np.int64(e.own), row, time, e.since)
        at = e.first_own
        while at:
            if t.fraud[at - 1]:
                tell(t, FRAUD, k, t.row[at - 1], 0, row, time, 0)
            at = t.after[at - 1, 0]


@jit()
def _take_evidence(t: Tables, part: Touched, community: Ints, ring_of: Ints, row: int, time: int, payee: int) -> None:
    """A payment is evidence for the ring of its account if something of that ring ties it."""
    for place in part.place:
        k = t.entities[t.entity[place, 0]].ring
        ties = False
        if k:
            for r in range(1, t.entity.shape[1]):
                node = t.entity[place, r]
                if node >= 0 and node != t.entity[place, 0] and t.entities[node].ring == k and t.entities[node].level:
                    ties = True
        found = k if ties else np.int32(0)
        if found == t.ring[place]:
            continue
        if t.ring[place]:
            tell(t, DROPPED, t.ring[place] - 1, t.row[place], MOVED if found else LOOSE, row, time, 0)
        t.ring[place] = found
        if found:
            tell(t, TOOK, found - 1, t.row[place], t.payments[t.row[place] % len(t.payments)].stopped, row, time, 0)


@jit()
def _judge(
    t: Tables, rules: Rules, part: Touched, community: Ints, ring_of: Ints, accounts: Ints, row: int, time: int
) -> None:
    """Bring the confidence of each ring up to date."""
    for c in range(len(ring_of)):
        if ring_of[c] >= 0:
            t.rings[ring_of[c]].local = c + 1
    x = features_of(t, part, community, len(ring_of), ring_of, time)
    for place in part.place:
        if t.ring[place]:
            ring = t.rings[t.ring[place] - 1]
            ring.last = max(ring.last, t.time[place])
    for c in range(len(ring_of)):
        if ring_of[c] < 0:
            continue
        ring = t.rings[ring_of[c]]
        ring.local = 0
        ring.accounts = accounts[c]
        ring.confidence = confidence_of(rules, x[c])
        if ring.confidence != ring.told:
            ring.told = ring.confidence
            millionths = np.int64(np.floor(ring.confidence * 1e6 + 0.5))
            tell(t, JUDGED, ring_of[c], millionths, accounts[c], row, time, 0)
