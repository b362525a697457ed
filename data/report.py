"""How long work tells how far it has come."""

from collections.abc import Callable
from typing import Final

BESIDE: Final = " · "  # between the name of a stage and what is said beside it, which may change: a rate
Report = Callable[[str, float], None]
"""Called with the stage at hand ("reading", "training layer 1 of 2") and the share of it that is done, 0 to 1.

Work that takes more than about a second calls it at the start of each stage (with 0) and again after each batch,
epoch or block of rows, in the thread that does the work and often more than once with the same share. Stages follow one
another and do not overlap; the end of a stage is the beginning of the next, or the return of the function. What it
raises ends the work.
"""


def silent(stage: str, share: float) -> None:
    """The default `Report`: says nothing."""
