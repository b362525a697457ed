"""What an event touches: the risky payments that ties reach from some accounts, and these ties."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from graph.rings.risk.tables import Rules, Tables, Whole

Ints = NDArray[np.int64]
ACCOUNT_SEEN, OTHER_SEEN = 1, 2


class Touched(NamedTuple):
    """A part of the risk graph, whole components. n nodes, p payments, m ties."""

    node: Ints  # [n] in order of their first payment, accounts without any at the end
    is_account: NDArray[np.bool_]  # [n] pays, or is paid
    place: Ints  # [p] in order of rows
    a: Ints  # [m] account of a tie, as its place in `node`
    b: Ints  # [m] what it is tied to
    weight: Ints  # [m]
    meets: Ints  # [n] accounts that meet in an other


@jit()
def pushed(array: Ints, n: int, value: Whole) -> Ints:
    """The array, or a longer copy, with a value at `n`."""
    if n == len(array):
        longer = np.empty(2 * n, np.int64)
        longer[:n] = array
        array = longer
    array[n] = value
    return array


@jit()
def gather(t: Tables, rules: Rules, seeds: Ints, n_seeds: int) -> Touched:
    """Walk from accounts over risky payments; `seeds` may hold an account twice."""
    accounts, n = np.empty(64, np.int64), 0
    others, m = np.empty(64, np.int64), 0
    places, p = np.empty(64, np.int64), 0
    for i in range(n_seeds):
        e = t.entities[seeds[i]]
        if not e.seen & ACCOUNT_SEEN:
            e.seen |= ACCOUNT_SEEN
            accounts = pushed(accounts, n, seeds[i])
            n += 1
    distinct = n
    done = 0
    while done < n:
        account = accounts[done]
        done += 1
        e = t.entities[account]
        if e.level and not e.seen & OTHER_SEEN:
            accounts, n, others, m = _meet(t, account, rules.payee, accounts, n, others, m)
        at = e.first_own
        while at:
            place = np.int64(at - 1)
            places = pushed(places, p, place)
            p += 1
            for r in range(1, t.entity.shape[1]):
                node = np.int64(t.entity[place, r])
                if node < 0 or not t.entities[node].level:
                    continue
                if not t.entities[node].seen & OTHER_SEEN:
                    accounts, n, others, m = _meet(t, node, r, accounts, n, others, m)
                if r == rules.payee and not t.entities[node].seen & ACCOUNT_SEEN:
                    t.entities[node].seen |= ACCOUNT_SEEN
                    accounts = pushed(accounts, n, node)
                    n += 1
            at = t.after[place, 0]
    for i in range(n):
        t.entities[accounts[i]].seen = 0
    for i in range(m):
        t.entities[others[i]].seen = 0
    rows = np.empty(p, np.int64)
    for i in range(p):
        rows[i] = t.row[places[i]]
    return _ties(t, rules, accounts[:n], places[:p][np.argsort(rows)], distinct)


@jit()
def _meet(t: Tables, node: Whole, r: int, accounts: Ints, n: int, others: Ints, m: int) -> tuple[Ints, int, Ints, int]:
    """Go on to the accounts that meet in an entity."""
    t.entities[node].seen |= OTHER_SEEN
    others = pushed(others, m, node)
    at = t.entities[node].first_other
    while at:
        account = t.entity[at - 1, 0]
        if not t.entities[account].seen & ACCOUNT_SEEN:
            t.entities[account].seen |= ACCOUNT_SEEN
            accounts = pushed(accounts, n, account)
            n += 1
        at = t.after[at - 1, r]
    return accounts, n, others, m + 1


@jit()
def _ties(t: Tables, rules: Rules, accounts: Ints, place: Ints, seeds: int) -> Touched:
    """Number the nodes in order of rows, and weigh the ties between them."""
    roles = t.entity.shape[1]
    node, n = np.empty(max(1, len(place) * roles + len(accounts)), np.int64), 0
    is_account = np.zeros(len(node), np.bool_)
    key, ties = np.empty(len(place) * (roles - 1), np.int64), 0
    wide = len(node)
    for p in place:
        for r in range(roles):
            other = np.int64(t.entity[p, r])
            if other < 0 or (r and not t.entities[other].level):
                continue
            e = t.entities[other]
            if not e.local:
                node[n] = other
                n += 1
                e.local = n
            if r == 0 or r == rules.payee:
                is_account[e.local - 1] = True
            if r and other != t.entity[p, 0]:
                key[ties] = (t.entities[t.entity[p, 0]].local - 1) * wide + e.local - 1
                ties += 1
    # The seeds come first among the accounts, in the event's own order; the others have payments, and so a number.
    for i in range(seeds):
        e = t.entities[accounts[i]]
        if not e.local:
            node[n] = accounts[i]
            is_account[n] = True
            n += 1
            e.local = n
    key = np.sort(key[:ties])
    a, b, count = np.empty(ties, np.int64), np.empty(ties, np.int64), np.empty(ties, np.int64)
    m = 0
    meets = np.zeros(n, np.int64)
    for i in range(ties):
        if i and key[i] == key[i - 1]:
            count[m - 1] += 1
        else:
            a[m], b[m], count[m] = key[i] // wide, key[i] % wide, 1
            meets[b[m]] += 1
            m += 1
    for i in range(n):
        if is_account[i] and meets[i]:
            meets[i] += 1  # who is paid is one of them
    kept = 0
    weight = np.empty(m, np.int64)
    for i in range(m):
        if meets[b[i]] >= 2:
            weight[kept] = strength(t.entities[node[b[i]]].level, meets[b[i]], count[i])
            a[kept], b[kept] = a[i], b[i]
            kept += 1
    for i in range(n):
        t.entities[node[i]].local = 0
    return Touched(node[:n], is_account[:n], place, a[:kept], b[:kept], weight[:kept], meets)


@jit()
def strength(level: int, meets: int, count: int) -> int:
    """What a tie weighs: more where a larger share is risky, where few meet, and where it was used again."""
    bits = 0
    while meets:
        meets >>= 1
        bits += 1
    return max(1, 12 * level * min(count, 3) // bits)
