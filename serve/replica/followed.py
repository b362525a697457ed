"""What came into the journal, for decisions: taken in, and where every payment counts, decided once it is scored."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.journal.protocol import Events, Kind
from serve.decide.decider import Decider
from serve.replica.slot import ModelSlot


class Followed:
    """Keeps a decider current with the journal.

    A policy that limits reviews gives their places in the order of the journal. So it has to know of payments that
    other replicas answered, too, and of those before a restart. All are decided here in that order, and the answer is
    left aside; whoever answers one of them asks again. Without such a policy nothing is decided here.

    Args:
        decider: What is kept current.
        counts: Whether to decide and count the payments of every policy, as one does that answers nobody.
    """

    def __init__(self, decider: Decider, *, counts: bool = False) -> None:
        self._decider, self._counts = decider, counts
        self._undecided: list[Events] = []

    def note(self, events: Events) -> None:
        """Take in the next events; their payments have not been scored yet."""
        self._decider.apply(events)
        policies = self._decider.policies
        if events.kind is Kind.TRANSACTION and (policies.roster.current if self._counts else policies.needs_all):
            self._undecided.append(events)

    def decide(self, slot: ModelSlot) -> None:
        """Decide the payments taken in since, now that they are scored; nothing where no policy asks for it."""
        undecided, self._undecided = self._undecided, []
        store = slot.state.store
        for events in undecided:
            offsets = np.arange(events.offset, events.offset + len(events.batch))
            rows = store.offsets.rows(offsets)
            held = rows >= store.oldest
            probability = spread(slot.probabilities(rows[held]), held, 0.0)
            situation = self._decider.situation(events.batch, offsets, probability, partial(slot.features, rows, held))
            if self._counts:
                self._decider.policies.decide(situation)
            else:
                self._decider.policies.follow(situation)


def spread(values: NDArray[Any], held: NDArray[np.bool_], missing: float) -> NDArray[Any]:
    """Values of those that are held, with `missing` in the places of the others."""
    out = np.full(len(held), missing, values.dtype)
    out[held] = values
    return out
