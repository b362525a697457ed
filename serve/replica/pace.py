"""How long a micro-batch takes, learnt from those before it: what tells whether a call can be answered in time."""

FORGET = 0.95  # weight of all that was seen before, at each new batch
BEYOND, SMALLEST = 4, 16  # a batch may have so many times the rows of those seen, or so many in any case
OUTLIER = 4.0  # a batch counts for at most so many times what was expected: one stall is not the pace


class Pace:
    """Seconds of a batch of `n` rows as `a + b n`, by least squares in which older batches count ever less.

    A batch costs something by itself (a commit to disk, mostly) and something for each row, so that the time of one
    payment says little of that of sixty-four together.

    Example:
        >>> pace = Pace()
        >>> for rows, seconds in ((1, 0.0012), (11, 0.0022), (1, 0.0012), (21, 0.0032)):
        ...     pace.note(rows, seconds)
        >>> round(1e3 * pace.seconds(100), 1)
        11.1
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = self._squares = self._products = 0.0

    def note(self, rows: int, seconds: float) -> None:
        """Learn from a batch."""
        if self._weight > 1:
            seconds = min(seconds, OUTLIER * self.seconds(rows) + 1e-3)
        self._weight = FORGET * self._weight + 1
        self._rows = FORGET * self._rows + rows
        self._seconds = FORGET * self._seconds + seconds
        self._squares = FORGET * self._squares + rows * rows
        self._products = FORGET * self._products + rows * seconds

    def seconds(self, rows: int) -> float:
        """What a batch of so many rows is expected to take; 0 before anything is known."""
        if not self._weight or rows <= 0:
            return 0.0
        base, each = self._line()
        return base + each * rows

    def rows(self, seconds: float) -> int:
        """Rows of a batch that is expected to take so long, at least 1; never far beyond what has been seen."""
        if not self._weight:
            return SMALLEST
        base, each = self._line()
        seen = self._rows / self._weight
        return max(1, int(min((seconds - base) / max(each, 1e-7), BEYOND * max(seen, SMALLEST))))

    def _line(self) -> tuple[float, float]:
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        spread = self._squares / self._weight - mean_rows * mean_rows
        each = mean_seconds / mean_rows  # batches of one size: all of it may be the rows'
        if spread > 0.01 * mean_rows * mean_rows:
            fitted = (self._products / self._weight - mean_rows * mean_seconds) / spread
            each = min(max(fitted, 0.0), each)
        return mean_seconds - each * mean_rows, each
