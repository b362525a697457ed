"""A replica's log: a file of its own, line by line, that neither a fault nor the years can fill a disk with."""

import logging
import logging.handlers
import time
from collections.abc import Callable
from pathlib import Path

LOG_BYTES, LOGS_KEPT = 16 << 20, 3
AGAIN_S = 5.0
NAMES = ("ringwatch", "uvicorn.error")


class Seldom(logging.Filter):
    """Lets a warning or an error through at most every few seconds, and says how often it was left out.

    A full disk would say so with every micro-batch.

    Args:
        again_s: Seconds. Messages are told apart by their text before it is filled in.
        clock: Monotone seconds.
    """

    def __init__(self, again_s: float = AGAIN_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._again_s, self._clock = again_s, clock
        self._last: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a record."""
        if record.levelno < logging.WARNING:
            return True
        now, text = self._clock(), str(record.msg)
        last, left_out = self._last.get(text, (float("-inf"), 0))
        if now - last < self._again_s:
            self._last[text] = (last, left_out + 1)
            return False
        self._last[text] = (now, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out} times since this was last said)", None
        return True


def log_to(path: Path) -> None:
    """Write the log of this process to a file from now on."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOGS_KEPT, encoding="utf-8")
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(Seldom())
    for name in NAMES:
        logging.getLogger(name).addHandler(handler)
    logging.getLogger(NAMES[0]).setLevel(logging.INFO)
