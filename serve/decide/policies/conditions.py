"""Conditions as people write them, checked and turned into `Condition`."""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from data.currency import exponent
from graph.rings.records import RingState
from serve.decide.policies.fields import COLUMNS, NEW_FROM, WEEKDAYS, Field, Sort, fields
from serve.decide.policies.model import AllOf, Among, AnyOf, Condition, Not, Within
from serve.decide.policies.reading import Items, Keys, Mistakes, Node, Text, like

JOINS: Final = ("all", "any", "not")
ORDERED: Final = ("above", "at_least", "below", "at_most", "between", "is")
NAMED: Final = ("is", "is_not", "in", "not_in", "starts_with")
_ALWAYS: Final = AllOf(())
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_HALF: Final = 0.5  # counts are compared half way to the next one, so that a rounded logarithm cannot matter
_BAD: Final = "bad"  # stands for a value that a mistake was noted of


class Conditions:
    """Reads conditions; what is wrong goes to `mistakes`, and the condition is then of no use.

    Args:
        lists: Named lists of the policy: what each is a list of, and its texts.
        mistakes: Where mistakes go.
    """

    def __init__(self, lists: Mapping[str, tuple[str, frozenset[str]]], mistakes: Mistakes) -> None:
        self._lists, self._mistakes = lists, mistakes
        self.used: set[str] = set()

    def read(self, node: Node) -> Condition:
        """The condition of a `when`."""
        if isinstance(node, Text):
            if node.value == "always":
                return _ALWAYS
            self._mistakes.add(
                node.place, f"{node.value!r} is no condition", "write 'FIELD: VALUE' below it, or 'always'"
            )
            return _ALWAYS
        if isinstance(node, Items):
            return AllOf(tuple(self._several(node)))
        if not node.values:
            self._mistakes.add(node.place, "there is no condition", "write 'FIELD: VALUE' below it, or 'always'")
        parts = [self._one(name, value, node) for name, value in node.values.items()]
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _several(self, node: Node) -> list[Condition]:
        if isinstance(node, Items) and node.items:
            return [self.read(item) for item in node.items]
        if isinstance(node, Keys) and node.values:
            return [self._one(name, value, node) for name, value in node.values.items()]
        self._mistakes.add(
            node.place, "no conditions are listed here", "write each as '- FIELD: VALUE' on its own line"
        )
        return []

    def _one(self, name: str, value: Node, parent: Keys) -> Condition:
        if name == "not":
            return Not(self.read(value))
        if name in JOINS:
            parts = tuple(self._several(value))
            return AllOf(parts) if name == "all" else AnyOf(parts)
        known = fields()
        if (found := known.get(name)) is None:
            place = parent.places[name]
            if name in ("and", "or"):
                mend = f"write {'all' if name == 'and' else 'any'!r} and list the conditions below it"
            else:
                mend = like(name, [*known, *JOINS])
            self._mistakes.add(place, f"there is no field {name!r}", mend)
            return _ALWAYS
        return self._compared(found, value)

    def _compared(self, field: Field, node: Node) -> Condition:
        """A field with what it is compared with."""
        if not isinstance(node, Keys):
            return self._operator(field, "in" if isinstance(node, Items) else "is", node)
        words: tuple[str, ...] = NAMED if field.sort in (Sort.TEXT, Sort.STATE) else ORDERED
        if field.sort in (Sort.FLAG, Sort.WEEKDAY):
            words = ("is", "in")
        parts = []
        for word, value in node.values.items():
            if word in words:
                parts.append(self._operator(field, word, value))
            else:
                reason = f"{field.name} cannot be compared with {word!r}"
                self._mistakes.add(node.places[word], reason, like(word, words))
        if not node.values:
            self._mistakes.add(node.place, f"{field.name} is compared with nothing", f"write {field.sort.value}")
        if len(parts) > 1:
            self._refuse_empty(field, parts, node)
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _operator(self, field: Field, word: str, node: Node) -> Condition:
        if field.sort in (Sort.TEXT, Sort.STATE):
            return self._texts(field, word, node)
        if field.sort is Sort.FLAG:
            return self._flag(field, node)
        if field.sort is Sort.WEEKDAY:
            days = self._among(node, WEEKDAYS, "a day")
            return AnyOf(tuple(Within("weekday", {"": (WEEKDAYS.index(d), WEEKDAYS.index(d))}) for d in days))
        if isinstance(node, Items) and word == "in":
            return AnyOf(tuple(self._ordered(field, "is", item) for item in node.items))
        return self._ordered(field, word, node)

    def _flag(self, field: Field, node: Node) -> Condition:
        if not isinstance(node, Text) or node.value not in ("true", "false"):
            self._mistakes.add(node.place, f"{field.name} is either true or false", "write true or false")
            return _ALWAYS
        wanted = node.value == "true"
        if field.name.endswith(".shared"):
            return _shared(field.role or "", wanted)
        if field.name.endswith(".new"):
            limits = (NEW_FROM, math.inf) if wanted else (-math.inf, math.nextafter(NEW_FROM, 0))
            return Within(field.feature or field.name, {"": limits}, field.role)
        value = float(wanted)
        return Within(field.feature or field.name, {"": (value, value)}, field.role)

    def _texts(self, field: Field, word: str, node: Node) -> Condition:
        column = COLUMNS.get(field.name, field.name)
        if word in ("in", "not_in") and isinstance(node, Text):
            values = sorted(self._named_list(field, node))
        elif field.sort is Sort.STATE:
            values = self._among(node, [s.value for s in RingState if s is not RingState.ENDED], "a state")
        else:
            values = self._words(node, several=word not in ("is", "is_not"))
            if isinstance(node, Text) and node.value in self._lists and not node.quoted:
                reason = f"{node.value!r} is a list, not {field.meaning}"
                self._mistakes.add(node.place, reason, f"write {field.name}: {{in: {node.value}}}")
            self._refuse_codes(field, values, node, word == "starts_with")
        condition = Among(column, frozenset(values), word == "starts_with")
        return Not(condition) if word in ("is_not", "not_in") else condition

    def _named_list(self, field: Field, node: Text) -> frozenset[str]:
        self.used.add(node.value)
        if node.value not in self._lists:
            mend = like(node.value, list(self._lists)) if self._lists else f"write the texts as [{node.value}]"
            self._mistakes.add(node.place, f"there is no list {node.value!r}", mend)
            return frozenset()
        of, values = self._lists[node.value]
        if of != field.name and {of, field.name} != {"account", "payee"}:
            reason = f"{node.value!r} is a list of {of}, not of {field.name}"
            self._mistakes.add(node.place, reason, f"name a list whose 'of' is {field.name}")
        return values

    def _words(self, node: Node, several: bool) -> list[str]:
        items = node.items if isinstance(node, Items) else (node,)
        if isinstance(node, Items) and not several:
            self._mistakes.add(node.place, "one text is compared here, not a list", "write 'in' or 'not_in'")
        if not items:
            self._mistakes.add(node.place, "the list is empty", "name what is in it, or leave the condition out")
        found = []
        for item in items:
            if not isinstance(item, Text) or not item.value.strip():
                self._mistakes.add(item.place, "a text is missing here", 'write one, in quotes if it has ":" or "#"')
            elif item.value in found:
                self._mistakes.add(item.place, f"{item.value!r} is listed twice", "keep one of them")
            else:
                found.append(item.value)
        return found

    def _refuse_codes(self, field: Field, values: list[str], node: Node, prefix: bool) -> None:
        """Currencies and countries are written in capitals."""
        for value in values:
            if field.name in ("currency", "country") and value != value.upper():
                self._mistakes.add(node.place, f"{value!r} is not in capitals", f"write {value.upper()}")
            elif field.name == "currency" and len(value) != 3 and not prefix:
                self._mistakes.add(node.place, f"{value!r} is no currency code", "write three letters, such as EUR")

    def _among(self, node: Node, known: "tuple[str, ...] | list[str]", what: str) -> list[str]:
        found = []
        for item in node.items if isinstance(node, Items) else (node,):
            if isinstance(item, Text) and item.value in known:
                found.append(item.value)
            else:
                said = repr(item.value) if isinstance(item, Text) else "this"
                mend = like(item.value if isinstance(item, Text) else "", known)
                self._mistakes.add(item.place, f"{said} is not {what}", mend)
        if isinstance(node, Items) and not node.items:
            self._mistakes.add(node.place, "the list is empty", f"write {known[0]}, for example")
        return found

    def _ordered(self, field: Field, word: str, node: Node) -> Condition:
        if word == "between":
            return self._between(field, node)
        if field.sort is Sort.MONEY and isinstance(node, Items):
            parts = [self._ordered(field, word, item) for item in node.items]
            limits: dict[str, tuple[float, float]] = {}
            for item, part in zip(node.items, parts, strict=True):
                for currency, limit in part.limits.items() if isinstance(part, Within) else ():
                    if currency in limits:
                        self._mistakes.add(item.place, f"{currency} is here twice", "give one amount for each currency")
                    limits[currency] = limit
            if not parts:
                self._mistakes.add(node.place, "the list is empty", f"write {field.sort.value}")
            return _within(field, limits)
        value = self.value(field.sort, node)
        if value is None:
            return _ALWAYS
        number, currency = value
        return _within(field, {currency: _limits(field, word, number)})

    def _between(self, field: Field, node: Node) -> Condition:
        if not isinstance(node, Items) or len(node.items) != 2:
            self._mistakes.add(node.place, "two limits are needed", "write between: [LOWEST, HIGHEST]")
            return _ALWAYS
        values = [self.value(field.sort, item) for item in node.items]
        if values[0] is None or values[1] is None:
            return _ALWAYS
        (low, currency), (high, other) = values[0], values[1]
        if currency != other:
            self._mistakes.add(node.items[1].place, f"{other} after {currency}", f"give both limits in {currency}")
        if low > high and field.sort is not Sort.HOUR:
            self._mistakes.add(node.place, "the first limit is above the second", "turn them round")
        least, most = _limits(field, "at_least", low), _limits(field, "at_most", high)
        if low > high:  # over midnight
            return AnyOf((_within(field, {currency: least}), _within(field, {currency: most})))
        return _within(field, {currency: (least[0], most[1])})

    def _refuse_empty(self, field: Field, parts: list[Condition], node: Keys) -> None:
        limits = [part.limits for part in parts if isinstance(part, Within)]
        for currency in set.intersection(*(set(one) for one in limits)) if limits else ():
            if max(one[currency][0] for one in limits) > min(one[currency][1] for one in limits):
                reason = f"no {field.name} can be all of this at once"
                self._mistakes.add(node.place, reason, "turn the limits round, or put the conditions under 'any'")

    def value(self, sort: Sort, node: Node) -> tuple[float, str] | None:
        """A number and its currency, "" where it has none; None after a mistake."""
        if not isinstance(node, Text):
            self._mistakes.add(node.place, "a single value belongs here", f"write {sort.value}")
            return None
        readers: dict[Sort, Callable[[str], tuple[float, str]]] = {
            Sort.MONEY: _money,
            Sort.SHARE: _share,
            Sort.DURATION: _duration,
            Sort.COUNT: _count,
            Sort.HOUR: _hour,
        }
        try:
            return readers.get(sort, _number)(node.value.strip())
        except _NotAValue as error:
            self._mistakes.add(node.place, error.reason, error.mend)
        return None


class _NotAValue(Exception):
    """A text that is not what it should be."""

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(reason)
        self.reason, self.mend = reason, mend


def _decimal(text: str, sort: Sort) -> Decimal:
    if "," in text:
        mend = f"write {text.replace(',', '')} or {text.replace(',', '.')}: decimals have a point, thousands nothing"
        raise _NotAValue(f"{text!r} has a comma", mend)
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise _NotAValue(
            f"{text!r} is not {sort.value}" if text else "the value is missing", f"write {sort.value}"
        ) from None
    if not found.is_finite():
        raise _NotAValue(f"{text!r} is no number", f"write {sort.value}")
    return found


def _number(text: str) -> tuple[float, str]:
    return float(_decimal(text, Sort.NUMBER)), ""


def _count(text: str) -> tuple[float, str]:
    found = _decimal(text, Sort.COUNT)
    if found < 0 or found != found.to_integral_value():
        raise _NotAValue(f"{text!r} is no whole number", "write 0, 1, 2 and so on")
    return float(found), ""


def _hour(text: str) -> tuple[float, str]:
    found, _ = _count(text.partition(":")[0] if text.endswith(":00") else text)
    if found > 23:
        raise _NotAValue(f"{text!r} is no hour", "write 0 to 23")
    return found, ""


def _share(text: str) -> tuple[float, str]:
    found = _decimal(text.removesuffix("%").strip(), Sort.SHARE) / (100 if text.endswith("%") else 1)
    if found < 0:
        raise _NotAValue(f"{text!r} is below nothing", "write a share from 0% to 100%")
    if found > 1:
        mend = "write a share from 0% to 100%" if text.endswith("%") else f"write {text}%, or a number up to 1"
        raise _NotAValue(f"{text!r} is more than all", mend)
    return float(found), ""


def _duration(text: str) -> tuple[float, str]:
    for unit in ("min", "s", "h", "d", "w"):
        if text.endswith(unit) and text[: -len(unit)].strip():
            found = float(_decimal(text[: -len(unit)].strip(), Sort.DURATION)) * _SECONDS[unit]
            if found < 0:
                raise _NotAValue(f"{text!r} is before it began", "write a duration without a minus")
            return found, ""
    mend = f"write {text}min, {text}h or {text}d" if text.replace(".", "").isdigit() else f"write {Sort.DURATION.value}"
    raise _NotAValue(f"{text!r} is no duration", mend)


def _money(text: str) -> tuple[float, str]:
    parts = text.split()
    if len(parts) == 1 and parts[0].replace(".", "").replace(",", "").isdigit():
        raise _NotAValue(
            f"{text!r} has no currency", f"write {text} EUR, for example: amounts are compared in their own"
        )
    if len(parts) == 2 and parts[0].isalpha():
        raise _NotAValue(f"{text!r} has its currency first", f"write {parts[1]} {parts[0].upper()}")
    if len(parts) != 2 or len(parts[1]) != 3 or not parts[1].isalpha():
        raise _NotAValue(
            f"{text!r} is not {Sort.MONEY.value}", "write the amount, a blank, and three letters such as EUR"
        )
    if parts[1] != parts[1].upper():
        raise _NotAValue(f"{parts[1]!r} is not in capitals", f"write {parts[0]} {parts[1].upper()}")
    minor = _decimal(parts[0], Sort.MONEY).scaleb(exponent(parts[1]))
    if minor < 0:
        raise _NotAValue(f"{text!r} is below nothing", "write an amount without a minus")
    if minor != minor.to_integral_value():
        raise _NotAValue(f"{parts[1]} has {exponent(parts[1])} decimals, not so many", "round the amount")
    return float(minor), parts[1]


def money_of(text: str) -> tuple[float, str]:
    """Minor units and currency of an amount such as `200 EUR`.

    Raises:
        ValueError: It is none.
    """
    try:
        return _money(text)
    except _NotAValue as error:
        raise ValueError(f"{error.reason}; {error.mend}") from None


def _limits(field: Field, word: str, number: float) -> tuple[float, float]:
    """Lowest and highest value, on the field's own scale, that the comparison lets through."""
    if field.sort is Sort.COUNT:
        low = {"above": number + _HALF, "at_least": number - _HALF, "is": number - _HALF}.get(word, -math.inf)
        high = {"below": number - _HALF, "at_most": number + _HALF, "is": number + _HALF}.get(word, math.inf)
        return (
            field.scaled(low) if low > -1 else -math.inf,
            field.scaled(high) if high > -1 else -math.inf,
        )
    at = field.scaled(number)
    low = {"above": math.nextafter(at, math.inf), "at_least": at, "is": at}.get(word, -math.inf)
    high = {"below": math.nextafter(at, -math.inf), "at_most": at, "is": at}.get(word, math.inf)
    return low, high


def _within(field: Field, limits: Mapping[str, tuple[float, float]]) -> Within:
    return Within(field.feature or field.name, limits, field.role)


def _shared(role: str, wanted: bool) -> Condition:
    """Whether another account used an entity: two did, or one did that is not the payer."""
    known = fields()
    accounts, met = known[f"{role}.accounts.30d"], known[f"{role}.met_account"]
    two = _within(accounts, {"": _limits(accounts, "at_least", 2)})
    one = _within(accounts, {"": _limits(accounts, "at_least", 1)})
    never = _within(met, {"": _limits(met, "at_most", 0)})
    shared = AnyOf((two, AllOf((one, never))))
    return shared if wanted else Not(shared)
