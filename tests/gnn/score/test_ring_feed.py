"""What outcomes tell the risk rings: whether a payment's money is safe, is gone, or nothing."""

from typing import Any

import pyarrow as pa
import pytest

from data.journal.protocol import SCHEMAS, Events, Kind
from gnn.model.artifact import untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.replay import open_model
from gnn.score.ring_feed import RingFeed
from tests.world import payment_batch

PAYMENTS = payment_batch(3, seed=5)


class Told:
    """Risk rings that only listen."""

    def __init__(self) -> None:
        self.said: list[tuple[int, bool]] = []

    def outcomes(self, rows: Any, stopped: Any, at: int) -> None:
        self.said += zip(rows.tolist(), stopped.tolist(), strict=True)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.mark.parametrize(
    ("outcome", "part", "said"),
    [
        ("decline", False, [(1, True)]),
        ("expired", False, [(1, True)]),
        ("reversed", False, [(1, True)]),
        ("refunded", True, []),
        ("approved", False, [(1, False)]),
        ("challenge_failed", False, []),
        ("chargeback_opened", False, []),
    ],
)
def test_only_outcomes_that_say_where_the_money_is_reach_the_rings(
    outcome: str, part: bool, said: list[tuple[int, bool]]
) -> None:
    state, scorer = open_model(untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 10))
    assert isinstance(scorer, CpuScorer)
    told = Told()
    feed = RingFeed(state, scorer, told)  # type: ignore[arg-type]
    row = {"transaction_id": PAYMENTS.column(0)[1].as_py(), "outcome": outcome, "at": 9, "outcome_id": "o"}
    became = pa.RecordBatch.from_pylist([{**row, "amount": 1 if part else None}], SCHEMAS[Kind.OUTCOME])
    for events in (Events(Kind.TRANSACTION, 0, PAYMENTS), Events(Kind.OUTCOME, 3, became)):
        list(feed.apply(events))
    assert told.said == said
