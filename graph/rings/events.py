"""What happens to rings, told as it happens: by the kernels, at the payment that causes it.

Events are a function of the journal alone. Folded over time (`folded`) they give exactly the rings and their accounts
after every payment, however the payments were grouped into calls, and go on the same after a snapshot.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from graph.rings.forest import Forest, Records, Ties, find

BORN, JOINED, LEFT, MERGED, SPLIT, ENDED = range(6)
EVENT = np.dtype(
    [
        ("kind", "i4"),
        ("node", "i4"),  # the account that joined or left, -1
        ("ring", "i8"),  # number in the ring's id
        ("other", "i8"),  # number of another ring, -1; of SPLIT: parts
        ("row", "i8"),  # the payment that caused it
        ("time", "i8"),  # its journal time, us
    ],
    align=True,
)


class RingEventKind(IntEnum):
    """What happened to a ring."""

    BORN = BORN
    """It became one; its accounts join next. Seldom, an id that had merged comes back out of `other`."""
    JOINED = JOINED
    """`account` is in it now."""
    LEFT = LEFT
    """`account` is not in it any more."""
    MERGED = MERGED
    """All its accounts are in `other` now, which is older, and its id is retired."""
    SPLIT = SPLIT
    """Old ties have gone, and its accounts lie in `parts` components. The one that holds most of them keeps the id; the
    others leave next, and become rings of their own, if they are large enough, at their next payments."""
    ENDED = ENDED
    """Nobody is in it any more: old ties have gone, and no component that is left has its accounts."""


@dataclass(frozen=True, slots=True)
class RingEvent:
    """One thing that happened to one ring.

    Attributes:
        kind: What.
        ring: The ring's id, "R-<row>".
        row: The payment that caused it.
        time: Its journal time, us.
        other: The other ring's id.
        account: The account's pseudonym (`Nodes.pseudonym`), which is always the same for one name.
        node: The account's node, good until the next events are applied: numbers are given to others later on.
        parts: Components that the ring's accounts lie in.
    """

    kind: RingEventKind
    ring: str
    row: int
    time: int
    other: str | None = None
    account: str | None = None
    node: int = field(default=-1, compare=False)
    parts: int = 0


def folded(events: Iterable[RingEvent], rings: dict[str, set[str]] | None = None) -> dict[str, set[str]]:
    """The rings after some events: the pseudonyms of their accounts, by ring id.

    Args:
        events: In order.
        rings: The rings before; brought up to date and returned. None where there were none.

    Example:
        >>> born = RingEvent(RingEventKind.BORN, "R-7", 7, 0)
        >>> joined = [RingEvent(RingEventKind.JOINED, "R-7", 7, 0, account=name) for name in ("a", "b")]
        >>> {ring: sorted(accounts) for ring, accounts in folded([born, *joined]).items()}
        {'R-7': ['a', 'b']}
    """
    rings = {} if rings is None else rings
    for event in events:
        if event.kind is RingEventKind.BORN:
            rings[event.ring] = set()
        elif event.kind is RingEventKind.JOINED and event.account is not None:
            rings[event.ring].add(event.account)
        elif event.kind is RingEventKind.LEFT and event.account is not None:
            rings[event.ring].remove(event.account)
        elif event.kind is RingEventKind.MERGED and event.other is not None:
            rings[event.other] |= rings.pop(event.ring)
        elif event.kind is RingEventKind.ENDED:
            del rings[event.ring]
    return rings


class Log(NamedTuple):
    """Where kernels write events. E is a capacity."""

    events: Records  # [E] EVENT
    at: NDArray[np.int64]  # [2] events so far, and the row of the payment that is taken in


def empty_log(events: int = 0) -> Log:
    """No events yet. Zeroed memory comes page by page on first use."""
    return Log(np.zeros(events, EVENT), np.zeros(2, np.int64))


@jit()
def tell(log: Log, time: int, kind: int, ring: int, other: int, node: int) -> None:
    """Append one event, of the payment that is taken in."""
    event = log.events[log.at[0]]
    event.kind = kind
    event.node = node
    event.ring = ring
    event.other = other
    event.row = log.at[1]
    event.time = time
    log.at[0] += 1


@jit()
def tell_joined(log: Log, f: Forest, t: Ties, root: int, ring: int) -> None:
    """All accounts of a component join a ring."""
    node = root
    for _ in range(f.nodes[root].size):
        if t.uses[node].account:
            tell(log, t.progress[0].clock, JOINED, ring, -1, node)
        node = f.nodes[node].next


@jit()
def tell_born(log: Log, f: Forest, t: Ties, root: int, ring: int) -> None:
    """A component has become a ring."""
    tell(log, t.progress[0].clock, BORN, ring, -1, -1)
    tell_joined(log, f, t, root, ring)


@jit()
def tell_union(log: Log, f: Forest, t: Ties, a: int, b: int) -> None:
    """Two components, by their roots, are about to become one; one of them at least is a ring."""
    one, two = f.nodes[a].ring - 1, f.nodes[b].ring - 1
    if one >= 0 and two >= 0:
        tell(log, t.progress[0].clock, MERGED, max(one, two), min(one, two), -1)
    elif one >= 0:
        tell_joined(log, f, t, b, one)
    else:
        tell_joined(log, f, t, a, two)


@jit()
def _root_of(f: Forest, ring: int) -> int:
    """Root of the ring's component, -1 where there is none."""
    low, high = 0, f.counts[0]
    while low < high:
        middle = (low + high) // 2
        if f.rings[middle].id < ring:
            low = middle + 1
        else:
            high = middle
    if low == f.counts[0] or f.rings[low].id != ring:
        return -1
    root = find(f, f.rings[low].anchor)
    return root if f.nodes[root].ring - 1 == ring else -1


@jit()
def _ring_of(f: Forest, node: int) -> int:
    """Number of the ring that a node is in, -1 where it is in none."""
    return f.nodes[find(f, node)].ring - 1 if f.nodes[node].parent else -1


@jit()
def _parts(old: Forest, new: Forest, t: Ties, root: int) -> int:
    """How many components of the new forest the accounts of an old one lie in."""
    parts = 0
    for lap in range(2):  # mark each, then take the marks away
        node = root
        for _ in range(old.nodes[root].size):
            if t.uses[node].account and new.nodes[node].parent:
                to = find(new, node)
                if lap == 0:
                    parts += new.nodes[to].votes == 0
                    new.nodes[to].votes = 1
                else:
                    new.nodes[to].votes = 0
            node = old.nodes[node].next
    return parts


@jit()
def tell_takeover(
    log: Log, old: Forest, new: Forest, t: Ties, retired: NDArray[np.int64], heirs: NDArray[np.int64]
) -> None:
    """What changes where a new forest takes the old one's place: one pass over the members of all rings of both.

    Args:
        log: There must be room for two events for each node and four for each ring.
        old: The live forest so far.
        new: The builder.
        t: The ties.
        retired: Ids that have retired, ascending, those of one id in order of time, int64 [Q].
        heirs: The ring that took the place of each, int64 [Q].
    """
    time = t.progress[0].clock
    for k in range(new.counts[0]):
        ring = new.rings[k].id
        if _root_of(new, ring) >= 0 and _root_of(old, ring) < 0:  # it had merged, but not by a tie that still holds
            tell(log, time, BORN, ring, _ring_of(old, new.rings[k].anchor), -1)
    for k in range(old.counts[0]):
        ring = old.rings[k].id
        root = _root_of(old, ring)
        if root < 0:
            continue
        goes_on = ring
        while goes_on >= 0 and _root_of(new, goes_on) < 0:
            at = np.searchsorted(retired, goes_on, "right") - 1
            goes_on = heirs[at] if at >= 0 and retired[at] == goes_on else -1
        if goes_on < 0:
            tell(log, time, ENDED, ring, -1, -1)
        elif goes_on != ring:
            tell(log, time, MERGED, ring, goes_on, -1)
        else:
            parts = _parts(old, new, t, root)
            if parts > 1:
                tell(log, time, SPLIT, ring, parts, -1)
        node = root
        for _ in range(old.nodes[root].size):
            if t.uses[node].account:
                now = _ring_of(new, node)
                if now != goes_on:
                    if goes_on >= 0:
                        tell(log, time, LEFT, goes_on, -1, node)
                    if now >= 0:
                        tell(log, time, JOINED, now, -1, node)
            node = old.nodes[node].next
    for k in range(new.counts[0]):  # accounts that were in no ring
        ring = new.rings[k].id
        root = _root_of(new, ring)
        if root < 0:
            continue
        node = root
        for _ in range(new.nodes[root].size):
            if t.uses[node].account and _ring_of(old, node) < 0:
                tell(log, time, JOINED, ring, -1, node)
            node = new.nodes[node].next
