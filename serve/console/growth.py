"""How a ring grew: what changed from each of its versions to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from graph.rings.records import RingRecord

MOST: Final = 60  # steps that are shown
NAMES: Final = 4  # members that a step names


@dataclass(frozen=True)
class Step:
    """A change.

    Attributes:
        at: Journal time of the newest evidence by then, us.
        ring_id: Of which ring.
        confidence: By then.
        accounts: By then.
        said: What changed.
    """

    at: int
    ring_id: str
    confidence: float
    accounts: int
    said: str


def growth(versions: Sequence[RingRecord]) -> list[Step]:
    """Steps of some rings, newest first, at most `MOST`; versions that changed nothing worth a line are left out."""
    before: dict[str, RingRecord] = {}
    steps = []
    for record in versions:
        said = _said(before.get(record.id), record)
        before[record.id] = record
        if said:
            at = record.ended_at if record.ended_at is not None else record.last_seen
            steps.append(Step(at, record.id, record.confidence, len(record.accounts), said))
    steps.sort(key=lambda step: step.at)
    return steps[::-1][:MOST]


def _said(old: RingRecord | None, new: RingRecord) -> str:
    if old is None:
        after = f", from {', '.join(new.parents)}" if new.parents else ""
        return f"became a ring: {_names([f'{m.role} {m.name}' for m in new.members])}{after}"
    held, now = {(m.role, m.name) for m in old.members}, {(m.role, m.name) for m in new.members}
    parts = []
    if joined := [f"{role} {name}" for role, name in sorted(now - held)]:
        parts.append(f"joined: {_names(joined)}")
    if left := [f"{role} {name}" for role, name in sorted(held - now)]:
        parts.append(f"left: {_names(left)}")
    if (more := len(set(new.known_frauds) - set(old.known_frauds))) > 0:
        parts.append(f"{more} more payment{'s' if more > 1 else ''} reported as fraud")
    if new.state is not old.state:
        parts.append(f"is {new.state}" + (f", merged into {new.merged_into}" if new.merged_into else ""))
    if taken := [p for p in new.parents if p not in old.parents]:
        parts.append(f"took up {', '.join(taken)}")
    if not parts and abs(new.confidence - old.confidence) >= 0.1:
        parts.append(f"confidence went from {old.confidence:.2f} to {new.confidence:.2f}")
    return "; ".join(parts)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES])
    return shown if len(names) <= NAMES else f"{shown} and {len(names) - NAMES} more"
