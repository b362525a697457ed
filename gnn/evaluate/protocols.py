"""Which payments of a history are judged: the plain choice, and that of the Fraud Detection Handbook."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.files.datasets import handbook_split
from data.history import LabelledPayments
from gnn.errors import ModelError
from gnn.train.regimes import recognise

PROTOCOLS = ("plain", "handbook")


def check_protocol(protocol: str) -> None:
    """Refuse an unknown protocol: at once, and not after hours of training.

    Raises:
        ModelError: It is none of `PROTOCOLS`.
    """
    if protocol not in PROTOCOLS:
        raise ModelError(f"--protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")


def selection(
    known: LabelledPayments, start: datetime | None = None, stop: datetime | None = None, protocol: str = "plain"
) -> NDArray[np.bool_]:
    """Which payments of a history are judged.

    Args:
        known: All payments of the history, with their labels.
        start: Judge from here on.
        stop: Judge up to here.
        protocol: `plain`: those old enough for their labels to have come, and of these all, or, where many payments
            never get a label, the labelled ones (`gnn.train.regimes`). `handbook`: the Fraud Detection Handbook's test
            set (chapter 3), without cards that are known for fraud on the day.

    Returns:
        bool, one for each payment.

    Raises:
        ModelError: An unknown protocol, or nothing to judge.
    """
    check_protocol(protocol)
    time = times(known.payments)
    chosen = np.ones(len(time), bool)
    if start is not None:
        chosen &= time >= _microseconds(start)
    if stop is not None:
        chosen &= time < _microseconds(stop)
    if not chosen.any():
        raise ModelError("no payment to evaluate between --from and --until")
    if protocol == "handbook":
        first, last = (datetime.fromtimestamp(time[chosen][i] / 1e6, UTC).date() for i in (0, -1))
        train_start = first - timedelta(days=14)  # seven days of training and seven in which their labels arrive
        days = (last - first).days + 1
        chosen &= handbook_split(time, accounts(known.payments), known.fraud, train_start=train_start, test_days=days)[
            1
        ]
    elif known.fraud.any():
        chosen &= _mature(known, time)
        if not chosen.any():
            raise ModelError(
                "every payment to judge is too young to have a label: judge earlier ones, or with newer labels"
            )
    return chosen


def _mature(known: LabelledPayments, time: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which payments can be judged by the labels so far, bool [n]."""
    reported = known.reported_us
    if reported is None:
        some = (known.labelled & ~known.fraud).sum() > known.fraud.sum()
        return known.labelled if some else np.ones(len(time), bool)
    seen, last = known.labelled, int(time.max())
    now = max(last, int(reported.max()))
    regime = recognise(reported[seen] - time[seen], known.fraud[seen], now - time, seen)
    if not regime.missing_is_honest:
        return seen & (time <= now - regime.mature_us)
    if now - last >= regime.mature_us / 2 > 0:  # reports were collected for longer than payments, the last ones' too
        return np.ones(len(time), bool)
    return np.asarray(time <= now - regime.mature_us)


def times(payments: pa.Table) -> NDArray[np.int64]:
    """When each payment was made, UTC microseconds, int64 [n]."""
    found: NDArray[np.int64] = payments["timestamp"].cast(pa.int64()).to_numpy()
    return found


def accounts(payments: pa.Table) -> NDArray[np.integer]:
    """A number for each payment's account, [n]; equal where the account is the same."""
    numbers: NDArray[np.integer] = payments["account_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return numbers


def _microseconds(moment: datetime) -> int:
    return int(pa.scalar(moment, pa.timestamp("us", tz="UTC")).value)
