"""Rails: what a router gives up and what not, exploring that can be replayed, downtime, and no oscillation."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from data.journal.protocol import SCHEMAS, Events, Kind
from serve.decide.costs import Costs, CostsError, Payments, payments_of
from serve.decide.rails import DOWN, STEP, RailBook, Rates
from serve.decide.routing import Rail, Router

COSTS = Costs()
CARD, BANK, WALLET = Rail("card", fee_bps=150), Rail("bank", fee=5, success=0.93), Rail("wallet", fee=10, success=0.96)


def some(n: int, amount: int = 5_000, probability: float = 0.001) -> Payments:
    return payments_of(COSTS, np.full(n, probability), np.full(n, amount))


def outcomes(offset: int, came: Sequence[tuple[str, str]]) -> Events:
    rows = [{"transaction_id": "t", "outcome": o, "by": rail, "outcome_id": "o"} for rail, o in came]
    return Events(Kind.OUTCOME, offset, pa.RecordBatch.from_pylist(rows, SCHEMAS[Kind.OUTCOME]))


def test_a_table_takes_the_first_rail_that_takes_the_payment() -> None:
    router = Router((Rail("bank", most=10_000, currencies=frozenset({"EUR"})), CARD))
    payments = payments_of(COSTS, np.zeros(3), np.array([5_000, 50_000, 5_000]))
    found = router.route(["a", "b", "c"], ["EUR", "EUR", "USD"], payments, COSTS, [router.rates] * 3)
    assert [r and (r.rail, r.propensity) for r in found] == [("bank", 1.0), ("card", 1.0), ("card", 1.0)]


def test_no_rail_takes_what_none_can() -> None:
    router = Router((Rail("bank", most=10_000),))
    assert router.route(["a"], ["EUR"], some(1, 50_000), COSTS, [router.rates]) == [None]


def test_success_is_given_up_only_for_a_cost_that_is_worth_it_and_no_more_than_allowed() -> None:
    dear, cheap = Rail("dear", fee=60, success=0.95), Rail("cheap", fee=0, success=0.90)
    router = Router((dear, cheap), "learn", explore=0)
    # .05 of success is worth .05 * (3 % of the amount + 5 % of a value of 20 EUR): 12.5 cents at 50 EUR, 155 at 1,000.
    for amount, rail in ((5_000, "cheap"), (100_000, "dear")):
        assert router.route(["t"], ["EUR"], some(1, amount), COSTS, [router.rates])[0].rail == rail  # type: ignore[union-attr]
    strict = Router((dear, cheap), "learn", explore=0, most_given_up=0.01)
    assert strict.route(["t"], ["EUR"], some(1), COSTS, [router.rates])[0].rail == "dear"  # type: ignore[union-attr]


def test_a_risky_payment_goes_where_its_loss_is_somebody_elses() -> None:
    router = Router((Rail("plain"), Rail("shifted", fee=50, liability=0.0)), "learn", explore=0)
    for probability, rail in ((0.0001, "plain"), (0.1, "shifted")):
        found = router.route(["t"], ["EUR"], some(1, 5_000, probability), COSTS, [router.rates])
        assert found[0] is not None
        assert found[0].rail == rail


def test_propensities_are_the_frequencies_of_the_draw_and_a_replay_gives_the_same() -> None:
    router = Router((CARD, BANK, WALLET), "learn", explore=0.3, version="v1")
    n = 4_000
    ids = [f"t-{i}" for i in range(n)]
    routes = router.route(ids, ["EUR"] * n, some(n), COSTS, [router.rates] * n)
    assert routes == router.route(ids, ["EUR"] * n, some(n), COSTS, [router.rates] * n)
    for rail in ("card", "bank", "wallet"):
        taken = [r for r in routes if r is not None and r.rail == rail]
        assert len(taken) / n == pytest.approx(taken[0].propensity, abs=0.02)
    other = Router((CARD, BANK, WALLET), "learn", explore=0.3, version="v2")
    assert other.route(ids, ["EUR"] * n, some(n), COSTS, [router.rates] * n) != routes


def test_one_payment_is_routed_as_it_is_among_others() -> None:
    router = Router((CARD, BANK, WALLET), "learn", explore=0.3)
    payments = payments_of(COSTS, np.linspace(0, 0.2, 50), np.arange(100, 50_100, 1_000))
    ids = [f"t-{i}" for i in range(50)]
    together = router.route(ids, ["EUR"] * 50, payments, COSTS, [router.rates] * 50)
    for i in range(50):
        alone = Payments(*(getattr(payments, name)[i : i + 1] for name in Payments.__slots__))
        assert router.route(ids[i : i + 1], ["EUR"], alone, COSTS, [router.rates]) == together[i : i + 1]


def test_a_rail_that_only_fails_is_left_until_it_succeeds_again() -> None:
    router = Router((WALLET, BANK))
    book = RailBook()
    book.apply(outcomes(0, [("wallet", "declined")] * DOWN))
    book.apply(outcomes(5 * STEP, [("wallet", "approved")]))
    for step, rail in ((0, "wallet"), (1, "bank"), (5, "bank"), (6, "wallet")):
        found = router.route(["t"], ["EUR"], some(1), COSTS, book.of([step * STEP]))
        assert found[0] is not None
        assert found[0].rail == rail


def test_where_all_rails_are_down_the_first_is_taken_all_the_same() -> None:
    book = RailBook()
    book.apply(outcomes(0, [("wallet", "declined"), ("bank", "declined")] * DOWN))
    (found,) = Router((WALLET, BANK)).route(["t"], ["EUR"], some(1), COSTS, book.of([STEP]))
    assert found is not None
    assert found.rail == "wallet"


def test_what_was_known_as_of_a_payment_does_not_change_with_later_outcomes_or_a_snapshot() -> None:
    rng = np.random.default_rng(1)
    book, seen, offset = RailBook(), {}, 0
    for _ in range(60):
        came = [(str(rng.choice(["card", "bank"])), str(rng.choice(["approved", "declined"]))) for _ in range(30)]
        book.apply(outcomes(offset, came))
        offset += int(rng.integers(30, 400))
        seen[offset] = book.of([offset])[0]
        if rng.random() < 0.2:
            facts, book = book.facts(), RailBook()
            book.adopt(facts)
    assert [book.of([at])[0] for at in seen] == list(seen.values())
    assert any(rates.rails for rates in seen.values())


def test_outcomes_that_are_no_rails_teach_nothing() -> None:
    book = RailBook()
    book.apply(outcomes(0, [("wallet", "refunded")]))
    row = {"transaction_id": "t", "outcome": "declined", "by": None, "outcome_id": "o"}
    book.apply(Events(Kind.OUTCOME, 1, pa.RecordBatch.from_pylist([row], SCHEMAS[Kind.OUTCOME])))
    assert book.of([10 * STEP])[0].rails == {}


def shares_by_generation(truth: dict[str, float], generations: int) -> list[float]:
    """A router, the outcomes of its own choices, and the router that learnt from them: share of the truly best rail."""
    rng = np.random.default_rng(0)
    rails = tuple(Rail(name, success=0.9) for name in truth)
    router, book, offset, found = Router(rails, "learn", explore=0.1), RailBook(), 0, []
    best = max(truth, key=truth.__getitem__)
    for generation in range(generations):
        n = 600
        rates: list[Rates] = book.of([offset]) * n
        routes = router.route([f"{generation}-{i}" for i in range(n)], ["EUR"] * n, some(n), COSTS, rates)
        taken = [r.rail for r in routes if r is not None]
        book.apply(outcomes(offset, [(r, "approved" if rng.random() < truth[r] else "declined") for r in taken]))
        offset += 4 * STEP
        found.append(taken.count(best) / n)
    return found


def test_twenty_generations_of_a_router_and_its_own_data_settle_on_the_best_rail_and_stay() -> None:
    shares = shares_by_generation({"card": 0.85, "bank": 0.95, "wallet": 0.89}, 20)
    assert min(shares[8:]) > 0.85  # no way back and forth between rails


def test_rails_of_bad_figures_are_refused_by_name() -> None:
    for field, make in (
        ("success", lambda: Rail("a", success=1.2)),
        ("fee", lambda: Rail("a", fee=-1)),
        ("most", lambda: Rail("a", most=0)),
        ("name", lambda: Rail("")),
        ("rails", lambda: Router(())),
        ("rails", lambda: Router((CARD, CARD))),
        ("explore", lambda: Router((CARD,), explore=2)),
    ):
        with pytest.raises(CostsError, match="give") as refused:
            make()
        assert refused.value.field == field
