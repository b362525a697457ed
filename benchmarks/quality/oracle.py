"""What nobody could better on the Handbook's test weeks: a bound from its generator's truth.

Its generator (chapter 3 of the book) makes frauds in three ways: amounts above 220; all payments of a terminal for 28
days; a third of a card's payments for 14 days, their amounts five times as large. The oracle is told every fraud of the
first and third kind, and those of the second whose terminal has had a fraud that is known by then. The others have the
amounts and the cards of honest payments, and their terminal is one like any other but for one thing: it must have been
taken over after its last payment that is known to be honest, so the oracle guesses by how long ago that was.
"""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.quality.contest import Contest, measures
from benchmarks.quality.histories import RAW

LIMIT = "limit: an oracle of the generator"
TERMINAL = 2  # the way of a terminal's frauds
LASTS_US, DELAY_US = (int(timedelta(days=days) / timedelta(microseconds=1)) for days in (28, 7))
DRAWS = 20


def scores(
    time: NDArray[np.int64], terminal: NDArray[np.int64], kind: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """What the oracle makes of some payments.

    Args:
        time: Of all payments, us, non-decreasing, int64 [N].
        terminal: Where each was made, int64 [N], not negative.
        kind: In which way it is a fraud, 0 for none, int64 [N].
        rows: Payments asked about, int64 [n].

    Returns:
        Those that it is told to be frauds, bool [n], and for how long the terminal of each may have been taken over,
        as a share of the longest, [n].
    """
    begin = int(time[0]) - LASTS_US - DELAY_US - 1  # before it nothing was asked
    span = int(time[-1]) - begin + 1

    def last_known(of: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest of some payments at each one's terminal whose label is known by then; 0 stands for none."""
        keys = np.sort(terminal[of] * span + time[of] - begin)
        at = np.searchsorted(keys, terminal[rows] * span + time[rows] - begin - DELAY_US, "right") - 1
        found = keys[np.maximum(at, 0)]
        return np.where((at >= 0) & (found // span == terminal[rows]), found % span, 0)

    now = time[rows] - begin
    given_away = now - last_known(np.flatnonzero(kind == TERMINAL)) <= LASTS_US
    told = (kind[rows] > 0) & ((kind[rows] != TERMINAL) | given_away)
    return told, np.minimum(now - last_known(np.flatnonzero(kind != TERMINAL)), LASTS_US) / LASTS_US


def limit(contest: Contest) -> dict[str, list[float]]:
    """The oracle's metrics: means over draws that decide between equal scores."""
    raw = pq.read_table(RAW, columns=["TX_DATETIME", "TERMINAL_ID", "TX_FRAUD_SCENARIO"]).sort_by("TX_DATETIME")
    time = raw["TX_DATETIME"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    terminal, kind = (raw[name].cast(pa.int64()).to_numpy() for name in ("TERMINAL_ID", "TX_FRAUD_SCENARIO"))
    told, share = scores(time, terminal, kind, contest.rows)
    rng = np.random.default_rng(0)
    found = [measures(contest, told + share / 2 + 1e-6 * rng.random(len(told))) for _ in range(DRAWS)]
    return {name: [float(np.mean([values[name] for values in found]))] for name in found[0]}
