"""One pass over the stream: counts in and out of the window, and what of it touches the risk graph."""

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from graph.rings.risk.identity import place_member, settle, tell
from graph.rings.risk.lists import judge, put, quanta_of, reweigh, take
from graph.rings.risk.tables import (
    AGED,
    CLEARED,
    CLOCK,
    DROPPED,
    FREE,
    KNOWN,
    LOGGED,
    LOOSE,
    QUANTUM,
    RINGS,
    TAIL,
    USED,
    Rules,
    Tables,
    Whole,
)
from graph.rings.risk.touched import pushed

Ints = NDArray[np.int64]


@jit()
def has_room(t: Tables) -> bool:
    """Whether the next event fits, whatever it does; see `tables.with_room`."""
    held = t.now[USED] - t.now[FREE] + 2
    log = 4 * held * (t.entity.shape[1] + 2) + 256
    return (
        t.now[LOGGED] + log <= len(t.log) and t.now[RINGS] + held // 2 + 8 <= len(t.rings) and t.now[USED] < len(t.row)
    )


@jit()
def take_in(
    t: Tables,
    rules: Rules,
    first: int,
    time: Ints,
    entity: NDArray[np.int32],
    probability: NDArray[np.float32],
    cut: Ints,
    leaving: NDArray[np.int32],
    tail: int,
    listed: float,
    before: Ints,
) -> int:
    """Take in rows from `first` on; returns how many, fewer than given where something is to be told or room is needed.

    Args:
        t: The tables.
        rules: What a ring is.
        first: First row.
        time: Journal times, us, int64 [n].
        entity: Nodes, int32 [n, R].
        probability: As scored, float32 [n].
        cut: First row inside the window of each, int64 [n], ascending.
        leaving: Nodes of the rows from `tail` on, up to the last cut, int32 [l, R].
        tail: See there.
        listed: Confidence from which a ring is named.
        before: Out: row that names the ring which stood over each payment before it came, or -1, int64 [n].
    """
    for i in range(len(time)):
        while t.now[TAIL] < cut[i]:
            if not has_room(t):
                return i
            leave(t, rules, t.now[TAIL], leaving[t.now[TAIL] - tail], first + i, time[i])
            if t.now[LOGGED]:
                return i
        if not has_room(t):
            return i
        before[i] = standing_over(t, entity[i], listed)
        arrive(t, rules, first + i, time[i], entity[i], probability[i])
        if t.now[LOGGED]:
            return i + 1
    return len(time)


@jit()
def standing_over(t: Tables, entity: NDArray[np.int32], listed: float) -> Whole:
    """Row that names the oldest named ring of a payment's entities, or -1."""
    found = np.int64(-1)
    for r in range(len(entity)):
        if entity[r] < 0:
            continue
        e = t.entities[entity[r]]
        if e.ring and t.rings[e.ring - 1].confidence >= listed:
            ring = t.rings[e.ring - 1].id
            if found < 0 or ring < found:
                found = ring
    return found


@jit()
def arrive(t: Tables, rules: Rules, row: int, time: int, entity: NDArray[np.int32], probability: np.float32) -> None:
    """A payment comes."""
    t.now[CLOCK] = max(t.now[CLOCK], time)
    payment = t.payments[row % len(t.payments)]
    payment.probability, payment.place = probability, 0
    payment.known, payment.stopped, payment.named = 0, 0, 0
    touched = False
    for r in range(len(entity)):
        if entity[r] < 0:
            continue
        e = t.entities[entity[r]]
        if e.own == 0 and e.others == 0:
            e.since = time
            e.past = 0
        if r == 0:
            e.own += 1
        else:
            e.others += 1
            touched |= e.first_other > 0
    risky = probability >= rules.tau
    if risky:
        put(t, row, time, entity, quanta_of(probability), False)
    if risky or touched:
        weigh_again(t, rules, entity, risky, LOOSE, row, time)


@jit()
def leave(t: Tables, rules: Rules, row: int, entity: NDArray[np.int32], event: int, time: int) -> None:
    """A payment grows older than the window."""
    t.now[TAIL] = row + 1
    touched = False
    for r in range(len(entity)):
        if entity[r] < 0:
            continue
        e = t.entities[entity[r]]
        if r == 0:
            e.own -= 1
        else:
            e.others -= 1
            touched |= e.first_other > 0
    place = t.payments[row % len(t.payments)].place - 1
    if place >= 0:
        drop(t, place, AGED, event, time)
    if place >= 0 or touched:
        weigh_again(t, rules, entity, place >= 0, AGED, event, time)


@jit()
def drop(t: Tables, place: Whole, why: int, event: int, time: int) -> None:
    """Take a risky payment out, and tell it of the ring that it was evidence for."""
    if t.ring[place]:
        tell(t, DROPPED, t.ring[place] - 1, t.row[place], why, event, time, 0)
    take(t, place)


@jit()
def weigh_again(
    t: Tables, rules: Rules, entity: NDArray[np.int32], changed: bool | np.bool_, why: int, event: int, time: int
) -> None:
    """Bring the levels of a payment's entities up to date, then what they tie; nothing where all stays as it was.

    Args:
        t: The tables.
        rules: What a ring is.
        entity: Nodes of the payment.
        changed: Whether it came, went or weighs something else as a risky payment.
        why: Reason for what leaves.
        event: Row of the event.
        time: Its time.
    """
    seeds, n, again = np.empty(64, np.int64), 0, False
    if changed and entity[0] >= 0:
        seeds = pushed(seeds, n, entity[0])
        n += 1
        again = t.entities[entity[0]].ring > 0
    # The payer first, as an account that is paid: whether it passes money on may have changed.
    for k in range(len(entity)):
        r = k
        if k == 0:
            if rules.payee < 0 or not changed:
                continue
            r = rules.payee
        node = entity[k]
        if node < 0:
            continue
        e = t.entities[node]
        was = e.level
        flipped = judge(t, rules, node)
        if not (flipped or (k and changed and (was or e.level))):
            continue
        again = True
        if r == rules.payee:
            seeds = pushed(seeds, n, node)
            n += 1
        at = e.first_other
        while at:
            seeds = pushed(seeds, n, t.entity[at - 1, 0])
            n += 1
            at = t.after[at - 1, r]
        if not e.level and e.ring and r != rules.payee:
            place_member(t, node, -1, False, why, event, time)
    if again:
        settle(t, rules, seeds, n, why, event, time)


@jit()
def learn(
    t: Tables,
    rules: Rules,
    rows: Ints,
    known: NDArray[np.int8],
    time: Ints,
    row_time: Ints,
    entity: NDArray[np.int32],
    cut: Ints,
    leaving: NDArray[np.int32],
    tail: int,
    event: int,
    start: int,
) -> int:
    """Take in what is now known of payments, from label `start` on; returns how many are done, up to one that tells.

    Args:
        t: The tables.
        rules: What a ring is.
        rows: Labelled rows, -1 for a payment that the buffer does not hold, int64 [n].
        known: 0 nothing, 1 legitimate, 2 fraud, int8 [n].
        time: Journal times at which it is known, us, ascending, int64 [n].
        row_time: Journal times of the payments, us, int64 [n].
        entity: Nodes of the payments, int32 [n, R].
        cut: First row inside the window, int64 [n], ascending.
        leaving: Nodes of the rows from `tail` on, up to the last cut.
        tail: See there.
        event: Row that comes next.
        start: First label to take in.
    """
    for i in range(start, len(rows)):
        while t.now[TAIL] < cut[i]:
            if not has_room(t):
                return i
            leave(t, rules, t.now[TAIL], leaving[t.now[TAIL] - tail], event, time[i])
            if t.now[LOGGED]:
                return i
        if not has_room(t):
            return i
        t.now[CLOCK] = max(t.now[CLOCK], time[i])
        row = rows[i]
        if row < 0:
            continue
        payment = t.payments[row % len(t.payments)]
        if payment.known == known[i]:
            continue
        payment.known = known[i]
        ring = t.entities[entity[i, 0]].ring - 1 if entity[i, 0] >= 0 else np.int32(-1)
        tell(t, KNOWN, ring, row, known[i], event, time[i], 0)
        if row >= t.now[TAIL]:
            believe(t, rules, row, row_time[i], entity[i], event, time[i])
        return i + 1
    return len(rows)


@jit()
def believe(t: Tables, rules: Rules, row: int, row_time: int, entity: NDArray[np.int32], event: int, time: int) -> None:
    """A payment inside the window is believed to be something else now."""
    payment = t.payments[row % len(t.payments)]
    fraud = payment.known == 2
    risky = fraud or (payment.known == 0 and payment.probability >= rules.tau)
    quanta = QUANTUM if fraud else quanta_of(payment.probability)
    place = np.int64(payment.place - 1)
    if place >= 0 and not risky:
        drop(t, place, CLEARED, event, time)
    elif place >= 0:
        reweigh(t, place, quanta, fraud)
    elif risky:
        put(t, row, row_time, entity, quanta, fraud)
    else:
        return
    weigh_again(t, rules, entity, True, CLEARED, event, time)
