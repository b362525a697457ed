"""What the conditions of a policy can be about, by the names that people write.

The graph's features keep counts, seconds and minor units as logarithms (`graph.dag.features`). A condition is turned
into that scale once, when the policy is read: a payment is compared with the feature as it is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final

import numpy as np

from data.schema import ROLES
from graph.dag.features import BANDS, NEVER_S, WINDOW_NAMES, counterparts
from graph.rings.records import RingState


class Sort(Enum):
    """What a field is compared with."""

    MONEY = "an amount with its currency, such as 200 EUR"
    SHARE = "a share, such as 5% or 0.05"
    COUNT = "a whole number"
    NUMBER = "a number"
    DURATION = "a duration, such as 90s, 30min, 12h or 7d"
    TEXT = "text, or a list of texts"
    FLAG = "true or false"
    HOUR = "an hour from 0 to 23"
    WEEKDAY = "days such as mon or [sat, sun]"
    STATE = "a state of a ring: " + ", ".join(s.value for s in RingState if s is not RingState.ENDED)


@dataclass(frozen=True, slots=True)
class Field:
    """Something that a condition can be about.

    Attributes:
        name: As people write it.
        sort: What it is compared with.
        meaning: For people.
        feature: Of the graph, where it is one.
        role: Whose feature; without that entity in the payment it is unknown.
        scale: Of the feature: `log1p` or `log` of what people write, or `plain`.
    """

    name: str
    sort: Sort
    meaning: str
    feature: str | None = None
    role: str | None = None
    scale: str = "log1p"

    def scaled(self, value: float) -> float:
        """What people write, on the scale of the column that it is compared with, as exact as that column is."""
        if self.feature is None or self.scale == "plain":
            return value
        if self.scale == "log":
            return float(np.float32(math.log(value))) if value > 0 else -math.inf
        return float(np.float32(math.log1p(value)))


PLURAL: Final = {r.name: f"{r.name}s" for r in ROLES}
NEW_FROM: Final = math.log1p(NEVER_S / 2)  # gaps from here on are of an entity that was never seen before
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
COLUMNS: Final[Mapping[str, str]] = {
    **{r.name: r.column for r in ROLES},
    **{name: name for name in ("country", "currency", "channel", "mcc")},
    "mandate": "mandate_id",
}
"""Fields that are columns of the payment."""


@cache
def fields() -> dict[str, Field]:
    """All fields by name, those of the payment first."""
    found = [
        Field("probability", Sort.SHARE, "calibrated probability of fraud"),
        Field("amount", Sort.MONEY, "what is paid; unknown in a currency that the condition does not name"),
        Field("loss", Sort.MONEY, "probability x amount"),
        *(Field(name, Sort.TEXT, f"{column} of the payment") for name, column in COLUMNS.items()),
        Field("hour", Sort.HOUR, "hour of the payment's time, in the policy's zone"),
        Field("weekday", Sort.WEEKDAY, "day of the payment's time, in the policy's zone"),
        Field("ring", Sort.FLAG, "whether the payment stands in a fraud ring"),
        Field("ring.confidence", Sort.SHARE, "probability that it is a ring"),
        Field("ring.size", Sort.COUNT, "accounts in the ring"),
        Field("ring.state", Sort.STATE, "state of the ring"),
        Field("mandate.within", Sort.FLAG, "whether the payment keeps to its mandate"),
        *(Field(f"{r.name}.given", Sort.FLAG, f"whether the payment names a {r.name}") for r in ROLES),
        Field("mandate.given", Sort.FLAG, "whether the payment names a mandate"),
        Field(
            "ties.accounts", Sort.COUNT, "accounts tied to the payer by rare shared devices and cards", "ring.accounts"
        ),
        Field("ties.frauds", Sort.COUNT, "known frauds of these", "ring.frauds"),
    ]
    pairs = counterparts([r.name for r in ROLES])
    for number, r in enumerate(ROLES):
        found += _of_role(r.name, [ROLES[c].name for c in pairs[number] if c >= 0])
    return {field.name: field for field in found}


def _of_role(role: str, others: list[str]) -> list[Field]:
    """The features of one role; `others` are the roles that it is counted against."""

    def of(name: str, sort: Sort, meaning: str, feature: str, scale: str = "log1p") -> Field:
        return Field(f"{role}.{name}", sort, meaning, f"{role}.{feature}", role, scale)

    found = [
        of("new", Sort.FLAG, f"whether the {role} was never seen before", "gap"),
        of("gap", Sort.DURATION, f"time since the {role}'s last payment", "gap"),
        of("age", Sort.DURATION, f"time since the {role}'s first payment in sight", "age"),
        of("fraud_age", Sort.DURATION, f"time since the {role}'s newest known fraud", "fraud_newest"),
        of(
            "last_was_fraud", Sort.FLAG, f"whether the {role}'s newest settled payment was fraud", "fraud_last", "plain"
        ),
        of("settled", Sort.COUNT, f"the {role}'s payments of which it is known what they were", "settled"),
        of("times_usual", Sort.NUMBER, f"amount as a multiple of the {role}'s mean of 30 days", "amount_ratio", "log"),
    ]
    for band in range(BANDS):
        meaning = f"share of fraud among the {role}'s payments settled {band} to {band + 1} weeks"
        found.append(of(f"fraud_share.{band}", Sort.SHARE, meaning, f"fraud_share_{band}", "plain"))
    for window in WINDOW_NAMES:
        found += [
            of(f"payments.{window}", Sort.COUNT, f"the {role}'s payments of {window}", f"count.{window}"),
            of(f"spent.{window}", Sort.MONEY, f"sum of the {role}'s amounts of {window}", f"amount.{window}"),
            of(f"frauds.{window}", Sort.COUNT, f"the {role}'s known frauds of {window}", f"fraud.{window}"),
        ]
        for other in others:
            meaning = f"different {PLURAL[other]} of the {role} in {window}"
            found.append(of(f"{PLURAL[other]}.{window}", Sort.COUNT, meaning, f"distinct_{other}.{window}"))
    for other in others:
        meaning = f"payments of the {role} with this {other} before"
        name, missing = f"{role}.met_{other}", other if role == "account" else role  # every payment has an account
        found.append(Field(name, Sort.COUNT, meaning, name, missing))
    if role != "account":
        found.append(
            Field(f"{role}.shared", Sort.FLAG, f"whether another account used the {role} in 30 days", None, role)
        )
    return found
