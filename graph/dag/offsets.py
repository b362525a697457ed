"""Journal offsets of rows, and rows of offsets."""

import numpy as np
from numpy.typing import NDArray

from graph.memory import grown


class Offsets:
    """Journal offsets of rows: runs of rows whose offsets follow each other without a gap."""

    def __init__(self) -> None:
        self.runs = np.zeros((64, 2), np.int64)  # for each run: its first row, and that row's offset less its number
        self.count = 0

    def note(self, row: int, offset: int, oldest: int) -> None:
        """Note that row `row` has this offset; offsets of later rows follow on from it until the next note.

        Args:
            row: Row number.
            offset: Its offset in the journal.
            oldest: The oldest row still in the buffer: runs that end before it may be dropped.
        """
        if self.count and self.runs[self.count - 1, 1] == offset - row:
            return
        if self.count == len(self.runs):
            first = max(0, int(np.searchsorted(self.runs[: self.count, 0], oldest, "right")) - 1)
            in_buffer = self.runs[first : self.count]
            self.runs = grown(in_buffer.copy(), 2 * len(in_buffer) + 64)
            self.count = len(in_buffer)
        self.runs[self.count] = row, offset - row
        self.count += 1

    def frozen(self) -> "Offsets":
        """The same as of now, for readers on other threads: runs noted later do not show in it."""
        found = Offsets()
        found.runs, found.count = self.runs[: self.count], self.count
        return found

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offsets of rows in the buffer, int64 [n]."""
        runs = self.runs[: self.count]
        return rows + runs[np.searchsorted(runs[:, 0], rows, "right") - 1, 1]

    def rows(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of transactions by their offsets, int64 [n]."""
        runs = self.runs[: self.count]
        return offsets - runs[np.searchsorted(runs.sum(1), offsets, "right") - 1, 1]
