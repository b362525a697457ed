"""What a mandate says: the limits within which an agent may pay for an account's owner.

The fields are those of the open payment mandate of AP2 (Agent Payments Protocol, google-agentic-commerce/AP2):
budget, amount range, allowed payees, recurrence, execution date; amounts are whole minor units.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal

Period = Literal["day", "week", "month"]
DAY_US: Final = 86_400_000_000
_THURSDAY: Final = 3  # 1970-01-01 was one: days since then plus three begin a week on Monday


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How much may be spent in each calendar day, week (from Monday) or month, in UTC.

    Attributes:
        period: Which.
        budget: Minor units in each; None for no limit.
        count: Payments in each; None for no limit.
    """

    period: Period
    budget: int | None = None
    count: int | None = None

    def of(self, moment: int) -> int:
        """The number of the period that a moment (us since 1970 UTC) is in."""
        day = moment // DAY_US
        if self.period == "day":
            return day
        if self.period == "week":
            return (day + _THURSDAY) // 7
        date = datetime.fromtimestamp(moment // 1_000_000, UTC)
        return date.year * 12 + date.month


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one version of a mandate.

    Attributes:
        account_id: Whose money it is; it stays the same in every version.
        currency: Of all amounts; it stays the same as well.
        expires_at: From this moment on (us since 1970 UTC) nothing may be paid.
        agent_id: Who may pay; None for whichever agent names the mandate.
        budget: Minor units in all; None for no limit but that of periods.
        amount_min: Least amount of a payment, minor units.
        amount_max: Greatest amount of a payment, minor units; None for no limit.
        payees: Accounts that may be paid; None for all.
        merchants: Merchants that may be paid; None for all.
        mccs: Their categories; None for all.
        not_before: Nothing may be paid before this moment, us; None for at once.
        recurrence: Limits of each period; None for none.
    """

    account_id: str
    currency: str
    expires_at: int
    agent_id: str | None = None
    budget: int | None = None
    amount_min: int = 0
    amount_max: int | None = None
    payees: tuple[str, ...] | None = None
    merchants: tuple[str, ...] | None = None
    mccs: tuple[str, ...] | None = None
    not_before: int | None = None
    recurrence: Recurrence | None = None
    _sets: tuple[frozenset[str] | None, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = (self.payees, self.merchants, self.mccs)
        object.__setattr__(self, "_sets", tuple(None if names is None else frozenset(names) for names in found))

    def refusal(self, payment: Mapping[str, Any], now: int) -> tuple[str, str] | None:
        """Which field forbids a payment whatever was spent, and why; None where none does.

        Args:
            payment: `account_id`, `agent_id`, `currency`, `amount`, `payee_id`, `merchant_id`, `mcc`.
            now: The moment, us.
        """
        amount, agent = payment["amount"], payment["agent_id"]
        if payment["account_id"] != self.account_id:
            return "account_id", "the mandate is another account's"
        if self.agent_id is not None and agent != self.agent_id:
            return "agent_id", f"the mandate is given to the agent {self.agent_id!r}, not to {agent!r}"
        if now >= self.expires_at:
            return "expires_at", f"the mandate expired at {shown(self.expires_at)}"
        if self.not_before is not None and now < self.not_before:
            return "not_before", f"the mandate begins at {shown(self.not_before)}"
        if payment["currency"] != self.currency:
            return "currency", f"the mandate is in {self.currency}, the payment in {payment['currency']}"
        if amount < self.amount_min:
            return "amount_min", f"{amount} is less than {self.amount_min}"
        if self.amount_max is not None and amount > self.amount_max:
            return "amount_max", f"{amount} is more than {self.amount_max}"
        sides = zip(_LISTS, self._sets, strict=True)
        for (name, column), allowed in sides:
            if allowed is not None and payment[column] not in allowed:
                return name, f"{payment[column]!r} is not among them"
        return None

    def json(self) -> str:
        """All of it as JSON, always in the same order."""
        content = asdict(self)
        del content["_sets"]
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def of_json(cls, text: str) -> "Terms":
        """Terms from what `json` gave."""
        content = json.loads(text)
        if content["recurrence"] is not None:
            content["recurrence"] = Recurrence(**content["recurrence"])
        for name, _ in _LISTS:
            content[name] = None if content[name] is None else tuple(content[name])
        return cls(**content)

    def differing(self, other: "Terms") -> list[str]:
        """Fields in which two terms differ."""
        return [f.name for f in fields(self) if f.init and getattr(self, f.name) != getattr(other, f.name)]


_LISTS: Final = (("payees", "payee_id"), ("merchants", "merchant_id"), ("mccs", "mcc"))


def shown(moment: int) -> str:
    """A moment (us since 1970 UTC) as ISO 8601."""
    return datetime.fromtimestamp(moment / 1e6, UTC).isoformat().replace("+00:00", "Z")
