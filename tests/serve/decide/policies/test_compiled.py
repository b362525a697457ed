"""What a policy decides: the same as its rules read one after the other, for one payment or many."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data.schema import TRANSACTION_SCHEMA
from serve.decide.decision import Decided, MandateState, Situation
from serve.decide.policies.compiled import CompiledPolicy
from serve.decide.policies.model import ACTIONS, AllOf, Among, AnyOf, Condition, Not, PolicyFile, Within
from serve.decide.policies.parsing import load, parse
from serve.decide.standing import Standing

END = "otherwise:\n  probability: {challenge: 5%, review: 20%, decline: 60%}\n"
EXAMPLE = Path(__file__).parents[4] / "docs" / "policy.yaml"
NOON = 1_764_936_000_000_000  # Friday 2025-12-05 12:00 UTC


def payment(**given: Any) -> dict[str, Any]:
    usual = {
        "transaction_id": "t", "timestamp": NOON, "account_id": "a", "merchant_id": "m", "amount": 1000,
        "currency": "EUR",
    }  # fmt: skip
    return {**dict.fromkeys(TRANSACTION_SCHEMA.names), **usual, **given}


def situation(
    payments: list[dict[str, Any]],
    probability: float | list[float] = 0.0,
    features: Mapping[str, list[float]] | None = None,
    ring: Standing | None = None,
    mandate: MandateState | None = None,
) -> Situation:
    n = len(payments)
    table = {name: np.array(values, np.float32) for name, values in (features or {}).items()}
    return Situation(
        pa.RecordBatch.from_pylist(payments, TRANSACTION_SCHEMA),
        np.arange(n),
        np.broadcast_to(np.asarray(probability, np.float64), n).copy(),
        [ring] * n,
        [mandate] * n,
        None if features is None else lambda: table,
    )


def policy(when: str, effect: str = "then: decline", head: str = "") -> CompiledPolicy:
    return CompiledPolicy(parse(f"policy: p\n{head}rules:\n- id: r\n  when: {when}\n  {effect}\n{END}"))


def holds(when: str, asked: Situation, head: str = "") -> bool:
    return bool(policy(when, head=head).applied(asked)[0, 0])


@pytest.mark.parametrize(
    ("when", "given", "expected"),
    [
        ("{amount: {above: 10 EUR}}", {"amount": 1000}, False),
        ("{amount: {at_least: 10 EUR}}", {"amount": 1000}, True),
        ("{amount: {below: 10 EUR}}", {"amount": 999}, True),
        ("{amount: {at_most: 10 EUR}}", {"amount": 1001}, False),
        ("{amount: {at_least: 10 EUR}}", {"amount": 9999, "currency": "USD"}, False),
        ("{amount: {at_least: [10 EUR, 1000 JPY]}}", {"amount": 1000, "currency": "JPY"}, True),
        ("{not: {amount: {at_least: 10 EUR}}}", {"amount": 1, "currency": "USD"}, False),  # unknown, not false
        ("{not: {amount: {at_least: 10 EUR}}}", {"amount": 1}, True),
        ("{country: NO}", {"country": "NO"}, True),  # text, and no truth value
        ("{country: {not_in: [DE, FR]}}", {"country": "US"}, True),
        ("{country: {not_in: [DE, FR]}}", {"country": None}, False),
        ("{merchant: {starts_with: [x-, m]}}", {"merchant_id": "m-7"}, True),
        ("{merchant: {is_not: m}}", {"merchant_id": "m"}, False),
        ("{hour: {between: [11, 12]}}", {}, True),
        ("{hour: {between: [22, 12]}}", {}, True),
        ("{hour: {between: [13, 11]}}", {}, False),
        ("{weekday: [sat, fri]}", {}, True),
        ("{card.given: true}", {}, False),
        ("{card.given: false}", {}, True),
        ("{agent: bot, mandate.given: true}", {"agent_id": "bot", "mandate_id": "x"}, True),
        ("{any: [{country: DE}, {amount: {is: 10 EUR}}]}", {}, True),
        ("{all: [{country: DE}, {amount: {is: 10 EUR}}]}", {"country": "DE"}, True),
    ],
)
def test_a_condition_on_the_payment_itself(when: str, given: dict[str, Any], expected: bool) -> None:
    assert holds(when, situation([payment(**given)])) is expected


def test_hours_and_days_are_told_in_the_policys_zone() -> None:
    late = situation([payment(timestamp=NOON + 11 * 3_600_000_000)])  # 23:00 UTC
    assert holds("{hour: 8, weekday: sat}", late, head="zone: Asia/Tokyo\n")
    assert not holds("{hour: 8, weekday: sat}", late)


@pytest.mark.parametrize(
    ("when", "count", "expected"),
    [
        ("{card.payments.1h: {at_least: 5}}", 5, True),
        ("{card.payments.1h: {at_least: 5}}", 4, False),
        ("{card.payments.1h: {above: 5}}", 5, False),
        ("{card.payments.1h: {below: 1}}", 0, True),
        ("{card.payments.1h: 123456}", 123456, True),
        ("{card.payments.1h: 123456}", 123457, False),
        ("{card.payments.1h: 0}", 1, False),
        ("{card.spent.1h: {at_least: 1234.56 EUR}}", 123456, True),
        ("{card.spent.1h: {above: 1234.56 EUR}}", 123456, False),
    ],
)
def test_counts_and_sums_are_compared_as_people_write_them(when: str, count: int, expected: bool) -> None:
    value = [float(np.float32(math.log1p(count)))]
    features = {"card.present": [1.0], "card.count.1h": value, "card.amount.1h": value}
    assert holds(when, situation([payment()], features=features)) is expected


@pytest.mark.parametrize("when", ["{card.payments.1h: {below: 5}}", "{not: {card.payments.1h: {at_least: 5}}}"])
def test_nothing_is_known_of_an_entity_that_the_payment_does_not_name(when: str) -> None:
    features = {"card.present": [0.0], "card.count.1h": [0.0]}
    assert not holds(when, situation([payment()], features=features))
    assert not holds(when, situation([payment()], features={"card.present": [1.0], "card.count.1h": [np.nan]}))
    assert not holds(when, situation([payment()]))  # and there may be no graph to ask


def test_an_entity_is_new_where_it_was_never_seen_and_shared_where_another_account_used_it() -> None:
    def device(gap: float, accounts: int, met: int) -> Situation:
        logs = {"gap": gap, "distinct_account.30d": accounts, "met_account": met}
        features = {f"device.{name}": [math.log1p(value)] for name, value in logs.items()}
        return situation([payment(device_id="d")], features={**features, "device.present": [1.0]})

    assert holds("{device.new: true}", device(3.2e8, 0, 0))
    assert not holds("{device.new: true}", device(30 * 86400, 1, 1))
    assert not holds("{device.shared: true}", device(60, 1, 1))  # the payer alone
    assert holds("{device.shared: true}", device(60, 1, 0))
    assert holds("{device.shared: true}", device(60, 2, 1))
    assert holds("{device.shared: false}", device(60, 1, 1))


def test_rings_and_mandates_are_read_and_unknown_where_there_is_none() -> None:
    ring, outside = Standing("r", 1, "active", 0.9, 5), MandateState("x", False, "budget")
    assert holds(
        "{ring: true, ring.confidence: {above: 80%}, ring.size: 5, ring.state: active}",
        situation([payment()], ring=ring),
    )
    assert not holds("{ring.size: {below: 9}}", situation([payment()]))
    assert holds("{ring: false}", situation([payment()]))
    assert holds("{mandate.within: false}", situation([payment()], mandate=outside))
    assert not holds("{mandate.within: false}", situation([payment()]))


def decided(text: str, asked: Situation) -> list[tuple[str, list[str]]]:
    return [(d.action, [hit.id for hit in d.rules]) for d in CompiledPolicy(parse(text)).decide(asked)]


def test_the_first_rule_that_decides_ends_the_matter_and_floors_before_it_hold() -> None:
    text = (
        "policy: p\nrules:\n"
        "- {id: floor, when: {country: DE}, at_least: review}\n"
        "- {id: let, when: {merchant: m}, then: approve}\n"
        "- {id: late, when: always, at_least: decline}\n" + END
    )
    asked = situation(
        [payment(country="DE"), payment(), payment(merchant_id="x"), payment(country="DE", merchant_id="x")]
    )
    assert decided(text, asked) == [
        ("review", ["floor", "let"]),  # the floor is what counts: it stands first
        ("approve", ["let"]),
        ("decline", ["late"]),
        ("decline", ["late", "floor"]),
    ]


def test_thresholds_on_loss_take_the_place_of_those_on_probability_in_their_currency() -> None:
    text = f"policy: p\n{END}  loss: {{challenge: 1 EUR, review: 10 EUR, decline: 100 EUR}}\nchallenge: biometrics\n"
    asked = situation(
        [payment(amount=a, currency=c) for a, c in [(1000, "EUR"), (1_000_000, "EUR"), (10, "USD")]], [0.1, 0.01, 0.7]
    )
    assert decided(text, asked) == [("step_up_biometrics", []), ("decline", []), ("decline", [])]
    assert CompiledPolicy(parse(text)).at_once(0.7).decision == "decline"


def test_the_example_in_the_documents_decides_and_names_its_rules() -> None:
    compiled = CompiledPolicy(load(EXAMPLE))
    [found] = compiled.decide(situation([payment()], ring=Standing("r", 1, "active", 0.9, 5)))
    assert (found.decision, [hit.id for hit in found.rules]) == ("decline", ["named-ring"])
    assert found.policy.startswith("card-payments@")


# Against rules that are read one after the other.
NAMES = ("probability", "amount", "ring.size", "card.count.1h")
LEAVES: st.SearchStrategy[Condition] = st.one_of(
    st.builds(
        lambda name, low, width, code: Within(name, {code: (low, low + width)}, "card" if "card" in name else None),
        st.sampled_from(NAMES), st.integers(0, 3), st.integers(0, 2), st.sampled_from(["", "EUR", "USD"]),
    ),
    st.builds(lambda values: Among("country", frozenset(values)), st.sets(st.sampled_from("ABC"), min_size=1)),
)  # fmt: skip
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.builds(Not, parts),
        st.builds(lambda p: AllOf(tuple(p)), st.lists(parts, max_size=3)),
        st.builds(lambda p: AnyOf(tuple(p)), st.lists(parts, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)
PAYMENTS = st.tuples(
    st.integers(0, 4), st.sampled_from([0.0, 1.0]), st.sampled_from([None, "A", "B"]), st.sampled_from(["EUR", "USD"]),
    st.integers(0, 4), st.booleans(),
)  # fmt: skip


def truth(condition: Condition, at: Mapping[str, Any]) -> bool | None:
    if isinstance(condition, Not):
        inner = truth(condition.part, at)
        return None if inner is None else not inner
    if isinstance(condition, AllOf | AnyOf):
        parts = [truth(part, at) for part in condition.parts]
        ends = isinstance(condition, AnyOf)
        return ends if ends in parts else None if None in parts else not ends
    if isinstance(condition, Among):
        value = at[condition.column]
        return None if value is None else value in condition.values
    value = at[condition.column]
    limits = condition.limits.get(at["currency"], condition.limits.get(""))
    return None if value is None or limits is None else limits[0] <= value <= limits[1]


@given(
    st.lists(st.tuples(CONDITIONS, st.booleans(), st.sampled_from(ACTIONS)), max_size=5),
    st.lists(PAYMENTS, min_size=1, max_size=6),
)
@hypothesis_settings(deadline=None, max_examples=60)
def test_a_compiled_policy_decides_as_its_rules_read_one_by_one(rules: list[Any], rows: list[Any]) -> None:
    named = "".join(f"- {{id: r{i}, when: {{hour: {i}}}, then: review}}\n" for i in range(len(rules)))
    file = parse(f"policy: p\nrules:{chr(10) + named if rules else ' []' + chr(10)}{END}")
    file = replace(
        file,
        rules=tuple(
            replace(old, when=when, then=action if decides else None, at_least=None if decides else action)
            for old, (when, decides, action) in zip(file.rules, rules, strict=True)
        ),
    )
    asked = situation(
        [payment(amount=a, country=country, currency=currency) for a, _, country, currency, _, _ in rows],
        [p for _, p, *_ in rows],
        {"card.count.1h": [float(c) for *_, c, _ in rows], "card.present": [float(there) for *_, there in rows]},
    )
    expected = [_by_hand(file, row) for row in rows]
    assert _told(CompiledPolicy(file).decide(asked)) == expected
    alone = [
        replace(
            asked, payments=asked.payments.slice(i, 1), offsets=asked.offsets[i : i + 1],
            probability=asked.probability[i : i + 1], rings=[None], mandates=[None],
            features=lambda i=i: {k: v[i : i + 1] for k, v in asked.features().items()},
        )
        for i in range(len(rows))
    ]  # fmt: skip
    assert [_told(CompiledPolicy(file).decide(one))[0] for one in alone] == expected


def _told(found: list[Decided]) -> list[tuple[str, set[str]]]:
    return [(d.action, {hit.id for hit in d.rules}) for d in found]


def _by_hand(file: PolicyFile, row: Any) -> tuple[str, set[str]]:
    amount, probability, country, currency, count, there = row
    at = {"amount": amount, "probability": probability, "country": country, "currency": currency, "ring.size": None,
          "card.count.1h": count if there else None}  # fmt: skip
    action, hits, floor = "decline" if probability == 1 else "approve", set(), "approve"
    for rule in file.rules:
        if truth(rule.when, at):
            hits.add(rule.id)
            if rule.then is not None:
                action = rule.then
                break
            floor = max(floor, rule.at_least or "approve", key=ACTIONS.index)
    return max(action, floor, key=ACTIONS.index), hits
