"""Risky payments enter, leave and change weight; what that does to how strongly their entities tie."""

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from graph.rings.risk.tables import FREE, QUANTUM, USED, Rules, Tables, Whole


@jit()
def quanta_of(probability: np.float32) -> int:
    """A probability in whole quanta, at least one."""
    return max(1, min(QUANTUM, int(np.floor(probability * QUANTUM + 0.5))))


@jit()
def level_of(risk: int, others: int, passes_on: bool, rules: Rules) -> int:
    """How strongly an entity ties, by how far more of its payments are risky than of all payments; 0 is not at all.

    The surprise of k risky ones among n is k ln(k / e) - (k - e), where e = `base` n are expected: the logarithm of how
    much likelier a rate of k / n makes them (Poisson). Money that an account passes on at a risk adds to it.
    """
    k, expected = risk / QUANTUM, rules.base * others
    if k < rules.share * others:
        return 0
    surprise = k * np.log(k / expected) - (k - expected)
    if passes_on:
        surprise += rules.passing
    level = 0
    for i in range(len(rules.surprises)):
        if surprise >= rules.surprises[i]:
            level = i + 1
    return level


@jit()
def judge(t: Tables, rules: Rules, node: int) -> bool:
    """Bring the level of an entity up to date; whether it changed."""
    e = t.entities[node]
    level = 0
    if e.first_other:
        level = level_of(e.risk, e.others, e.first_own > 0, rules)
    if level == e.level:
        return False
    e.level = level
    return True


@jit()
def put(t: Tables, row: int, time: int, entity: NDArray[np.int32], quanta: int, fraud: bool) -> Whole:
    """Take a risky payment in; returns its place."""
    if t.now[FREE]:
        t.now[FREE] -= 1
        place = np.int64(t.free[t.now[FREE]])
    else:
        place = t.now[USED]
        t.now[USED] += 1
    t.row[place], t.time[place], t.quanta[place], t.fraud[place] = row, time, quanta, fraud
    t.ring[place] = 0
    for r in range(len(entity)):
        t.entity[place, r] = entity[r]
        t.before[place, r] = 0
        t.after[place, r] = 0
        if entity[r] < 0:
            continue
        e = t.entities[entity[r]]
        first = e.first_own if r == 0 else e.first_other
        t.after[place, r] = first
        if first:
            t.before[first - 1, r] = place + 1
        if r == 0:
            e.first_own = place + 1
        else:
            e.first_other = place + 1
            e.risk += quanta
    slot = row % len(t.payments)
    t.payments[slot].place = place + 1
    return place


@jit()
def take(t: Tables, place: Whole) -> None:
    """Take a risky payment out."""
    for r in range(t.entity.shape[1]):
        node = t.entity[place, r]
        if node < 0:
            continue
        e = t.entities[node]
        if r:
            e.risk -= t.quanta[place]
        before, after = t.before[place, r], t.after[place, r]
        if before:
            t.after[before - 1, r] = after
        elif r:
            e.first_other = after
        else:
            e.first_own = after
        if after:
            t.before[after - 1, r] = before
    t.payments[t.row[place] % len(t.payments)].place = 0
    t.free[t.now[FREE]] = place
    t.now[FREE] += 1
    t.ring[place] = 0


@jit()
def reweigh(t: Tables, place: Whole, quanta: int, fraud: bool) -> None:
    """Change what a risky payment weighs."""
    for r in range(1, t.entity.shape[1]):
        if t.entity[place, r] >= 0:
            t.entities[t.entity[place, r]].risk += quanta - t.quanta[place]
    t.quanta[place], t.fraud[place] = quanta, fraud
