"""The numbers and texts of payments that conditions compare, as columns: one gather instead of a loop over rules."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve.decide.decision import Situation
from serve.decide.policies.fields import COLUMNS

Numbers = NDArray[np.float64]  # [n]; NaN where it is unknown
RING_STATE: Final = "ring.state"


def numbers(name: str, situation: Situation, zone: ZoneInfo) -> Numbers:
    """A column of numbers, float64 [n]; a flag is 1 or 0; NaN where it is unknown.

    Args:
        name: A number of the payment by its field's name, or a feature of the graph.
        situation: The payments.
        zone: In which hours and days are told.
    """
    if name in _OWN:
        return _OWN[name](situation)
    if name in ("hour", "weekday"):
        return _clock(situation, zone, name)
    if name.endswith(".given"):
        column = situation.payments.column(COLUMNS[name.removesuffix(".given")])
        return column.is_valid().to_numpy(zero_copy_only=False).astype(np.float64)
    return np.full(len(situation.offsets), np.nan)


def texts(name: str, situation: Situation) -> list[str | None]:
    """A column of texts, [n]; None where it is unknown."""
    if name == RING_STATE:
        return [None if ring is None else str(ring.state) for ring in situation.rings]
    found: list[str | None] = situation.payments.column(name).to_pylist()
    return found


def amounts(situation: Situation) -> Numbers:
    """Amounts in minor units, float64 [n]."""
    found: Numbers = situation.payments.column("amount").to_numpy().astype(np.float64)
    return found


def _of_rings(read: Callable[[Any], float], without: float) -> Callable[[Situation], Numbers]:
    def column(situation: Situation) -> Numbers:
        return np.array([without if ring is None else read(ring) for ring in situation.rings], np.float64)

    return column


def _within_mandate(situation: Situation) -> Numbers:
    return np.array([np.nan if one is None else float(one.within) for one in situation.mandates], np.float64)


def _clock(situation: Situation, zone: ZoneInfo, what: str) -> Numbers:
    micros: Sequence[int] = situation.payments.column("timestamp").cast(pa.int64()).to_pylist()
    moments = [datetime.fromtimestamp(us // 1_000_000, zone) for us in micros]
    return np.array([m.hour if what == "hour" else m.weekday() for m in moments], np.float64)


_OWN: Final[dict[str, Callable[[Situation], Numbers]]] = {
    "probability": lambda situation: situation.probability,
    "amount": amounts,
    "loss": lambda situation: situation.probability * amounts(situation),
    "ring": _of_rings(lambda _: 1.0, 0.0),
    "ring.confidence": _of_rings(lambda ring: ring.confidence, np.nan),
    "ring.size": _of_rings(lambda ring: ring.size, np.nan),
    "mandate.within": _within_mandate,
}
