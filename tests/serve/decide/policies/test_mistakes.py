"""Mistakes that people make in a policy: each is refused with its line, its column, and a sentence that mends it."""

import re
from pathlib import Path

import pytest

from serve.decide.policies.parsing import load, parse
from serve.decide.policies.reading import PolicyError

END = "otherwise:\n  probability: {challenge: 5%, review: 20%, decline: 60%}\n"


def rule(when: str, effect: str = "then: decline") -> str:
    return f"policy: p\nrules:\n- id: r\n  when: {when}\n  {effect}\n{END}"


def two(first: str, when: str, second: str, then_when: str) -> str:
    """Two rules, each on a line of its own."""
    rules = f"- {{id: {first}, when: {when}, then: decline}}\n- {{id: {second}, when: {then_when}, then: review}}\n"
    return f"policy: p\nrules:\n{rules}{END}"


# Name of the mistake: text, line, column, what is said of it, how it is mended.
MISTAKES: dict[str, tuple[str, int, int, str, str]] = {
    # Of the notation.
    "empty file": ("", 1, 1, "the file is empty", "begin with 'policy: NAME'"),
    "prose": ("decline all fraud", 1, 1, "this is no policy", "begin with 'policy: NAME'"),
    "tab": ("policy: p\nrules:\n\t- id: r\n" + END, 3, 1, "a tab stands", "indent with blanks"),
    "unclosed quote": ("policy: p\nnote: 'night\n" + END, 2, 7, "is never closed", "end the text with the same quote"),
    "unclosed bracket": ("policy: p\nrules: [\n" + END, 2, 8, "bracket that opens here is never closed", "close it"),
    "two values on a line": ("policy: p: q\n" + END, 1, 10, "a second 'key: value'", "begin a new line"),
    "no blank behind a colon": ("policy:p\nrules: []\n", 2, 6, "a second 'key: value'", "begin a new line"),
    "key without a value": ("policy: p\nrules\n" + END, 2, 1, "a key without a value", "write 'key: value'"),
    "indented unlike": ("policy: p\nlists:\n   a: b\n  c: d\n" + END, 4, 3, "indented unlike", "line it up"),
    "percent sign first": ("policy: p\nnote: %5\n" + END, 2, 7, "cannot begin a value", "put quotes"),
    "alias": ("policy: &p p\nnote: *p\n" + END, 1, 9, "anchors and aliases", "write it out"),
    "tag that runs code": ("policy: !!python/name:os.system x\n" + END, 1, 9, "is not taken", "nothing in it is run"),
    "two documents": ("policy: p\n---\npolicy: q\n", 2, 1, "a second document", "keep one policy in a file"),
    "key twice": ("policy: p\npolicy: q\n" + END, 2, 1, "is here twice", "keep one of them (the first is at line 1)"),
    # Of the parts.
    "unknown key": ("policy: p\nrule: []\n" + END, 2, 1, "no key 'rule'", "did you mean 'rules'?"),
    "no name": (END, 1, 1, "'policy' is missing", "give the policy a name"),
    "name with blanks": ("policy: My Policy\n" + END, 1, 9, "cannot be a name", "my-policy"),
    "no otherwise": ("policy: p\nrules: []\n", 1, 1, "payments that no rule decides", "write 'otherwise:"),
    "rules as a mapping": ("policy: p\nrules: {r: {then: review}}\n" + END, 2, 8, "rules are a list", "- id: NAME"),
    "rule as text": ("policy: p\nrules:\n- decline\n" + END, 3, 3, "this is no rule", "write '- id: NAME'"),
    "unknown key of a rule": (rule("always", "than: decline"), 5, 3, "no key 'than'", "did you mean 'then'?"),
    "rule without id": (
        "policy: p\nrules:\n- when: always\n  then: review\n" + END,
        3,
        3,
        "'id' is missing",
        "id: NAME",
    ),
    "id with capitals": (
        "policy: p\nrules:\n- id: Big One\n  when: always\n  then: review\n" + END,
        3,
        7,
        "cannot be a name",
        "big-one",
    ),
    "id twice": (two("a", "{hour: 1}", "a", "{hour: 2}"), 4, 8, "is used twice", "the first is at line 3"),
    "unreachable": (two("a", "always", "b", "{hour: 2}"), 4, 3, "is never reached", "move it above 'a'"),
    "same condition": (two("a", "{hour: 2}", "b", "{hour: 2}"), 4, 3, "same condition", "change one of them"),
    "no condition": (rule("{}"), 4, 9, "there is no condition", "or 'always'"),
    "no effect": (rule("always", "message: hm"), 3, 3, "'then' is missing", "with one of approve"),
    "unknown action": (rule("always", "then: block"), 5, 9, "no action 'block'", "did you mean 'decline'?"),
    "both effects": (
        rule("always", "then: review\n  at_least: review"),
        6,
        3,
        "either decides",
        "leave one of them out",
    ),
    "floor of approve": (rule("always", "at_least: approve"), 5, 13, "is no floor", "write 'then: approve'"),
    # Of conditions.
    "misspelt field": (rule("{amuont: {above: 5 EUR}}"), 4, 10, "no field 'amuont'", "did you mean 'amount'?"),
    "misspelt feature": (rule("{card.payment.1h: {above: 5}}"), 4, 10, "no field", "did you mean 'card.payments.1h'?"),
    "window that is not kept": (
        rule("{card.payments.2h: {above: 5}}"),
        4,
        10,
        "no field",
        "did you mean 'card.payments",
    ),
    "or as in programs": (rule("{or: [{hour: 1}]}"), 4, 10, "no field 'or'", "write 'any'"),
    "unknown comparison": (
        rule("{amount: {over: 5 EUR}}"),
        4,
        19,
        "cannot be compared with 'over'",
        "did you mean 'above'?",
    ),
    "sign as comparison": (rule("{probability: '> 5%'}"), 4, 23, "is not a share", "write a share"),
    "amount without currency": (rule("{amount: {above: 500}}"), 4, 26, "has no currency", "write 500 EUR"),
    "currency first": (rule("{amount: {above: EUR 500}}"), 4, 26, "has its currency first", "write 500 EUR"),
    "thousands": (rule("{amount: {above: '1,000 EUR'}}"), 4, 26, "has a comma", "write 1000"),
    "decimals of a yen": (rule("{amount: {above: 1.50 JPY}}"), 4, 26, "JPY has 0 decimals", "round the amount"),
    "currency in small letters": (rule("{amount: {above: 5 eur}}"), 4, 26, "not in capitals", "write 5 EUR"),
    "percent over 100": (rule("{probability: {above: 120%}}"), 4, 31, "more than all", "from 0% to 100%"),
    "percent without its sign": (rule("{probability: {above: 5}}"), 4, 31, "more than all", "write 5%"),
    "duration without unit": (rule("{account.age: {below: 7}}"), 4, 31, "is no duration", "7d"),
    "count that is no number": (
        rule("{card.payments.1h: {above: five}}"),
        4,
        36,
        "is not a whole number",
        "write a whole",
    ),
    "hour that is none": (rule("{hour: {at_least: 24}}"), 4, 27, "is no hour", "write 0 to 23"),
    "day that is none": (rule("{weekday: [sat, funday]}"), 4, 25, "'funday' is not a day", "write one of mon"),
    "flag as yes": (rule("{card.new: yes}"), 4, 20, "either true or false", "write true or false"),
    "limits turned round": (rule("{probability: {between: [50%, 10%]}}"), 4, 33, "above the second", "turn them round"),
    "nothing in between": (rule("{probability: {above: 50%, below: 10%}}"), 4, 23, "all of this at once", "turn the"),
    "empty list": (rule("{merchant: {in: []}}"), 4, 25, "the list is empty", "leave the condition out"),
    "list that is not there": (rule("{merchant: {in: trusted}}"), 4, 25, "no list 'trusted'", "[trusted]"),
    "country in small letters": (rule("{country: de}"), 4, 19, "not in capitals", "write DE"),
    "list of another kind": (
        f"policy: p\nlists: {{t: {{of: card, values: [c]}}}}\nrules:\n- id: r\n"
        f"  when: {{merchant: {{in: t}}}}\n  then: review\n{END}",
        5,
        25,
        "a list of card",
        "'of' is merchant",
    ),
    "list that is not used": (
        f"policy: p\nlists: {{t: {{of: card, values: [c]}}}}\n{END}",
        2,
        9,
        "no rule uses",
        "leave it out",
    ),
    "named list that is empty": (
        f"policy: p\nlists: {{t: {{of: card, values: []}}}}\n{END}",
        2,
        31,
        "is empty",
        "leave the list out",
    ),
    "listed twice": (rule("{merchant: {in: [a, a]}}"), 4, 29, "is listed twice", "keep one of them"),
    # Of thresholds, zones and limits.
    "thresholds that fall": (
        "policy: p\notherwise:\n  probability: {challenge: 5%, review: 3%, decline: 60%}\n",
        3,
        40,
        "thresholds must rise",
        "challenge <= review <= decline",
    ),
    "threshold missing": (
        "policy: p\notherwise:\n  probability: {challenge: 5%, decline: 60%}\n",
        3,
        16,
        "'review' is missing",
        "write all three",
    ),
    "thresholds of two currencies": (
        END.replace(
            "otherwise:\n", "policy: p\notherwise:\n  loss: {challenge: 1 EUR, review: 2 USD, decline: 3 EUR}\n"
        ),
        3,
        36,
        "USD after EUR",
        "in one currency",
    ),
    "time zone": ("policy: p\nzone: Europe/Berln\n" + END, 2, 7, "no time zone", "did you mean 'Europe/Berlin'?"),
    "limit that says nothing": ("policy: p\nreviews: 200\n" + END, 2, 10, "has parts", "at_most: 200"),
    "limit by the hour": ("policy: p\nreviews: {at_most: 9, per: hour}\n" + END, 2, 28, "per hour", "write 'per: day'"),
    "review beyond reviews": (
        "policy: p\nreviews: {at_most: 9, then: review}\n" + END,
        2,
        29,
        "cannot be a review",
        "challenge",
    ),
}


def test_there_are_fifty_kinds_of_mistakes_and_more() -> None:
    assert len(MISTAKES) >= 50


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_line_its_column_and_how_to_mend_it(name: str) -> None:
    text, line, column, reason, mend = MISTAKES[name]
    with pytest.raises(PolicyError) as caught:
        parse(text, "p.yaml")
    said = [str(m) for m in caught.value.mistakes]
    first = next((m for m in caught.value.mistakes if (m.place.line, m.place.column) == (line, column)), None)
    assert first is not None, said
    assert reason in first.reason, said
    assert mend in first.mend, said
    assert re.search(rf"^p\.yaml:{line}:{column}: ", str(caught.value), re.MULTILINE)


def test_all_mistakes_of_a_file_are_told_at_once_in_the_order_of_its_lines() -> None:
    with pytest.raises(PolicyError) as caught:
        parse("policy: P\nrules:\n- {id: a, when: {amuont: 5}, then: block}\n" + END)
    assert [m.place.line for m in caught.value.mistakes] == [1, 3, 3]


def test_a_file_that_is_no_text_is_refused_with_the_place_of_the_first_wrong_byte(tmp_path: Path) -> None:
    (file := tmp_path / "p.yaml").write_bytes(b"policy: p\nnote: K\xf6ln\n")
    with pytest.raises(PolicyError, match=r":2:8: this is not UTF-8; save the file as UTF-8"):
        load(file)


@pytest.mark.parametrize("text", ["[" * 5000, "a: " * 3, "{" * 300, "? [a]\n: b", "- " * 2000 + "x", "\x00"])
def test_text_of_any_other_kind_is_refused_as_a_policy_and_breaks_nothing(text: str) -> None:
    with pytest.raises(PolicyError):
        parse(text)
