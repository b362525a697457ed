"""The rules of a policy in words."""

from pathlib import Path

import pytest

from serve.decide.policies.parsing import parse
from serve.decide.policies.wording import worded

EXAMPLE = Path(__file__).parents[4] / "docs/policy.yaml"


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("always", "always"),
        ("{amount: {above: [10 EUR, 5 USD]}}", "amount: above 10 EUR or 5 USD"),
        ("{card.new: true}", "the card was never seen before"),
        ("{mandate.within: {is: false}}", "not (the payment keeps to its mandate)"),
        ("{country: [NO, SE]}", "country is one of NO or SE"),
        ("{mcc: {not_in: odd}}", "mcc is none of the list odd"),
        ("{hour: {between: [23, 5]}}", "hour of the payment's time: between 23 and 5"),
        ("{account.age: {at_least: 2d, below: 5d}}",
         "time since the account's first payment in sight: at least 2d and "
         "time since the account's first payment in sight: below 5d"),
        ("{any: [{country: NO}, {all: [{country: SE}, {mcc: '1'}]}]}", "country is NO or (country is SE and mcc is 1)"),
        ("{channel: web, any: [{country: NO}, {country: SE}]}", "channel is web and (country is NO or country is SE)"),
        ("{not: {any: [{country: NO}, {country: SE}]}}", "not (country is NO or country is SE)"),
    ],
)  # fmt: skip
def test_a_condition_is_said_in_words(when: str, said: str) -> None:
    text = (
        f"policy: x\nlists: {{odd: {{of: mcc, values: ['1234']}}}}\nrules: [{{id: one, when: {when}, then: decline}}]\n"
    )
    (rule,) = worded(text)
    assert (rule.when, rule.does) == (said, "decline")


def test_every_rule_of_the_example_is_said_with_what_it_does() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    rules = worded(text)
    assert [rule.id for rule in rules] == [rule.id for rule in parse(text).rules]
    assert {rule.does for rule in rules} == {"decline", "approve", "at least challenge", "at least review"}
    assert all(rule.when for rule in rules)


def test_a_list_of_many_texts_is_cut_with_how_many_are_left_out() -> None:
    values = ", ".join(f"m{i}" for i in range(20))
    (rule,) = worded(f"policy: x\nrules: [{{id: one, when: {{merchant: [{values}]}}, then: decline}}]\n")
    assert rule.when.endswith("m7 or 12 more")
