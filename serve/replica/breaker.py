"""A circuit breaker: a device that fails is left alone for a while, then tried once."""

import time
from collections.abc import Callable


class Breaker:
    """Closed: calls go through. Open: none does. Half open, after a pause: they do, and the first to report decides.

    Args:
        failures: In a row that open it.
        pause_s: Before it is half open; doubled on each failed trial, up to a minute.
        clock: Monotone seconds.
    """

    def __init__(self, failures: int = 1, pause_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed, self._pause, self._clock = failures, pause_s, clock
        self._first_pause = pause_s
        self._failed = 0
        self._until = 0.0

    @property
    def state(self) -> str:
        """closed, open or half-open."""
        if self._failed < self._allowed:
            return "closed"
        return "open" if self._clock() < self._until else "half-open"

    def allows(self) -> bool:
        """Whether the next call may go through."""
        return self.state != "open"

    def succeeded(self) -> None:
        """Note a success: closed again."""
        self._failed, self._pause = 0, self._first_pause

    def failed(self) -> None:
        """Note a failure."""
        self._failed += 1
        if self._failed >= self._allowed:
            self._until = self._clock() + self._pause
            self._pause = min(60.0, 2 * self._pause)
