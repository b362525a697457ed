"""How the console writes moments, money, shares and addresses."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa

from data.currency import format_amount

DAY_US: Final = 86_400_000_000


def moment(us: int | None) -> str:
    """A moment, us since 1970, in UTC.

    Example:
        >>> moment(1_772_614_800_000_000)
        '4 Mar 2026 09:00'
    """
    if us is None:
        return "–"
    return f"{_moment(us):%-d %b %Y %H:%M}"


def day(us: int | None) -> str:
    """A day, us since 1970, in UTC."""
    return "–" if us is None else f"{_moment(us):%-d %b %Y}"


def iso(us: int | None) -> str:
    """The same for machines."""
    return "" if us is None else _moment(us).isoformat(timespec="seconds")


def money(pairs: Sequence[tuple[str, int]]) -> str:
    """(currency, minor units), never added across currencies."""
    return " + ".join(format_amount(minor, currency) for currency, minor in pairs) or "0"


def amount(minor: int, currency: str) -> str:
    """One amount."""
    return format_amount(minor, currency)


def figure(minor: int, currency: str) -> str:
    """One amount without its currency, for a column that names it."""
    return format_amount(minor, currency).removesuffix(f" {currency}")


def share(value: float | None) -> str:
    """A probability or share, as a percentage; one that is not 0 or 1 is not shown as such.

    Example:
        >>> share(0.9996), share(0.5), share(None)
        ('>99 %', '50 %', '–')
    """
    if value is None:
        return "–"
    if 0.995 <= value < 1:
        return ">99 %"
    return "<1 %" if 0 < value < 0.005 else f"{100 * value:.0f} %"


def number(value: float) -> str:
    """A figure with as many digits as it is worth.

    Example:
        >>> number(1234.5), number(12.0), number(0.125)
        ('1,234', '12', '0.13')
    """
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def risk(value: float | None) -> str:
    """A class of a style: how risky."""
    if value is None:
        return "unknown"
    return "high" if value >= 0.5 else "some" if value >= 0.2 else "low"


def entity_url(name: str, role: str) -> str:
    """The page of an account, device, merchant, ... ."""
    return f"/entities/{quote(role, safe='')}/{quote(name, safe='')}"


def payment_url(transaction_id: str) -> str:
    """The page of a payment."""
    return f"/payments/{quote(transaction_id, safe='')}"


def policy_url(version: str) -> str:
    """The page of a policy."""
    return f"/policies/{quote(version, safe='')}"


def ring_url(ring_id: str) -> str:
    """The page of a ring."""
    return f"/rings/{quote(ring_id, safe='')}"


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """Payments of `RING_PAYMENTS` for a template, newest first; moments in us."""
    for name in ("timestamp", "fraud_reported_at"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(pa.int64()))
    found: list[dict[str, Any]] = table.to_pylist()
    return found[::-1]


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)


FILTERS: Final[dict[str, Callable[..., str]]] = {
    "moment": moment,
    "day": day,
    "iso": iso,
    "money": money,
    "amount": amount,
    "figure": figure,
    "share": share,
    "number": number,
    "risk": risk,
    "entity_url": entity_url,
    "payment_url": payment_url,
    "policy_url": policy_url,
    "ring_url": ring_url,
}
