"""What a comparison of two runs says, beside sums made by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from serve.batch.manifest import SUCCESS
from serve.batch.partitions import SCORES, write_days
from serve.batch.summary import summarise
from serve.errors import ServeError

N = 1_000


def scores(folder: Path, probability: np.ndarray, first: int = 0) -> Path:
    """A run of payments of 10 EUR or 5 USD in turn, that are declined from .5 on."""
    n = len(probability)
    columns = {
        "transaction_id": [f"t{i}" for i in range(first, first + n)],
        "timestamp": pa.array(np.arange(n) * 1_000_000 + 1_700_000_000_000_000).cast(SCORES.field("timestamp").type),
        "amount": [1_000 if i % 2 == 0 else 500 for i in range(n)],
        "currency": ["EUR" if i % 2 == 0 else "USD" for i in range(n)],
        "fraud_probability": probability,
        "decision": ["decline" if p >= 0.5 else "approve" for p in probability.tolist()],
        "ring_id": ["K-1" if i < 200 else None for i in range(n)],
    }
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in SCORES]
    folder.mkdir()
    write_days(pa.table(arrays, schema=SCORES), folder, 0)
    (folder / SUCCESS).touch()
    return folder


def test_changes_money_and_drift_are_those_of_the_scores(tmp_path):
    before = np.linspace(0, 0.99, N)
    after = before.copy()
    after[:200] += 0.6  # the ring is seen now
    found = summarise(scores(tmp_path / "new", after), scores(tmp_path / "old", before, first=100))
    # t100 ... t999 are in both: new scores of rows 100 ... 999 beside old ones of rows 0 ... 899
    old, new = before[:900], after[100:]
    assert (found.payments, found.compared) == (N, 900)
    assert found.decisions == {"approve": int((after < 0.5).sum()), "decline": int((after >= 0.5).sum())}
    changed = (old < 0.5) & (new >= 0.5)
    euro = np.arange(100, N) % 2 == 0
    by = {(c.old, c.new, c.currency): (c.payments, c.amount) for c in found.changes}
    assert by["approve", "decline", "EUR"] == ((changed & euro).sum(), 1_000 * (changed & euro).sum())
    assert by["approve", "decline", "USD"] == ((changed & ~euro).sum(), 500 * (changed & ~euro).sum())
    cuts = np.quantile(old, np.arange(1, 10) / 10)
    was, now = (np.bincount(np.searchsorted(cuts, p), minlength=10) / 900 for p in (old, new))
    was, now = np.maximum(was, 1e-4), np.maximum(now, 1e-4)
    whole, *parts = found.drift
    assert whole.psi == pytest.approx(((now - was) * np.log(now / was)).sum(), abs=2e-3)
    assert (whole.mean_old, whole.mean_new) == pytest.approx((old.mean(), new.mean()))
    ring = next(part for part in parts if part.segment == "ring_id")
    assert (ring.value, ring.payments) == ("K-1", 100)
    assert ring.psi > whole.psi > 0.05
    assert {part.value for part in parts if part.segment == "currency"} == {"EUR", "USD"}


def test_scores_that_did_not_move_have_no_drift(tmp_path):
    same = np.linspace(0, 0.99, N)
    found = summarise(scores(tmp_path / "new", same), scores(tmp_path / "old", same))
    assert found.changes == []
    assert found.drift[0].psi == 0


def test_a_run_that_is_not_done_is_no_measure(tmp_path):
    done = scores(tmp_path / "new", np.zeros(3))
    (tmp_path / "old").mkdir()
    with pytest.raises(ServeError, match="no scores that are done"):
        summarise(done, tmp_path / "old")
