"""The engine of risk rings: what is a ring, what it keeps, and that the journal alone decides."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from data.history import History
from graph.errors import GraphError
from graph.rings.records import MemberRole, RingState
from graph.rings.risk.engine import RiskRings
from graph.state import GraphState
from tests.graph.rings.risk.streams import feed, small_world

START = datetime(2026, 1, 1, tzinfo=UTC)


def history(rows: list[tuple[float, str, str, str | None]], labels: list[tuple[float, int, bool]] = []) -> History:  # noqa: B006
    """Payments (day, account, merchant, device) named t0, t1, ..., and labels (day, payment, fraud)."""
    payments = pa.table(
        {
            "transaction_id": [f"t{i}" for i in range(len(rows))],
            "timestamp": [START + timedelta(days=row[0]) for row in rows],
            "account_id": [row[1] for row in rows],
            "merchant_id": [row[2] for row in rows],
            "device_id": pa.array([row[3] for row in rows], pa.string()),
            "amount": [100] * len(rows),
            "currency": ["EUR"] * len(rows),
        }
    )
    said = pa.table(
        {
            "transaction_id": [f"t{of}" for _, of, _ in labels],
            "is_fraud": pa.array([fraud for *_, fraud in labels], pa.bool_()),
            "reported_at": pa.array([START + timedelta(days=day) for day, *_ in labels], pa.timestamp("us", "UTC")),
        }
    )
    return History.from_arrow(payments, said) if labels else History.from_arrow(payments)


def farm(n: int, first: int = 0, device: str = "phone", day: float = 0.0) -> list[tuple[float, str, str, str | None]]:
    return [(day + i / 100, f"a{first + i}", f"m{first + i}", device) for i in range(n)]


def test_accounts_whose_risky_payments_share_a_device_are_a_ring_named_after_the_payment_that_made_it_one() -> None:
    rings, _, _ = feed(history(farm(4)), np.full(4, 0.9))
    [ring] = rings.records()
    assert ring.id == "K-2"
    assert ring.accounts == ("a0", "a1", "a2", "a3")
    assert ring.evidence == ("t3", "t2", "t1", "t0")
    assert [m.member_role for m in ring.members if m.role == "device"] == [MemberRole.HUB]
    assert rings.rings_of("device", "phone") == ["K-2"] == rings.rings_of("account", "a3")


def test_payments_that_are_not_risky_make_no_ring() -> None:
    rings, _, _ = feed(history(farm(9)), np.full(9, 0.1))
    assert rings.records() == []


def test_an_entity_of_mostly_honest_payments_ties_nobody() -> None:
    popular = [(i / 1000, f"b{i}", "popular", None) for i in range(200)]
    risky = [(1 + i / 100, f"a{i}", "popular", None) for i in range(6)]
    rings, _, _ = feed(history(popular + risky), np.array([0.01] * 200 + [0.9] * 6))
    assert rings.records() == []


def test_a_label_that_clears_a_payment_takes_it_out_and_the_ring_ends_on_record() -> None:
    rings, _, _ = feed(history(farm(3), [(1.0, 1, False)]), np.full(3, 0.9))
    [ring] = rings.records()
    assert ring.state is RingState.ENDED
    assert ring.ended_at is not None
    assert "t1" not in ring.evidence


def test_a_reported_payment_is_risky_whatever_the_model_said() -> None:
    labels = [(1 + i / 100, i, True) for i in range(3)]
    rings, _, _ = feed(history(farm(3), labels), np.full(3, 0.001))
    [ring] = rings.records()
    assert ring.known_frauds == ("t2", "t1", "t0")
    assert ring.money[0].lost == 300


def test_a_ring_that_grows_old_ends_and_keeps_members_and_evidence_on_record() -> None:
    late = [(45.0, "z", "m", None)]
    rings, _, _ = feed(history(farm(4) + late), np.array([0.9] * 4 + [0.01]))
    [ring] = rings.records()
    assert ring.state is RingState.ENDED
    assert ring.accounts == ("a0", "a1", "a2", "a3")
    assert len(ring.evidence) == 4


def test_of_rings_that_merge_the_older_one_lives_and_says_whom_it_took_up() -> None:
    rows = farm(4) + farm(4, first=10, device="tablet", day=1.0)
    rows += [(2 + i / 100, a, "m99", d) for i, (a, d) in enumerate([("a0", "tablet"), ("a1", "tablet")] * 3)]
    rows += [(3 + i / 100, a, "m99", "phone") for i, a in enumerate(["a10", "a11", "a12", "a13"] * 2)]
    rings, _, _ = feed(history(rows), np.full(len(rows), 0.95))
    first, second = rings.record("K-2"), rings.record("K-6")
    assert first is not None
    assert second is not None
    assert second.merged_into == "K-2"
    assert "K-6" in first.parents
    assert {"a2", "a3", "a10", "a11", "a12", "a13"} <= set(first.accounts)


def test_a_ring_as_of_a_moment_has_what_was_known_then() -> None:
    rings, _, _ = feed(history(farm(5, day=0.0)), np.full(5, 0.9))
    as_of = int((START + timedelta(days=0.025)).timestamp() * 1e6)
    ring = rings.record("K-2", as_of)
    assert ring is not None
    assert ring.accounts == ("a0", "a1", "a2")
    assert rings.record("K-2", as_of - 10**10) is None
    assert [len(v.accounts) for v in rings.versions("K-2")] == [3, 4, 5]


def test_the_ring_over_a_payment_is_the_one_that_stood_before_it_came() -> None:
    rows = farm(9)
    _, before, _ = feed(history(rows), np.full(len(rows), 0.97))
    assert (before[:3] == -1).all()
    assert before[-1] == 2


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_rings_are_the_same_however_events_are_grouped(size: int) -> None:
    world, scores = small_world()
    whole, before, _ = feed(world, scores)
    parts, before_too, _ = feed(world, scores, size)
    assert whole.records() == parts.records()
    assert len(whole.records()) > 3
    assert whole.changes() == parts.changes()
    assert np.array_equal(before, before_too)


def test_rows_that_do_not_follow_on_are_refused() -> None:
    state = GraphState(("account", "merchant", "device"))
    with pytest.raises(GraphError, match="do not follow row 0"):
        RiskRings(state.store).extend(range(3, 5), np.zeros(2))
