"""How long a caller waits, and what it wants where that is not enough."""

import time
from dataclasses import dataclass

from serve.problems import Problem

DEADLINE = "x-ringwatch-deadline-ms"
LONGEST_MS = 3_600_000


@dataclass(frozen=True)
class Budget:
    """What one call may take.

    Attributes:
        until: When its answer must be ready, on `time.monotonic`.
        strict: Whether a refusal is wanted, and not an answer by rules, where the model's cannot be had in time
            (`Prefer: handling=strict`, RFC 7240).
    """

    until: float
    strict: bool

    @property
    def left_s(self) -> float:
        """Seconds left; negative when it is used up."""
        return self.until - time.monotonic()

    @classmethod
    def of(cls, deadline: str | None, prefer: str | None, default_ms: float) -> "Budget":
        """From a request's headers; its time begins now.

        Args:
            deadline: The header `DEADLINE`, if it was sent.
            prefer: The header `Prefer`, if it was sent.
            default_ms: Milliseconds for a call that does not say.

        Raises:
            Problem: 422 where the deadline is no number of milliseconds.
        """
        now = time.monotonic()
        given = default_ms if deadline is None else _milliseconds(deadline)
        return cls(now + given * 1e-3, prefer is not None and _is_strict(prefer))


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
        if not 0 < value <= LONGEST_MS:
            raise ValueError
    except ValueError:
        reason = f"is no number of milliseconds from 0 to {LONGEST_MS:,}"
        raise Problem(422, "Invalid content", f"{DEADLINE}: {reason}", [(DEADLINE, reason)]) from None
    return value


def _is_strict(prefer: str) -> bool:
    """Whether a `Prefer` header asks for strict handling; the first of several says (RFC 7240, section 2)."""
    for preference in prefer.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "handling":
            return value.strip().strip('"').lower() == "strict"
    return False
