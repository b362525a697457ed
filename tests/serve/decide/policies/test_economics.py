"""The money of a policy: least expected cost, fees and rails in decisions, and mistakes in its sections."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.schema import TRANSACTION_SCHEMA
from serve.decide.costs import Costs
from serve.decide.decision import Situation
from serve.decide.outcomes import Tally
from serve.decide.policies.compiled import CompiledPolicy
from serve.decide.policies.economics import SPENT
from serve.decide.policies.parsing import parse
from serve.decide.policies.reading import PolicyError
from serve.decide.pricing import Pricing
from serve.decide.rails import DOWN, STEP, RailBook
from tests.serve.decide.test_routing import outcomes

PAGE = Path(__file__).parents[4] / "docs" / "costs.md"
BEGIN = "policy: p\notherwise:\n  probability: {challenge: 5%, review: 20%, decline: 60%}\n"
ROUTING = "routing:\n  rails:\n  - {name: wallet, success: 96%}\n  - {name: bank, fee: 0.05 EUR}\n"


def situation(probability: list[float], amount: list[int], **known: Any) -> Situation:
    n = len(amount)
    row = {**dict.fromkeys(TRANSACTION_SCHEMA.names), "account_id": "a", "merchant_id": "m", "currency": "EUR"}
    rows = [{**row, "transaction_id": f"t{i}", "timestamp": 10**15, "amount": a} for i, a in enumerate(amount)]
    batch = pa.RecordBatch.from_pylist(rows, TRANSACTION_SCHEMA)
    return Situation(batch, np.arange(n), np.array(probability), [None] * n, [None] * n, **known)


def compiled(text: str) -> CompiledPolicy:
    return CompiledPolicy(parse(BEGIN + text))


def test_without_a_word_on_money_nothing_is_said_of_it() -> None:
    (one,) = compiled("").decide(situation([0.3], [10_000]))
    assert (one.decision, one.expected_loss, one.fee_bps, one.route) == ("review", None, None, None)


def test_costs_decide_by_amount_where_no_rule_does_and_name_the_expected_loss() -> None:
    found = compiled("costs:\n").decide(situation([0.01, 0.01, 0.9], [200, 90_000, 90_000]))
    assert [one.action for one in found] == ["approve", "step_up_3ds", "decline"]
    assert [one.expected_loss for one in found] == [22, 920, 82_800]


def test_rules_come_before_costs() -> None:
    ruled = compiled("costs:\nrules:\n- {id: r, when: {amount: {above: 500 EUR}}, then: review}\n")
    (one,) = ruled.decide(situation([0.9], [90_000]))
    assert (one.action, one.rules[0].id, one.expected_loss) == ("review", "r", 82_800)


def test_thresholds_on_the_loss_decide_before_costs_do() -> None:
    text = BEGIN + "  loss: {challenge: 2 EUR, review: 20 EUR, decline: 200 EUR}\ncosts:\n"
    (one,) = CompiledPolicy(parse(text)).decide(situation([0.9], [5_000]))
    assert (one.action, one.expected_loss) == ("review", 6_300)


def test_a_good_customer_and_one_who_passed_biometrics_are_treated_as_such() -> None:
    policy, asked = compiled("costs:\n"), ([0.5], [2_000])
    (new,) = policy.decide(situation(*asked))
    spent = {SPENT: np.log1p(np.array([500_000], np.float32))}
    (good,) = policy.decide(situation(*asked, features=lambda: spent))
    assert (new.action, good.action) == ("decline", "step_up_3ds")
    tally = Tally(challenges_passed=3, biometrics_passed=3)
    (known,) = policy.decide(situation(*asked, features=lambda: spent, tallies=lambda: [tally]))
    assert known.action == "step_up_biometrics"


def test_the_price_of_a_review_keeps_it_for_those_that_gain_most() -> None:
    asked = situation([0.8], [90_000], features=lambda: {SPENT: np.log1p(np.array([10_000_000], np.float32))})
    assert compiled("costs:\n").decide(asked)[0].action == "review"
    assert compiled("costs: {review_price: 900 EUR}\n").decide(asked)[0].action != "review"


def test_fees_are_given_to_what_is_not_declined() -> None:
    found = compiled("costs:\npricing: {cap_bps: 250}\n").decide(situation([0.0, 0.01, 0.9], [10_000, 10_000, 90_000]))
    assert [one.fee_bps for one in found] == [20.0, 140.0, None]
    assert found[1].as_given("decline").fee_bps is None
    assert found[1].as_given("approve").fee_bps == 140.0


def test_a_rail_is_taken_by_what_was_known_as_of_the_payment() -> None:
    book = RailBook()
    book.apply(outcomes(0, [("wallet", "declined")] * DOWN))
    for offset, rail in ((STEP - 1, "wallet"), (STEP, "bank")):
        asked = situation([0.001], [5_000], rails=lambda offset=offset: book.of([offset]))
        (one,) = compiled(ROUTING).decide(asked)
        assert one.route is not None
        assert (one.route.rail, one.route.propensity) == (rail, 1.0)
    (unrecorded,) = compiled(ROUTING).decide(situation([0.001], [5_000]))
    assert unrecorded.route is not None
    assert unrecorded.route.rail == "wallet"


def test_a_payment_alone_is_decided_as_among_others() -> None:
    policy = compiled("costs:\npricing:\n" + ROUTING.replace("routing:", "routing:\n  mode: learn\n  explore: 30%"))
    asked = situation(np.linspace(0, 1, 40).tolist(), (100 + 977 * np.arange(40)).tolist())
    together = policy.decide(asked)
    assert [policy.decide(asked.take(np.array([i])))[0] for i in range(40)] == together


def test_the_page_shows_a_policy_that_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    money = parse(text).economics
    assert money is not None
    assert money.costs == Costs(review_cost=600, margin=0.02, rates={"USD": 0.92})
    assert money.pricing == Pricing(base_bps=15, cap_bps=200)
    assert money.router is not None
    assert [rail.name for rail in money.router.rails] == ["card", "bank"]


@pytest.mark.parametrize(
    ("text", "line", "column", "reason", "mend"),
    [
        ("costs: {review_cots: 4 EUR}", 4, 9, "no key 'review_cots'", "did you mean 'review_cost'"),
        ("costs: {review_cost: 4 USD}", 4, 22, "is in USD, and the costs are in EUR", "give it in EUR"),
        ("costs: {review_cost: 4}", 4, 22, "", "EUR"),
        ("costs: {margin: 300%}", 4, 17, "more than all", "0% to 100%"),
        ("costs: {value_months: -3}", 4, 23, "value_months is -3", "give 0 or more"),
        ("costs: {currency: euro}", 4, 19, "currency is 'euro'", "ISO 4217"),
        ("costs: {rates: {USD: 0}}", 4, 16, "rates.USD is 0", "above 0"),
        ("costs: cheap", 4, 8, "costs has parts", "write 'costs:'"),
        ("pricing: {floor_bps: 50, cap_bps: 20}", 4, 35, "cap_bps is 20", "at least floor_bps"),
        ("routing: {mode: table}", 4, 10, "which rails", "write 'rails:'"),
        ("routing: {mode: lern, rails: [{name: a}]}", 4, 17, "no mode 'lern'", "did you mean 'learn'"),
        ("routing: {rails: [{name: a}, {name: a}]}", 4, 18, "the name 'a' twice", "give each its own"),
        ("routing: {rails: [{fee: 1 EUR}]}", 4, 19, "a rail without a name", "name: card"),
        ("routing: {rails: [{name: a, success: 1.5}]}", 4, 38, "more than all", "150%|1.5%"),
    ],
)
def test_a_mistake_on_money_is_told_with_its_place_and_how_to_mend_it(
    text: str, line: int, column: int, reason: str, mend: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(f"{BEGIN}{text}\n")
    told = [(m.place.line, m.place.column, m.reason, m.mend) for m in caught.value.mistakes]
    assert any((at, of) == (line, column) and reason in why and re.search(mend, how) for at, of, why, how in told), told
