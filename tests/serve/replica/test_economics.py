"""Costs, fees and rails in replicas: learnt from outcomes in the journal, and alike after any restart."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from data.journal.protocol import SCHEMAS, Kind
from data.report import silent
from gnn.model.artifact import Artifact, untrained
from serve.decide.rails import DOWN, STEP
from serve.replica.admission import OutcomeCall, ScoreCall
from serve.replica.replica import Replica
from serve.replica.snapshots import bring_up_to_date
from tests.serve.replica.test_policies import activated, opened
from tests.world import payment_batch

PAYMENTS = payment_batch(3 * STEP, seed=5, accounts=20, devices=10)
MONEY = (
    "policy: money\notherwise:\n  probability: {challenge: 5%, review: 20%, decline: 60%}\n"
    "costs:\npricing:\nrouting:\n  mode: learn\n  explore: 20%\n"
    "  rails: [{name: wallet, success: 99%}, {name: bank, success: 90%}]\n"
)
Said = list[tuple[object, ...]]


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 10)


def said(replica: Replica, first: int, last: int) -> Said:
    (table,) = replica.process([ScoreCall(PAYMENTS.slice(first, last - first), reasons=False, table=True)])
    names = ("action", "expected_loss", "fee_bps", "route", "route_propensity")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def report(replica: Replica, first: int, outcome: str, by: str) -> None:
    ids = PAYMENTS["transaction_id"].slice(first, DOWN).to_pylist()
    at = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [{"transaction_id": i, "outcome": outcome, "at": at, "outcome_id": f"{outcome} {i}", "by": by} for i in ids]
    (done,) = replica.process([OutcomeCall(pa.RecordBatch.from_pylist(rows, SCHEMAS[Kind.OUTCOME]))])
    assert isinstance(done, dict), done


def taken(answers: Said) -> set[tuple[object, object]]:
    return {(one[3], one[4]) for one in answers if one[3] is not None}


def test_rails_are_learnt_from_outcomes_and_a_restart_a_snapshot_and_a_repeat_give_the_same(
    artifact: Artifact, tmp_path: Path
) -> None:
    replica = opened(artifact, tmp_path)
    activated(replica, MONEY)
    first = said(replica, 0, STEP)
    assert taken(first) == {("wallet", 0.9), ("bank", 0.1)}
    assert all(loss is not None and (fee is None) == (action == "decline") for action, loss, fee, *_ in first)
    report(replica, 0, "declined", "wallet")
    second = said(replica, STEP, 3 * STEP)
    assert taken(second[STEP:]) == {("wallet", 0.1), ("bank", 0.9)}
    assert said(replica, 0, STEP) == first  # a repeat: what is known since changes nothing
    assert bring_up_to_date(artifact, replica.settings, silent) is not None
    replica.close()
    for start in ("from the snapshot", "from the journal"):
        again = opened(artifact, tmp_path)
        assert said(again, 0, STEP) + said(again, STEP, 3 * STEP) == first + second, start
        again.close()
        shutil.rmtree(tmp_path / "journal.snapshots", ignore_errors=True)
