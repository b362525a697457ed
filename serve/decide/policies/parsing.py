"""A policy file: read, checked, and every mistake told with its line, its column and the way to mend it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from serve.decide.decision import Action
from serve.decide.policies.conditions import Conditions
from serve.decide.policies.fields import COLUMNS, Sort
from serve.decide.policies.model import ACTIONS, AllOf, Condition, PolicyFile, ReviewLimit, Rule, Thresholds
from serve.decide.policies.money import SECTIONS, Money
from serve.decide.policies.reading import Items, Keys, Mistake, Mistakes, Node, Place, PolicyError, Text, like, read

KEYS: Final = ("policy", "note", "zone", "challenge", "lists", "rules", "otherwise", "reviews", *SECTIONS)
RULE_KEYS: Final = ("id", "when", "then", "at_least", "message")
STEPS: Final = ("challenge", "review", "decline")
MOST_RULES: Final = 1_000
_ID: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_CHALLENGES: Final[Mapping[str, Action]] = {"3ds": "step_up_3ds", "biometrics": "step_up_biometrics"}


def parse(text: str, file: str = "policy") -> PolicyFile:
    """Read a policy.

    Args:
        text: YAML, see `docs/policy.md`.
        file: Its name, for people.

    Raises:
        PolicyError: Something is wrong with it; all of it is told at once.

    Example:
        >>> policy = parse('''
        ... policy: small
        ... rules:
        ...   - id: large-and-new
        ...     when: {amount: {above: 500 EUR}, device.new: true}
        ...     then: review
        ... otherwise:
        ...   probability: {challenge: 5%, review: 20%, decline: 60%}
        ... ''')
        >>> policy.rules[0].then
        'review'
    """
    root, mistakes = read(text, file), Mistakes()
    found = _Parser(root, mistakes).policy(text)
    mistakes.raise_any(file)
    return found


def load(path: Path) -> PolicyFile:
    """Read a policy from a file.

    Raises:
        PolicyError: Something is wrong with it.
        FileNotFoundError: There is none.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        mistake = Mistake(Place(line, column), "this is not UTF-8", "save the file as UTF-8")
        raise PolicyError([mistake], str(path)) from None


class _Parser:
    """Reads the parts of one policy."""

    def __init__(self, root: Keys, mistakes: Mistakes) -> None:
        self._root, self._mistakes = root, mistakes
        self._lists: dict[str, tuple[str, frozenset[str]]] = {}
        self._challenge: Action = "step_up_3ds"

    def policy(self, text: str) -> PolicyFile:
        root = self._root
        self._known(root, KEYS)
        name = self._id(root, "policy", "the policy")
        self._challenge = self._challenge_of(root)
        zone = self._zone(root)
        self._read_lists(root)
        self._conditions = Conditions(self._lists, self._mistakes)
        rules = self._rules(root)
        self._refuse_unused(root)
        probability, loss = self._otherwise(root)
        note = self._text(root, "note") or ""
        money = Money(self._conditions, self._mistakes).read(root, decides=not loss)
        reviews = self._reviews(root)
        return PolicyFile(name, text, zone, rules, probability, loss, self._challenge, reviews, note, money)

    def _known(self, node: Keys, known: Sequence[str]) -> None:
        for name, place in node.places.items():
            if name not in known:
                self._mistakes.add(place, f"there is no key {name!r} here", like(name, known))

    def _text(self, node: Keys, name: str) -> str | None:
        value = node.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Text) or not value.value.strip():
            self._mistakes.add(value.place, f"{name} is one text", f"write '{name}: TEXT'")
            return None
        return value.value

    def _missing(self, node: Keys, name: str, mend: str) -> None:
        self._mistakes.add(node.place, f"{name!r} is missing", mend)

    def _id(self, node: Keys, name: str, what: str) -> str:
        found = self._text(node, name)
        if name not in node.values:
            self._missing(node, name, f"give {what} a name: '{name}: NAME'")
        elif found is not None and not _ID.fullmatch(found):
            mend = "use small letters, digits, '-', '_' and '.', at most 64, a letter or digit first"
            guess = re.sub(r"[^a-z0-9_.-]+", "-", found.lower()).strip("-_.")[:64]
            reason = f"{found!r} cannot be a name"
            self._mistakes.add(node.values[name].place, reason, mend + (f": {guess}" if guess else ""))
        return found or ""

    def _challenge_of(self, root: Keys) -> Action:
        found = self._text(root, "challenge")
        if found is not None and found not in _CHALLENGES:
            reason = f"there is no challenge {found!r}"
            self._mistakes.add(root.values["challenge"].place, reason, like(found, list(_CHALLENGES)))
        return _CHALLENGES.get(found or "3ds", "step_up_3ds")

    def _zone(self, root: Keys) -> ZoneInfo:
        found = self._text(root, "zone") or "UTC"
        known = available_timezones()
        if found in known:
            return ZoneInfo(found)
        near = like(found, sorted(known), 0)
        mend = near if near.startswith("did") else "write a name such as Europe/Berlin or UTC"
        self._mistakes.add(root.values["zone"].place, f"there is no time zone {found!r}", mend)
        return ZoneInfo("UTC")

    def _read_lists(self, root: Keys) -> None:
        node = root.values.get("lists")
        if node is None:
            return
        if not isinstance(node, Keys):
            self._mistakes.add(node.place, "lists have names", "write 'NAME: {of: merchant, values: [...]}' for each")
            return
        for name, one in node.values.items():
            if not isinstance(one, Keys):
                mend = f"write '{name}: {{of: merchant, values: [...]}}'"
                self._mistakes.add(one.place, f"it is not said what {name!r} is a list of", mend)
                continue
            self._known(one, ("of", "values"))
            of, values = self._text(one, "of"), one.values.get("values")
            if of is None or of not in COLUMNS:
                mend = like(of or "", list(COLUMNS))
                self._mistakes.add(
                    one.values["of"].place if "of" in one.values else one.place,
                    f"{of or 'nothing'!r} cannot be listed",
                    mend,
                )
            self._lists[name] = of or "", self._values(one, name, values)

    def _values(self, one: Keys, name: str, values: Node | None) -> frozenset[str]:
        if values is None:
            self._missing(one, "values", "write 'values: [...]'")
            return frozenset()
        if not isinstance(values, Items) or not values.items:
            self._mistakes.add(values.place, f"the list {name!r} is empty", "name what is in it, or leave the list out")
            return frozenset()
        found: dict[str, Place] = {}
        for item in values.items:
            if not isinstance(item, Text) or not item.value.strip():
                self._mistakes.add(item.place, "a text is missing here", "write one")
            elif item.value in found:
                mend = f"keep one of them (the first is at line {found[item.value].line})"
                self._mistakes.add(item.place, f"{item.value!r} is listed twice", mend)
            else:
                found[item.value] = item.place
        return frozenset(found)

    def _refuse_unused(self, root: Keys) -> None:
        lists = root.values.get("lists")
        for name in self._lists:
            if name not in self._conditions.used and isinstance(lists, Keys):
                mend = f"use it as '{{in: {name}}}' in a rule, or leave it out"
                self._mistakes.add(lists.places[name], f"no rule uses the list {name!r}", mend)

    def _rules(self, root: Keys) -> tuple[Rule, ...]:
        node = root.values.get("rules")
        if node is None:
            return ()
        if not isinstance(node, Items):
            self._mistakes.add(node.place, "rules are a list", "write each as '- id: NAME' with its parts below")
            return ()
        if len(node.items) > MOST_RULES:
            self._mistakes.add(node.place, f"there are {len(node.items):,} rules", f"keep them to {MOST_RULES:,}")
        found: list[Rule] = []
        first: dict[str, Place] = {}
        decided: dict[Condition, str] = {}  # conditions that rules before decide, by rule
        for item in node.items:
            if not isinstance(item, Keys):
                self._mistakes.add(item.place, "this is no rule", "write '- id: NAME', then 'when:' and 'then:' below")
                continue
            rule = self._rule(item)
            if rule.id in first:
                mend = f"give each rule its own id (the first is at line {first[rule.id].line})"
                self._mistakes.add(item.values["id"].place, f"the id {rule.id!r} is used twice", mend)
            if rule.id:
                first.setdefault(rule.id, item.values["id"].place)
            if not self._mistakes.found:  # conditions that could not be read may look alike
                self._refuse_unreachable(item, rule, decided)
            if rule.then is not None:
                decided.setdefault(rule.when, rule.id)
            found.append(rule)
        return tuple(found)

    def _refuse_unreachable(self, item: Keys, rule: Rule, decided: Mapping[Condition, str]) -> None:
        always = AllOf(())
        if always in decided:
            reason = f"{rule.id!r} is never reached: {decided[always]!r} decides every payment before it"
            self._mistakes.add(item.place, reason, f"move it above {decided[always]!r}, or leave it out")
        elif rule.when in decided:
            reason = f"{rule.id!r} is never reached: {decided[rule.when]!r} has the same condition"
            self._mistakes.add(item.place, reason, "change one of them, or leave this one out")

    def _rule(self, node: Keys) -> Rule:
        self._known(node, RULE_KEYS)
        name = self._id(node, "id", "the rule")
        if "when" in node.values:
            when = self._conditions.read(node.values["when"])
        else:
            when = AllOf(())
            self._missing(node, "when", "write 'when: FIELD: VALUE', or 'when: always'")
        then, floor = self._action(node, "then"), self._action(node, "at_least")
        if "then" in node.values and "at_least" in node.values:
            reason = "a rule either decides ('then') or sets a floor ('at_least')"
            self._mistakes.add(node.places["at_least"], reason, "leave one of them out, or make two rules")
        if "then" not in node.values and "at_least" not in node.values:
            self._missing(node, "then", f"write 'then:' or 'at_least:' with one of {', '.join(self._words())}")
        if floor == "approve":
            mend = "write 'then: approve', or a stricter floor"
            self._mistakes.add(node.values["at_least"].place, "at least approve is no floor: everything is", mend)
        message = self._text(node, "message") or name.replace("-", " ").replace("_", " ")
        if len(message) > 200:
            place = node.values["message"].place
            self._mistakes.add(place, f"the message has {len(message)} characters", "keep it to 200: it is in answers")
        return Rule(name, when, then, floor, message)

    def _words(self) -> list[str]:
        return ["approve", "challenge", *ACTIONS[1:]]

    def _action(self, node: Keys, name: str) -> Action | None:
        found = self._text(node, name)
        if found is None:
            return None
        if found == "challenge":
            return self._challenge
        for action in ACTIONS:
            if action == found:
                return action
        usual = {"block": "decline", "reject": "decline", "deny": "decline", "allow": "approve", "accept": "approve"}
        mend = f"did you mean {usual[found]!r}?" if found in usual else like(found, self._words())
        self._mistakes.add(node.values[name].place, f"there is no action {found!r}", mend)
        return None

    def _otherwise(self, root: Keys) -> tuple[Thresholds, Mapping[str, Thresholds]]:
        node, shown = root.values.get("otherwise"), "probability: {challenge: 5%, review: 20%, decline: 60%}"
        none = Thresholds(1.0, 1.0, 1.0)
        if not isinstance(node, Keys):
            place = root.place if node is None else node.place
            reason = "it is not said what becomes of payments that no rule decides"
            self._mistakes.add(place, reason, f"write 'otherwise: {{{shown}}}'")
            return none, {}
        self._known(node, ("probability", "loss"))
        if "probability" not in node.values:
            self._missing(node, "probability", f"write '{shown}': it decides where nothing else can")
            return none, {}
        probability = self._thresholds(node.values["probability"], Sort.SHARE)
        loss: dict[str, Thresholds] = {}
        given = node.values.get("loss")
        for one in given.items if isinstance(given, Items) else () if given is None else (given,):
            for currency, thresholds in self._thresholds(one, Sort.MONEY).items():
                if currency in loss:
                    self._mistakes.add(one.place, f"{currency} is here twice", "give thresholds once for each currency")
                loss[currency] = thresholds
        return probability.get("", none), loss

    def _thresholds(self, node: Node, sort: Sort) -> dict[str, Thresholds]:
        """Thresholds by currency, "" for those without one."""
        shown = (
            "{challenge: 5%, review: 20%, decline: 60%}" if sort is Sort.SHARE else "{challenge: 2 EUR, review: ...}"
        )
        if not isinstance(node, Keys):
            self._mistakes.add(node.place, "thresholds have names", f"write {shown}")
            return {}
        self._known(node, STEPS)
        values: list[float] = []
        currencies: list[str] = []
        for step in STEPS:
            if step not in node.values:
                self._missing(node, step, f"write all three: {shown}")
                continue
            value = self._conditions.value(sort, node.values[step])
            if value is None:
                continue
            place = node.values[step].place
            if values and value[0] < values[-1]:
                reason = f"thresholds must rise: {step} is below the one before it"
                self._mistakes.add(place, reason, "order them challenge <= review <= decline")
            if currencies and value[1] != currencies[-1]:
                self._mistakes.add(place, f"{value[1]} after {currencies[-1]}", "give all three in one currency")
            values.append(value[0])
            currencies.append(value[1])
        return {currencies[0]: Thresholds(*values)} if len(values) == len(STEPS) else {}

    def _reviews(self, root: Keys) -> ReviewLimit | None:
        node = root.values.get("reviews")
        if node is None:
            return None
        shown = "{at_most: 200, per: day, then: challenge}"
        if not isinstance(node, Keys):
            self._mistakes.add(node.place, "a limit of reviews has parts", f"write {shown}")
            return None
        self._known(node, ("at_most", "per", "then"))
        per = self._text(node, "per")
        if per is not None and per != "day":
            self._mistakes.add(node.values["per"].place, f"reviews are not counted per {per}", "write 'per: day'")
        then = self._action(node, "then") if "then" in node.values else self._challenge
        if then == "review":
            mend = "write what is done with payments beyond the limit: challenge, for example"
            self._mistakes.add(node.values["then"].place, "a review beyond the limit cannot be a review", mend)
        most = node.values.get("at_most")
        if most is None:
            self._missing(node, "at_most", f"write {shown}")
            return None
        share = isinstance(most, Text) and most.value.strip().endswith("%")
        value = self._conditions.value(Sort.SHARE if share else Sort.COUNT, most)
        if value is None or then is None:
            return None
        return ReviewLimit(None if share else int(value[0]), value[0] if share else None, then)
