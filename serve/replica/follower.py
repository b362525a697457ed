"""A graph that follows a journal: how far it has come, how far behind it is, and one step at a time further."""

from collections.abc import Iterator

from data.journal.protocol import Events, Journal
from graph.errors import GraphError
from graph.state import GraphState

ROWS_PER_STEP = 1 << 16  # events applied at once while catching up


class Follower:
    """Keeps a graph current with a journal, in the order of its offsets.

    A scoring replica, the process that writes snapshots, and whatever else keeps something current from the journal
    hold one. It has no thread of its own and no lock: whoever holds it decides when it moves, one thread at a time.

    Args:
        journal: What is followed.
        state: The graph; it may be as of a snapshot.

    Attributes:
        journal: What is followed.
        state: The graph.
        broken: Whether the graph failed in the middle of an event. It no longer is what the journal says, and has to be
            built anew.
    """

    def __init__(self, journal: Journal, state: GraphState) -> None:
        self.journal, self.state = journal, state
        self.broken = False

    @property
    def position(self) -> int:
        """The journal offset that is applied next."""
        return self.state.applied

    def lag(self) -> int:
        """Events of the journal that are not in the graph yet.

        Raises:
            JournalError: The journal cannot be read.
        """
        return self.journal.end - self.position

    def apply(self, events: Events) -> range:
        """Apply the next events; returns the rows of the payments among them.

        Raises:
            GraphError: They do not follow on, or the graph cannot take them.
        """
        if self.broken:
            raise GraphError("this graph failed in the middle of an event and has to be built anew")
        try:
            return self.state.apply(events)
        except Exception:
            self.broken = True
            raise

    def steps(self, stop: int | None = None, rows: int = ROWS_PER_STEP) -> Iterator[Events]:
        """Catch up with the journal; each batch is yielded as soon as it is applied.

        Args:
            stop: Offset to stop before; by default the journal's end as it is now.
            rows: Events applied at once, at most.

        Raises:
            JournalError: The journal cannot be read.
            GraphError: The graph cannot take what it holds.
        """
        stop = self.journal.end if stop is None else stop
        if stop > self.position:
            for events in self.journal.replay(self.position, stop, rows):
                self.apply(events)
                yield events
