"""One account's profile and guidance from a history, without a service and without a model."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.table import Table

from data.currency import format_amount
from data.history import History
from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from data.schema import TIMESTAMP
from graph.rings.records import LISTED, RingState
from serve.decide.spending.crowd import Crowd
from serve.decide.spending.guidance import Advice, Around, guidance
from serve.decide.spending.past import Past
from serve.decide.spending.profile import Profile, profile
from serve.decide.spending.recurring import Recurring
from serve.errors import ServeError

SAMPLED: Final = 400  # accounts that the crowd is made from
_Rings = Mapping[tuple[str, str], list[tuple[str, float]]]


def account_of(
    history: History, account: str, balance: Mapping[str, int] | None = None, journal: Path | None = None
) -> tuple[Profile, tuple[Advice, ...]]:
    """The profile of an account, and what to tell its owner, as of the end of a history.

    Args:
        history: Payments and labels.
        account: Whose.
        balance: What it holds, minor units by currency, if that is known.
        journal: Where rings were journalled; without it, nothing is said of rings.

    Raises:
        ServeError: The history has no payment of the account.
    """
    payments = history.payments
    ours = payments.filter(_of(payments, account))
    if not len(ours):
        raise ServeError(f"no payment of account {account!r} in this history; ids are written exactly as in it")
    end = int(pc.max(pc.cast(payments["timestamp"], pa.int64())).as_py())
    crowd = Crowd.of(_sample(history, end))
    past = Past.of(account, _known(ours, history), end)
    known = profile(past, crowd)
    rings = {} if journal is None else journalled_rings(journal)

    def prices(role: str, name: str, currency: str) -> NDArray[np.int64]:
        column = payments["payee_id" if role == "payee" else "merchant_id"]
        keep = pc.and_(pc.fill_null(pc.equal(column, name), False), pc.equal(payments["currency"], currency))
        keep = pc.and_(keep, pc.not_equal(payments["account_id"], account))
        return np.asarray(payments.filter(keep)["amount"].to_numpy(), np.int64)

    around = Around(prices, lambda role, name: rings.get((role, name), ()), balance or {})
    return known, guidance(past, known, around)


def journalled_rings(path: Path) -> _Rings:
    """The rings that stand, by the role and name of each member: ids and confidences."""
    newest: dict[str, dict[str, object]] = {}
    with SqliteJournal(path) as journal:
        for events in journal.replay():
            if events.kind is Kind.RING:
                newest |= {row["ring_id"]: row for row in events.batch.to_pylist()}
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for ring_id, row in newest.items():
        confidence = float(str(row["confidence"]))
        if row["state"] == RingState.ENDED or confidence < LISTED:
            continue
        members = row["members"]
        assert isinstance(members, list)
        for member in members:
            roles = ("account", "payee") if member["role"] in ("account", "payee") else (member["role"],)
            for role in roles:
                found.setdefault((role, member["name"]), []).append((ring_id, confidence))
    return found


def recurring_table(title: str, found: tuple[Recurring, ...]) -> Table:
    """Contracts or incomes for people."""
    table = Table(title=title)
    for name in ("with", "every", "amount", "next due", "seen", "sure"):
        table.add_column(name, justify="right" if name in ("amount", "seen", "sure") else "left")
    for one in found:
        amount = format_amount(one.amount, one.currency)
        shown = amount if one.fixed else f"about {amount}"
        due = "ended" if one.next_due is None else when(one.next_due)[:10]
        row = (f"{one.role} {one.name}", one.period, shown, due, str(len(one.transaction_ids)), f"{one.confidence:.2f}")
        table.add_row(*row)
    return table


def next_lines(known: Profile) -> list[str]:
    """The forecast for people, a line each for when, how much and where."""
    if (found := known.forecast) is None:
        return ["It has made no payment, so none is forecast."]
    days = f"{found.horizon_days:.0f} days" if found.horizon_days >= 2 else f"{24 * found.horizon_days:.0f} hours"
    lines = [
        f"Next payment: within {days} with probability {found.chance:.2f}; then most likely about {when(found.likely)} "
        f"(80 %: {when(found.earliest)} to {when(found.latest)})."
    ]
    lines += [
        f"How much: {format_amount(one.middle, one.currency)} (80 %: {format_amount(one.low, one.currency)} to "
        f"{format_amount(one.high, one.currency)}), in this currency with probability {one.probability:.2f}."
        for one in found.amounts
    ]
    places = ", ".join(f"{place.role} {place.name} {place.probability:.2f}" for place in found.places)
    lines.append(f"Where: {places}; somewhere new {found.somewhere_new:.2f}.")
    if not found.calibrated:
        lines.append("There are too few other accounts to check these intervals: take them for a guess.")
    return lines


def advice_table(found: tuple[Advice, ...]) -> Table:
    """Guidance for people."""
    table = Table(title="guidance")
    for name in ("what", "sure", "says", "evidence"):
        table.add_column(name)
    for one in found:
        ids, more = ", ".join(one.transaction_ids[-3:]), len(one.transaction_ids) - 3
        table.add_row(one.kind, f"{one.confidence:.2f}", one.text, f"{ids} and {more} more" if more > 0 else ids)
    return table


def when(us: int) -> str:
    """A moment for people, UTC."""
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M}"


def _of(payments: pa.Table, account: str) -> pa.ChunkedArray:
    return pc.or_(
        pc.equal(payments["account_id"], account), pc.fill_null(pc.equal(payments["payee_id"], account), False)
    )


def _known(payments: pa.Table, history: History) -> pa.Table:
    """Payments with when each was reported as fraud, by its newest label."""
    labels = history.labels
    mine = labels.filter(pc.is_in(labels["transaction_id"], pc.unique(payments["transaction_id"])))
    newest: dict[str, tuple[int, bool]] = {}
    times = pc.cast(mine["reported_at"], pa.int64()).to_pylist()
    for name, fraud, at in zip(mine["transaction_id"].to_pylist(), mine["is_fraud"].to_pylist(), times, strict=True):
        if name not in newest or at >= newest[name][0]:
            newest[name] = at, fraud
    found = [newest.get(name, (0, False)) for name in payments["transaction_id"].to_pylist()]
    reported = [at if fraud else None for at, fraud in found]
    payments = payments.append_column("fraud_reported_at", pa.array(reported, pa.int64()).cast(TIMESTAMP))
    return payments.append_column("probability", pa.nulls(len(payments), pa.float64()))


def _sample(history: History, end: int) -> list[Past]:
    """The pasts of some accounts."""
    payments = history.payments
    names = pc.unique(payments["account_id"]).to_pylist()
    chosen = [names[i] for i in np.random.default_rng(0).permutation(len(names))[:SAMPLED].tolist()]
    theirs = _known(payments.filter(pc.is_in(payments["account_id"], pa.array(chosen, pa.string()))), history)
    order = theirs.take(pc.sort_indices(theirs, [("account_id", "ascending")]))
    accounts = order["account_id"].to_pylist()
    cuts = [0, *(i for i in range(1, len(accounts)) if accounts[i] != accounts[i - 1]), len(accounts)]
    return [Past.of(accounts[a], order.slice(a, b - a), end) for a, b in pairwise(cuts) if b > a]
