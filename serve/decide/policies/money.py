"""The sections `costs`, `pricing` and `routing` of a policy file."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar

from serve.decide.costs import Costs, CostsError
from serve.decide.policies.conditions import Conditions
from serve.decide.policies.economics import Economics
from serve.decide.policies.fields import Sort
from serve.decide.policies.reading import Items, Keys, Mistakes, Node, Text, like
from serve.decide.pricing import Pricing
from serve.decide.routing import Rail, Router

SECTIONS: Final = ("costs", "pricing", "routing")
_SUMS: Final = ("chargeback_fee", "review_cost", "step_up_3ds_fee", "step_up_biometrics_fee", "least_value")
_PLAIN: Final = ("value_months", "challenge_weight")
_COSTS: Final[Mapping[str, Sort]] = {
    f.name: Sort.MONEY if f.name in _SUMS else Sort.NUMBER if f.name in _PLAIN else Sort.SHARE
    for f in fields(Costs)
    if f.name not in ("currency", "rates")
} | {"review_price": Sort.MONEY}
_PRICING: Final = dict.fromkeys(("base_bps", "loading", "floor_bps", "cap_bps"), Sort.NUMBER)
_ROUTING: Final = {"explore": Sort.SHARE, "most_given_up": Sort.SHARE}
_RAIL: Final = {
    "fee": Sort.MONEY,
    "fee_bps": Sort.NUMBER,
    "success": Sort.SHARE,
    "liability": Sort.SHARE,
    "most": Sort.MONEY,
}
_MODES: Final = ("table", "learn")
Made = TypeVar("Made")


class Money:
    """Reads them.

    Args:
        conditions: Read values.
        mistakes: Told of what is wrong.
    """

    def __init__(self, conditions: Conditions, mistakes: Mistakes) -> None:
        self._conditions, self._mistakes = conditions, mistakes
        self._currency = Costs().currency

    def read(self, root: Keys, decides: bool) -> Economics | None:
        """What a policy says of money; None where it says nothing.

        Args:
            root: The policy.
            decides: Whether nothing else decides payments without a rule.
        """
        if not any(name in root.values for name in SECTIONS):
            return None
        costs, price = self._costs(root)
        pricing = None
        if (node := self._section(root, "pricing")) is not None:
            self._known(node, tuple(_PRICING))
            pricing = self._make(node, Pricing, self._values(node, _PRICING))
        return Economics(costs, price, decides and "costs" in root.values, pricing, self._router(root))

    def _section(self, root: Keys, name: str) -> Keys | None:
        node = root.values.get(name)
        if node is None or isinstance(node, Keys):
            return node
        if not (isinstance(node, Text) and not node.value):  # `costs:` alone takes all defaults
            self._mistakes.add(node.place, f"{name} has parts", f"write '{name}:' with a 'key: value' for each below")
        return Keys(node.place, {}, {})

    def _costs(self, root: Keys) -> tuple[Costs, float]:
        node = self._section(root, "costs")
        if node is None:
            return Costs(), 0.0
        self._known(node, ("currency", "rates", *_COSTS))
        values: dict[str, Any] = {}
        given = node.values.get("currency")
        if isinstance(given, Text):
            values["currency"] = self._currency = given.value
        elif given is not None:
            self._mistakes.add(given.place, "currency is one text", "write 'currency: EUR'")
        rates = node.values.get("rates")
        if isinstance(rates, Keys):
            read = {code: self._conditions.value(Sort.NUMBER, one) for code, one in rates.values.items()}
            values["rates"] = {code: found[0] for code, found in read.items() if found is not None}
        elif rates is not None:
            mend = f"write 'rates: {{USD: 0.92}}': what one USD is worth in {self._currency}"
            self._mistakes.add(rates.place, "rates have currencies", mend)
        values |= self._values(node, _COSTS)
        price = values.pop("review_price", 0.0)
        return self._make(node, Costs, values) or Costs(), price

    def _router(self, root: Keys) -> Router | None:
        node = self._section(root, "routing")
        if node is None:
            return None
        self._known(node, ("mode", "rails", *_ROUTING))
        values: dict[str, Any] = self._values(node, _ROUTING)
        mode = node.values.get("mode")
        if mode is not None:
            values["mode"] = mode.value if isinstance(mode, Text) else ""
            if values["mode"] not in _MODES:
                self._mistakes.add(mode.place, f"there is no mode {values['mode']!r}", like(values["mode"], _MODES))
        rails = node.values.get("rails")
        if not isinstance(rails, Items) or not rails.items:
            place = node.place if rails is None else rails.place
            mend = "write 'rails:' and below '- {name: card, fee: 0.05 EUR, success: 95%}' for each"
            self._mistakes.add(place, "it is not said which rails there are", mend)
            return None
        read = [self._rail(one) for one in rails.items]
        values["rails"] = tuple(rail for rail in read if rail is not None)
        return self._make(node, Router, values) if all(rail is not None for rail in read) else None

    def _rail(self, node: Node) -> Rail | None:
        name = node.values.get("name") if isinstance(node, Keys) else None
        if not isinstance(node, Keys) or not isinstance(name, Text) or not name.value:
            mend = "write '{name: card, fee: 0.05 EUR, success: 95%}'"
            self._mistakes.add(node.place, "a rail without a name", mend)
            return None
        self._known(node, ("name", "currencies", *_RAIL))
        values: dict[str, Any] = {"name": name.value, **self._values(node, _RAIL)}
        given = node.values.get("currencies")
        if isinstance(given, Items):
            values["currencies"] = frozenset(one.value for one in given.items if isinstance(one, Text))
        elif given is not None:
            self._mistakes.add(given.place, "currencies are a list", "write 'currencies: [EUR, USD]'")
        return self._make(node, Rail, values)

    def _known(self, node: Keys, known: tuple[str, ...]) -> None:
        for name, place in node.places.items():
            if name not in known:
                self._mistakes.add(place, f"there is no key {name!r} here", like(name, known))

    def _values(self, node: Keys, sorts: Mapping[str, Sort]) -> dict[str, float]:
        found = {}
        for name, sort in sorts.items():
            if name not in node.values:
                continue
            value = self._conditions.value(sort, node.values[name])
            if value is None:
                continue
            if sort is Sort.MONEY and value[1] != self._currency:
                reason = f"{name} is in {value[1] or 'no currency'}, and the costs are in {self._currency}"
                mend = f"give it in {self._currency}, or set 'currency: {value[1] or 'USD'}' in costs"
                self._mistakes.add(node.values[name].place, reason, mend)
                continue
            found[name] = value[0]
        return found

    def _make(self, node: Keys, kind: Callable[..., Made], values: Mapping[str, Any]) -> Made | None:
        """A part of its values; what it refuses is told where that stands."""
        try:
            return kind(**values)
        except CostsError as error:
            name = error.field.partition(".")[0]
            place = node.values[name].place if name in node.values else node.place
            reason, _, mend = str(error).partition(": ")
            self._mistakes.add(place, reason, mend)
            return None
