"""What can become of a payment once it was recorded: names, what each means for its money, and what contradicts what.

An outcome is what a bank, a merchant or a payer *did*; a label is what is *known*. A refund is no fraud, and a decline
is no proof of one: nothing here is ever read by a score.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, get_args

GIVEN: Final = ("approve", "challenge", "review", "decline")
"""Decisions that the service gave before it could record the payment; it journals them by itself."""
Reported = Literal[
    "approved",
    "declined",
    "challenge_passed",
    "challenge_failed",
    "reversed",
    "refunded",
    "expired",
    "chargeback_opened",
    "chargeback_won",
    "chargeback_lost",
]
"""What callers report."""
REPORTED: Final[tuple[str, ...]] = get_args(Reported)
PARTIAL: Final = frozenset(("reversed", "refunded", "chargeback_opened", "chargeback_won", "chargeback_lost"))
"""Outcomes that may be of a part of the money: they may name an amount."""
STOPS: Final = frozenset(("decline", "declined", "reversed", "expired", "refunded"))
"""By these, where they are of all of it, a payment's money is not lost."""
GOES: Final = frozenset(("approve", "challenge", "review", "approved"))
"""By these a payment went on. The other outcomes say nothing of where its money is."""
RELEASES: Final = frozenset(("decline", "declined", "reversed", "expired"))
"""By these a payment gives back what it reserved of its mandate's budget: it was never taken, or not all of it. A
refund does not: the agent did spend."""
_ENDS: Final = {"approved": "declined", "declined": "approved"}  # each excludes the other


class Became(NamedTuple):
    """One reported outcome.

    Attributes:
        outcome_id: Its id.
        transaction_id: Of the payment.
        outcome: One of `REPORTED`.
        at: When, us since 1970 UTC.
        amount: Minor units of the payment's currency; None for all of it.
        by: Who says so.
    """

    outcome_id: str
    transaction_id: str
    outcome: str
    at: int
    amount: int | None = None
    by: str | None = None


def default_id(transaction_id: str, outcome: str, at: int, amount: int | None, by: str | None) -> str:
    """The id of an outcome that brings none: a digest of its content, so that the same content is the same outcome.

    Examples:
        >>> default_id("t-1", "refunded", 0, 500, None) == default_id("t-1", "refunded", 0, 500, None)
        True
    """
    text = "\x1f".join("" if part is None else str(part) for part in (transaction_id, outcome, at, amount, by))
    return "o-" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differing(there: Became, sent: Became) -> list[str]:
    """Fields in which two outcomes of one id differ."""
    return [name for name in Became._fields if getattr(there, name) != getattr(sent, name)]


def contradiction(sent: Became, amount: int, earlier: Iterable[Became]) -> tuple[str, str] | None:
    """Why an outcome cannot be true beside what is recorded of its payment: field and reason; None where it can.

    Outcomes may arrive in any order, so that only what can be true in no order is refused: a payment that was both
    approved and declined, and more money given back than was paid.

    Args:
        sent: The outcome.
        amount: What the payment was of, minor units.
        earlier: Other outcomes of the same payment.

    Examples:
        >>> refund = Became("r-2", "t-1", "refunded", 9, 600)
        >>> contradiction(refund, 1000, [Became("r-1", "t-1", "refunded", 5, 500)])
        ('amount', '600 and the 500 given back before are more than the 1000 that were paid')
    """
    if sent.amount is not None and sent.amount > amount:
        return "amount", f"{sent.amount} is more than the {amount} that were paid"
    back = ("reversed", "refunded")
    given = 0
    for other in earlier:
        if _ENDS.get(sent.outcome) == other.outcome:
            way = (
                "report it as reversed"
                if sent.outcome == "declined"
                else "a new try is a payment with an id of its own"
            )
            return "outcome", f"is {sent.outcome}, recorded as {other.outcome} ({other.outcome_id!r}): {way}"
        if other.outcome in back:
            given += amount if other.amount is None else other.amount
    if sent.outcome in back:
        mine = amount if sent.amount is None else sent.amount
        if given and mine + given > amount:
            return "amount", f"{mine} and the {given} given back before are more than the {amount} that were paid"
    return None


def whole(outcomes: Sequence[str], amounts: Sequence[int | None], paid: Sequence[int]) -> list[bool | None]:
    """Whether each outcome leaves its payment's money safe (True), lets it go (False), or says nothing (None), [n].

    Args:
        outcomes: Names, [n].
        amounts: What each is of, [n], minor units; None for all of it.
        paid: What each payment was of, [n].
    """
    return [
        (True if amount is None or amount >= all_of_it else None)
        if name in STOPS
        else (False if name in GOES else None)
        for name, amount, all_of_it in zip(outcomes, amounts, paid, strict=True)
    ]
