"""What the engine of risk rings keeps: counts by entity, risky payments in lists, rings, and a log of what happened.

Everything is arrays, so that one compiled pass goes over the stream. A *place* is where a risky payment is kept while
it is inside the window; an *other* is an entity in a role other than `account` (a payee is an account in such a role).
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph.memory import grown, reserve

Records = NDArray[np.void]
Whole = int | np.signedinteger[Any]

QUANTUM: Final = 255
"""Risk is counted in whole quanta of 1 / 255, so that sums are exact in any order."""

PAYMENT = np.dtype(
    [
        ("probability", "f4"),
        ("place", "i4"),  # place + 1 while it is risky and inside the window
        ("known", "i1"),  # 0 nothing, 1 legitimate, 2 fraud
        ("stopped", "i1"),  # 1 declined or reversed
        ("named", "i1"),  # 1 where a ring has its row as id
    ],
    align=True,
)
ENTITY = np.dtype(
    [
        ("others", "i4"),  # payments inside the window that have it as an other
        ("own", "i4"),  # and those that it pays itself
        ("since", "i8"),  # journal time since which it is never absent for a window, us
        ("risk", "i4"),  # quanta of the risky payments that have it as an other
        ("level", "i4"),  # how strongly it ties, 0 not at all
        ("first_other", "i4"),  # newest place that has it as an other, + 1
        ("first_own", "i4"),  # newest place that it pays, + 1
        ("ring", "i4"),  # its ring + 1
        ("past", "i4"),  # the ring + 1 that it was in before
        ("local", "i4"),  # scratch, zero outside an event
        ("seen", "i4"),
    ],
    align=True,
)
RING = np.dtype(
    [
        ("id", "i8"),  # row of the payment that made it one
        ("last", "i8"),  # journal time of its newest evidence, us
        ("told", "f8"),  # confidence as last told
        ("confidence", "f8"),
        ("accounts", "i4"),
        ("state", "i4"),  # of NOT_YET, STANDING, OVER, MERGED
        ("local", "i4"),  # scratch, zero outside an event
        ("pad", "i4"),
    ],
    align=True,
)
NOT_YET, STANDING, OVER, MERGED = range(4)

# Places in `Tables.now`.
TAIL, CLOCK, USED, FREE, RINGS, LOGGED, STANDS = range(7)

# What the log tells: kind, ring, a, b, row and journal time of the event, and one thing more.
FOUNDED, PARENT, JOINED, LEFT, TOOK, DROPPED, JUDGED, TAKEN_UP, ENDED, REVIVED, KNOWN, FRAUD = range(12)
# Why a member leaves or a payment is dropped: it grew old, a label cleared it, it is in another ring now, or the tie is
# no longer strong enough.
AGED, CLEARED, MOVED, LOOSE = range(4)
LOG_COLUMNS: Final = 7


class Rules(NamedTuple):
    """What a risk ring is. Compiled code reads it."""

    tau: np.float32  # probability from which a payment is risky
    window_us: int
    window_rows: int
    min_accounts: int
    share: float  # share of an entity's payments that are risky, at least, for it to tie
    base: float  # and share of all payments
    surprises: NDArray[np.float64]  # surprise of an entity's share from which it ties at level 1, 2, ...
    passing: float  # added to the surprise of an account that is paid, where it makes risky payments itself
    resolution: int  # of the communities, in hundredths: higher makes smaller ones
    payee: int  # column of the payee, -1 where there is none
    weights: NDArray[np.float64]  # of the confidence, one for each feature, then the constant


class Tables(NamedTuple):
    """C slots of the buffer, N nodes, P places, R roles, K rings."""

    payments: Records  # [C] PAYMENT, by slot
    entities: Records  # [N] ENTITY, by node
    row: NDArray[np.int64]  # [P] row of a risky payment
    time: NDArray[np.int64]  # [P] its journal time
    quanta: NDArray[np.int32]  # [P]
    fraud: NDArray[np.int8]  # [P] 1 known
    ring: NDArray[np.int32]  # [P] ring + 1 that it is evidence for
    entity: NDArray[np.int32]  # [P, R]
    after: NDArray[np.int32]  # [P, R] next place + 1 of the same entity in the same part
    before: NDArray[np.int32]  # [P, R] the one before
    free: NDArray[np.int32]  # [P] places that were given back
    rings: Records  # [K] RING
    log: NDArray[np.int64]  # [L, 7]
    now: NDArray[np.int64]  # see TAIL and so on


def empty_tables(capacity: int, roles: int) -> Tables:
    """Nothing seen yet, for a buffer of that many slots."""
    places = 1024
    return Tables(
        payments=reserve(capacity, PAYMENT),
        entities=np.zeros(1024, ENTITY),
        row=np.zeros(places, np.int64),
        time=np.zeros(places, np.int64),
        quanta=np.zeros(places, np.int32),
        fraud=np.zeros(places, np.int8),
        ring=np.zeros(places, np.int32),
        entity=np.zeros((places, roles), np.int32),
        after=np.zeros((places, roles), np.int32),
        before=np.zeros((places, roles), np.int32),
        free=np.zeros(places, np.int32),
        rings=np.zeros(1024, RING),
        log=np.zeros((4096, LOG_COLUMNS), np.int64),
        now=np.zeros(8, np.int64),
    )


def with_room(t: Tables, nodes: int, places: int) -> Tables:
    """The tables with room for all nodes, for so many more risky payments, and for what one event can tell."""
    need = int(t.now[USED]) + places
    wide = {name: grown(getattr(t, name), need) for name in PLACE_ARRAYS} if need > len(t.row) else {}
    rings = grown(t.rings, int(t.now[RINGS]) + room_for_rings(t, places))
    log = t.log
    if len(log) < room_in_log(t, places):
        log = np.zeros((2 * room_in_log(t, places), LOG_COLUMNS), np.int64)
        log[: t.now[LOGGED]] = t.log[: t.now[LOGGED]]
    return t._replace(entities=grown(t.entities, nodes), rings=rings, log=log, **wide)


PLACE_ARRAYS: Final = ("row", "time", "quanta", "fraud", "ring", "entity", "after", "before", "free")


def room_for_rings(t: Tables, places: int) -> int:
    """Rings that one event can found, at most: each has two payments or more."""
    return (int(t.now[USED]) - int(t.now[FREE]) + places) // 2 + 8


def room_in_log(t: Tables, places: int) -> int:
    """Entries that one event can make, at most: each node of a payment leaves, joins; each payment is told twice."""
    held = int(t.now[USED]) - int(t.now[FREE]) + places
    return 4 * held * (t.entity.shape[1] + 2) + 256
