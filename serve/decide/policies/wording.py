"""The rules of a policy in words, for people who do not read its file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from serve.decide.policies.fields import COLUMNS, Field, Sort, fields
from serve.decide.policies.reading import Items, Keys, Node, Text, read

_WORDS: Final = {
    "above": "above",
    "at_least": "at least",
    "below": "below",
    "at_most": "at most",
    "between": "between",
    "is": "is",
    "is_not": "is not",
    "in": "is one of",
    "not_in": "is none of",
    "starts_with": "begins with",
}
_SHOWN: Final = 8  # of the texts that a condition lists


@dataclass(frozen=True, slots=True)
class WordedRule:
    """A rule for people.

    Attributes:
        id: Of the rule.
        when: When it applies.
        does: What is done then.
        message: What it says.
    """

    id: str
    when: str
    does: str
    message: str


def worded(text: str) -> list[WordedRule]:
    """The rules of a policy in words, in their order.

    Args:
        text: Of a policy without mistakes.

    Raises:
        PolicyError: It cannot be read.

    Example:
        >>> (rule,) = worded("rules: [{id: crowd, when: {device.accounts.7d: {at_least: 4}}, at_least: review}]")
        >>> rule.when, rule.does
        ('different accounts of the device in 7d: at least 4', 'at least review')
    """
    rules = read(text).values.get("rules")
    return [_rule(item) for item in (rules.items if isinstance(rules, Items) else ()) if isinstance(item, Keys)]


def _rule(node: Keys) -> WordedRule:
    said = {name: value.value for name, value in node.values.items() if isinstance(value, Text)}
    does = said.get("then") or f"at least {said.get('at_least', '')}"
    when = node.values.get("when")
    return WordedRule(said.get("id", ""), "" if when is None else _all(when), does, said.get("message", ""))


def _all(node: Node) -> str:
    parts = _several(node)
    if len(parts) == 1 and parts[0].startswith("(") and isinstance(node, Keys) and list(node.values) == ["any"]:
        return parts[0][1:-1]  # it stands alone
    return " and ".join(parts)


def _several(node: Node) -> list[str]:
    """Conditions that are joined at one level."""
    if isinstance(node, Items):
        return [_grouped(_several(item), " and ") for item in node.items]
    if isinstance(node, Keys):
        return [one for name, value in node.values.items() for one in _one(name, value)]
    return [node.value]


def _one(name: str, value: Node) -> Iterator[str]:
    if name == "not":
        yield f"not ({_all(value)})"
    elif name == "all":
        yield from _several(value)
    elif name == "any":
        yield _grouped(_several(value), " or ")
    elif (field := fields().get(name)) is not None:
        yield from _compared(field, value)


def _grouped(parts: list[str], joined: str) -> str:
    return parts[0] if len(parts) == 1 else f"({joined.join(parts)})"


def _compared(field: Field, node: Node) -> Iterator[str]:
    """A field with each thing that it is compared with."""
    if field.sort is Sort.FLAG:
        yield _flag(field, node)
    elif isinstance(node, Keys):
        for word, value in node.values.items():
            yield f"{_name(field)}{_joint(field, word)}{_WORDS.get(word, word)} {_value(word, value)}"
    else:
        word = "in" if isinstance(node, Items) else "is"
        yield f"{_name(field)}{_joint(field, word)}{_WORDS[word]} {_value(word, node)}"


def _name(field: Field) -> str:
    """What is compared: a column by its own name, all else by what it means."""
    return field.name if field.name in COLUMNS or field.name == "amount" else field.meaning.partition(",")[0]


def _joint(field: Field, word: str) -> str:
    return " " if field.name in COLUMNS or _WORDS.get(word, "").startswith("is") else ": "


def _flag(field: Field, node: Node) -> str:
    inner = node.values.get("is") if isinstance(node, Keys) else node
    holds = field.meaning.removeprefix("whether ")
    return holds if isinstance(inner, Text) and inner.value == "true" else f"not ({holds})"


def _value(word: str, node: Node) -> str:
    if isinstance(node, Text):
        return f"the list {node.value}" if word in ("in", "not_in") else node.value
    found = [one.value for one in node.items if isinstance(one, Text)] if isinstance(node, Items) else []
    if word == "between":
        return " and ".join(found)
    more = [] if len(found) <= _SHOWN else [f"{len(found) - _SHOWN} more"]
    return " or ".join([*found[:_SHOWN], *more])
