"""Waiting for a device without being kept by it: a kernel that never returns must not keep the host too."""

import time
from typing import Protocol

from graph.errors import GraphError

PATIENCE_S = 120.0  # of a job that nobody waits for; a service gives its own
SPIN_S = 2e-3  # a micro-batch takes less: asking again at once is what tells soonest
PAUSE_S = 5e-5


class Mark(Protocol):
    """A place in a stream's work."""

    @property
    def done(self) -> bool:
        """Whether it is reached; asks and returns at once."""


class HungError(GraphError):
    """A device has not done its work in time: it counts as lost."""


def wait(mark: Mark, within_s: float) -> None:
    """Wait until a place in a stream's work is reached.

    By asking again and again, never by a call that only the device could end.

    Args:
        mark: The place.
        within_s: How long at most, seconds.

    Raises:
        HungError: It is not reached in time.
    """
    begin = time.monotonic()
    while not mark.done:
        waited = time.monotonic() - begin
        if waited > within_s and not mark.done:  # asked once more: it may have been the host that was kept waiting
            raise HungError(f"the device has not answered for {within_s:g} s and counts as lost")
        if waited > SPIN_S:
            time.sleep(PAUSE_S)
