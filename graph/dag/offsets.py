"""Journal offsets of rows, and rows of offsets."""

import numpy as np
from numpy.typing import NDArray

from graph.memory import grown


class Offsets:
    """Journal offsets of rows: runs of rows whose offsets follow each other without a gap."""

    def __init__(self) -> None:
        self.runs = np.zeros((64, 2), np.int64)  # first row, its offset - row
        self.count = 0

    def note(self, row: int, offset: int, oldest: int) -> None:
        """Row `row` has this offset, and so have those after it, in step, until the next note."""
        if self.count and self.runs[self.count - 1, 1] == offset - row:
            return
        if self.count == len(self.runs):
            first = max(0, int(np.searchsorted(self.runs[: self.count, 0], oldest, "right")) - 1)
            kept = self.runs[first : self.count]
            self.runs = grown(kept.copy(), 2 * len(kept) + 64)
            self.count = len(kept)
        self.runs[self.count] = row, offset - row
        self.count += 1

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offsets of rows in the buffer, int64 [n]."""
        runs = self.runs[: self.count]
        return rows + runs[np.searchsorted(runs[:, 0], rows, "right") - 1, 1]

    def rows(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of transactions by their offsets, int64 [n]."""
        runs = self.runs[: self.count]
        return offsets - runs[np.searchsorted(runs.sum(1), offsets, "right") - 1, 1]
