"""A policy as it decides: all comparisons of all rules at once, then the rules, then what decides otherwise.

A condition is yes (1), no (-1) or unknown (0). `all` is the least of its parts, `any` the greatest and `not` the
opposite (Kleene's logic of three values), so that a rule never applies because something is not known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serve.decide.decision import Action, Decided, RuleHit, Situation
from serve.decide.policies.fields import fields
from serve.decide.policies.model import ACTIONS, DECISION_OF, AllOf, Among, AnyOf, Condition, Not, PolicyFile, Within
from serve.decide.policies.table import amounts, numbers, texts

_RANK = {action: i for i, action in enumerate(ACTIONS)}
_TRUE = Within("", {"": (1.0, 1.0)})  # of the column of ones
Ref = tuple[int, int]  # column of the states, and 1, or -1 for its opposite


@dataclass(frozen=True)
class _Group:
    """Conditions joined at one level: each is the least of its parts, with signs for `any` and `not`.

    Attributes:
        parts: Columns of the states that are joined, one condition after the other.
        signs: 1, or -1 for the opposite, of each.
        starts: Where each condition begins among them.
        out: Columns that the conditions' own states take.
    """

    parts: NDArray[np.int64]
    signs: NDArray[np.int8]
    starts: NDArray[np.int64]
    out: slice


class CompiledPolicy:
    """A policy that decides payments. It keeps nothing of them: any thread may ask.

    Args:
        file: The policy.

    Attributes:
        file: The policy.
        version: Named in every answer.
    """

    def __init__(self, file: PolicyFile) -> None:
        self.file, self.version = file, file.version
        self._numbers: dict[str, int] = {"": 0}  # columns of numbers by name; the first is always known
        self._within: list[Within] = []
        self._among: list[Among] = []
        self._leaves: dict[Within | Among, int] = {}
        self._collect()
        self._states = len(self._leaves)
        self._levels: list[list[tuple[list[Ref], int]]] = []
        roots = [self._place(rule.when)[0] for rule in file.rules]
        self._groups = self._grouped()
        final = self._renumbered
        self._roots = np.array([final.get(column, column) for column, _ in roots], np.int64)
        self._root_signs = np.array([sign for _, sign in roots], np.int8)
        self._limit_tables()
        self._hits = [RuleHit(rule.id, rule.message) for rule in file.rules]
        self._plain = {action: Decided(DECISION_OF[action], action, self.version) for action in ACTIONS}
        self._economics = file.economics
        if self._economics is not None and self._economics.router is not None:  # a new policy draws routes anew
            router = replace(self._economics.router, version=self.version)
            self._economics = replace(self._economics, router=router)
        p = file.probability
        self._steps = np.array([p.challenge, p.review, p.decline])
        self._otherwise: tuple[Action, ...] = ("approve", file.challenge, "review", "decline")

    def decide(self, situation: Situation) -> list[Decided]:
        """Decide payments, [n]; the limit of reviews is not looked at (see `serve.decide.policies.reviews`)."""
        money = self._economics
        if money is None:
            return self._decided(situation, self._base(situation))
        known = money.known(situation)
        base = money.actions(known) if money.decides else self._base(situation)
        return money.fill(situation, known, self._decided(situation, base))

    def _decided(self, situation: Situation, base: Sequence[Action]) -> list[Decided]:
        """The rules' decisions, and elsewhere the base's."""
        applied = self.applied(situation)
        if not applied.size or not applied.any():
            return [self._plain[action] for action in base]
        touched = set(np.flatnonzero(applied.any(axis=1)).tolist())
        return [self._ruled(applied[i], one) if i in touched else self._plain[one] for i, one in enumerate(base)]

    def at_once(self, probability: float) -> Decided:
        """Decide a payment of which nothing else is known, at next to no cost."""
        return self._plain[self._otherwise[int((probability >= self._steps).sum())]]

    def beyond_reviews(self, decided: Decided) -> Decided:
        """What becomes of a review for which there is no place any more."""
        limit = self.file.reviews
        action: Action = "step_up_3ds" if limit is None else limit.then
        hit = RuleHit("reviews", "the limit of reviews is reached")
        rules = (*decided.rules, hit)
        if action == "decline":
            return Decided("decline", action, self.version, rules, decided.expected_loss)
        return replace(decided, decision=DECISION_OF[action], action=action, rules=rules)

    def applied(self, situation: Situation) -> NDArray[np.bool_]:
        """Which rules' conditions hold, bool [n, rules], whatever rules come before them."""
        n = len(situation.offsets)
        if not self.file.rules:
            return np.zeros((n, 0), np.bool_)
        states = np.empty((n, self._states), np.int8)
        if self._within:
            states[:, : len(self._within)] = self._compare(situation)
        columns: dict[str, list[str | None]] = {}
        for at, leaf in enumerate(self._among, len(self._within)):
            values = columns.get(leaf.column)
            if values is None:
                values = columns[leaf.column] = texts(leaf.column, situation)
            states[:, at] = _among(leaf, values)
        for group in self._groups:
            signed = states[:, group.parts] * group.signs
            states[:, group.out] = np.minimum.reduceat(signed, group.starts, axis=1)
        holds: NDArray[np.bool_] = states[:, self._roots] * self._root_signs > 0
        return holds

    def _compare(self, situation: Situation) -> NDArray[np.int8]:
        """States of all comparisons of numbers, int8 [n, C]."""
        table = self._table(situation)
        values = table[:, self._columns]
        if self._any_role:
            given = table[:, self._given]
            values = np.where(given > 0, values, np.nan)
        low, high = self._low, self._high
        if len(self._currencies) > 1:
            codes = [self._currencies.get(c, 0) for c in situation.payments.column("currency").to_pylist()]
            low, high = low[codes], high[codes]
        unknown = np.isnan(values) | np.isnan(low)
        states = np.where((values >= low) & (values <= high), np.int8(1), np.int8(-1))
        states[unknown] = 0
        return states

    def _table(self, situation: Situation) -> NDArray[np.float64]:
        table = np.empty((len(situation.offsets), len(self._numbers)))
        table[:, 0] = 1.0
        features = situation.features() if self._needs_features and situation.features is not None else {}
        for name, at in self._numbers.items():
            if at and name in features:
                table[:, at] = features[name]
            elif at:
                table[:, at] = numbers(name, situation, self.file.zone)
        return table

    def _base(self, situation: Situation) -> Sequence[Action]:
        """What is done where no rule decides, [n]."""
        steps = self._steps
        if not self.file.loss:
            found = np.searchsorted(steps, situation.probability, side="right")
            return [self._otherwise[at] for at in found.tolist()]
        losses = situation.probability * amounts(situation)
        actions = []
        currencies = situation.payments.column("currency").to_pylist()
        for probability, loss, currency in zip(
            situation.probability.tolist(), losses.tolist(), currencies, strict=True
        ):
            t = self.file.loss.get(currency)
            number, limits = (probability, self.file.probability) if t is None else (loss, t)
            reached = (number >= limits.challenge) + (number >= limits.review) + (number >= limits.decline)
            actions.append(self._otherwise[reached])
        return actions

    def _ruled(self, applied: NDArray[np.bool_], action: Action) -> Decided:
        """The decision of a payment to which rules apply, bool [rules]."""
        floors: list[int] = []
        deciding: int | None = None
        for at in np.flatnonzero(applied).tolist():
            if self.file.rules[at].then is not None:
                deciding = at
                break
            floors.append(at)
        first: int | None = deciding
        if deciding is not None:
            action = self.file.rules[deciding].then or action
        for at in floors:
            floor = self.file.rules[at].at_least or "approve"
            if _RANK[floor] > _RANK[action]:
                action, first = floor, at
        order = sorted([*floors, *([] if deciding is None else [deciding])], key=lambda at: (at != first, at))
        return Decided(DECISION_OF[action], action, self.version, tuple(self._hits[at] for at in order))

    def _collect(self) -> None:
        """Number the comparisons: of numbers first, then of texts."""
        found: list[Within | Among] = list(
            dict.fromkeys(leaf for rule in self.file.rules for leaf in _leaves(rule.when))
        )
        self._within = [leaf for leaf in found if isinstance(leaf, Within)]
        self._among = [leaf for leaf in found if isinstance(leaf, Among)]
        ordered: list[Within | Among] = [*self._within, *self._among]
        self._leaves = {leaf: i for i, leaf in enumerate(ordered)}

    def _place(self, condition: Condition) -> tuple[Ref, int]:
        """Where the state of a condition will be, and on which level it is known."""
        if isinstance(condition, Within | Among):
            return (self._leaves[condition], 1), 0
        if isinstance(condition, Not):
            (column, sign), level = self._place(condition.part)
            return (column, -sign), level
        if not condition.parts:
            return (self._leaves[_TRUE], 1 if isinstance(condition, AllOf) else -1), 0
        placed = [self._place(part) for part in condition.parts]
        if len(placed) == 1:
            return placed[0]
        sign = 1 if isinstance(condition, AllOf) else -1
        parts = [(column, sign * own) for (column, own), _ in placed]
        level = max((level for _, level in placed), default=0) + 1
        while len(self._levels) < level:
            self._levels.append([])
        name = -1 - sum(len(one) for one in self._levels)  # until all are known
        self._levels[level - 1].append((parts, name))
        return (name, sign), level

    def _grouped(self) -> list[_Group]:
        """Groups in the order in which their parts become known."""
        self._renumbered: dict[int, int] = {}
        groups = []
        for level in self._levels:
            first = self._states
            parts: list[int] = []
            signs: list[int] = []
            starts: list[int] = []
            for refs, name in level:
                starts.append(len(parts))
                for column, sign in refs:
                    parts.append(self._renumbered.get(column, column))
                    signs.append(sign)
                self._renumbered[name] = self._states
                self._states += 1
            groups.append(
                _Group(
                    np.array(parts, np.int64),
                    np.array(signs, np.int8),
                    np.array(starts, np.int64),
                    slice(first, self._states),
                )
            )
        return groups

    def _limit_tables(self) -> None:
        """Limits as arrays: [C], or [currencies, C] where amounts are compared."""
        currencies = sorted({code for leaf in self._within for code in leaf.limits} - {""})
        self._currencies = {"": 0, **{code: i for i, code in enumerate(currencies, 1)}}
        columns, given = [], []
        for leaf in self._within:
            columns.append(self._numbers.setdefault(leaf.column, len(self._numbers)))
            role = "" if leaf.role is None else f"{leaf.role}.present"
            given.append(self._numbers.setdefault(role, len(self._numbers)))
        self._columns, self._given = np.array(columns, np.int64), np.array(given, np.int64)
        self._any_role = bool(self._given.any())
        none = (np.nan, np.nan)
        limits = np.array(
            [[leaf.limits.get(code, leaf.limits.get("", none)) for leaf in self._within] for code in self._currencies]
        ).reshape(len(self._currencies), len(self._within), 2)
        self._low, self._high = limits[..., 0], limits[..., 1]
        of_graph = {field.feature for field in fields().values()}
        self._needs_features = not of_graph.isdisjoint(self._numbers)


def _among(leaf: Among, values: Sequence[str | None]) -> list[int]:
    """States of a comparison of texts, [n]."""
    if leaf.prefix:
        beginnings = tuple(leaf.values)
        return [0 if v is None else 1 if v.startswith(beginnings) else -1 for v in values]
    among = leaf.values
    return [0 if v is None else 1 if v in among else -1 for v in values]


def _leaves(condition: Condition) -> Iterator[Within | Among]:
    if isinstance(condition, AllOf | AnyOf):
        for part in condition.parts:
            yield from _leaves(part)
        if not condition.parts:
            yield _TRUE
    elif isinstance(condition, Not):
        yield from _leaves(condition.part)
    else:
        yield condition
