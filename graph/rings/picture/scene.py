"""What a picture of a ring shows, as plain JSON: nodes and their places, ties, payments. Everything else is drawing.

Browser, notebook, console and the pictures for reports draw the same scene. Lists are columns: `scene["nodes"]["name"]`
and `scene["nodes"]["role"]` have one entry for each node, and a payment refers to nodes and ties by number.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.currency import exponent, format_totals
from data.schema import ROLES
from data.schema import role as role_named
from graph.errors import GraphError
from graph.rings.picture.layout import place
from graph.rings.records import RING_PAYMENTS, Member, MemberRole, RingRecord, totals

VERSION: Final = 1
SHOWN_FIRST: Final = 2000
"""Members that are shown when a picture opens. Of a larger ring these are the ones that say most; the page says so."""

DIRECTED: Final = ("merchant", "payee")  # money goes there; a device or a card is only used

_PLAIN: Final = (MemberRole.ACCOUNT, MemberRole.SHARED)  # say no more than that it is in the ring
_Key = tuple[str, str]  # (entity type, name)


def ring_scene(record: RingRecord, payments: pa.Table) -> dict[str, Any]:
    """The scene of a ring.

    Args:
        record: The ring.
        payments: Of `RING_PAYMENTS`: the payments of its accounts, and of neighbours where these are to be shown on
            demand. What is no member of the ring is hidden until it is asked for.

    Returns:
        `ring`: what its head says. `nodes`: role, name, member (its role in the ring, or null), joined (us, or null),
        x, y, later (1: hidden at first, since the ring has more than `SHOWN_FIRST` members). `ties`: source and target
        (nodes), directed (1: from payer to payee or merchant). `payments`: id, time, reported (us, or null), minor,
        currency, weight (in median payments of its currency), probability (or null), legitimate, evidence, nodes, ties.
        `decimals`: of each currency.

    Raises:
        GraphError: A column of `RING_PAYMENTS` is missing or of another type.
    """
    payments = _checked(payments)
    nodes, ties = _Numbers(), _Numbers()
    for member in record.members:
        nodes.of((role_named(member.role).entity_type, member.name))
    members = len(nodes)
    taken: list[list[int]] = []
    tied: list[list[int]] = []
    columns = [(r, payments.column(r.column).to_pylist()) for r in ROLES]
    for i in range(len(payments)):
        account = nodes.of((ROLES[0].entity_type, columns[0][1][i]))
        others = [(r, nodes.of((r.entity_type, names[i]))) for r, names in columns[1:] if names[i] is not None]
        taken.append(list(dict.fromkeys([account, *(node for _, node in others)])))
        tied.append([ties.of((account, node, int(r.name in DIRECTED))) for r, node in others if node != account])
    ends = np.array([tie[:2] for tie in ties.keys], np.int64).reshape(-1, 2)
    core = np.arange(len(nodes)) < members
    places = place(len(nodes), ends, core)
    shown = _nodes(record, nodes, places)
    return {
        "version": VERSION,
        "ring": _head(record),
        "nodes": shown | {"later": _later(shown, payments, taken)},
        "ties": {
            "source": [tie[0] for tie in ties.keys],
            "target": [tie[1] for tie in ties.keys],
            "directed": [tie[2] for tie in ties.keys],
        },
        "payments": _payments(payments) | {"nodes": taken, "ties": tied},
        "decimals": {code: exponent(code) for code in sorted(set(payments.column("currency").to_pylist()))},
    }


def risks(scene: dict[str, Any]) -> NDArray[np.float64]:
    """Risk of each payment as of the end: 1 if it was reported as fraud, 0 if it is known to be legitimate, else what
    the model said (0 where it said nothing); shape (payments,)."""
    p = scene["payments"]
    model = np.array([0.0 if value is None else value for value in p["probability"]], np.float64)
    fraud = np.array([moment is not None for moment in p["reported"]], bool)
    return np.where(fraud, 1.0, np.where(np.array(p["legitimate"], bool), 0.0, model))


class _Numbers:
    """Numbers for keys, in the order in which they are first met."""

    def __init__(self) -> None:
        self._number: dict[Any, int] = {}

    def of(self, key: Any) -> int:
        return self._number.setdefault(key, len(self._number))

    def __len__(self) -> int:
        return len(self._number)

    @property
    def keys(self) -> list[Any]:
        return list(self._number)


def _checked(payments: pa.Table) -> pa.Table:
    for field in RING_PAYMENTS:
        if field.name not in payments.column_names:
            raise GraphError(f"payments of a ring have no column {field.name!r}: they must be of RING_PAYMENTS")
    try:
        return payments.select(RING_PAYMENTS.names).cast(RING_PAYMENTS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise GraphError(f"payments of a ring are not of RING_PAYMENTS: {error}") from error


def _head(record: RingRecord) -> dict[str, Any]:
    kinds = ("tried", "lost", "stopped")
    return {
        "id": record.id,
        "state": str(record.state),
        "confidence": record.confidence,
        "accounts": len(record.accounts),
        "members": len(record.members),
        "known_frauds": len(record.known_frauds),
        "money": {kind: format_totals(dict(totals(record.money, kind))) for kind in kinds},
        "first_seen": record.first_seen,
        "named_at": record.named_at,
        "last_seen": record.last_seen,
        "ended_at": record.ended_at,
        "density": record.density,
        "parents": list(record.parents),
        "merged_into": record.merged_into,
        "reasons": record.reasons,
    }


def _nodes(record: RingRecord, nodes: _Numbers, places: NDArray[np.float64]) -> dict[str, list[Any]]:
    known: dict[_Key, list[Member]] = {}
    for member in record.members:  # an account may be there a second time, as a payee
        known.setdefault((role_named(member.role).entity_type, member.name), []).append(member)
    of = [known.get(key, []) for key in nodes.keys]
    return {
        "role": [kind for kind, _ in nodes.keys],
        "name": [name for _, name in nodes.keys],
        "member": [str(min((m.member_role for m in same), key=_PLAIN.__contains__)) if same else None for same in of],
        "joined": [min((m.joined_at for m in same), default=None) for same in of],
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
    }


def _payments(payments: pa.Table) -> dict[str, list[Any]]:
    minor = payments.column("amount").to_pylist()
    currency = payments.column("currency").to_pylist()
    by_code: dict[str, list[int]] = {}
    for code, amount in zip(currency, minor, strict=True):
        by_code.setdefault(code, []).append(amount)
    usual = {code: max(1.0, float(np.median(amounts))) for code, amounts in by_code.items()}
    return {
        "id": payments.column("transaction_id").to_pylist(),
        "time": payments.column("timestamp").cast(pa.int64()).to_pylist(),
        "reported": payments.column("fraud_reported_at").cast(pa.int64()).to_pylist(),
        "minor": minor,
        "currency": currency,
        "weight": [round(a / usual[c], 4) for a, c in zip(minor, currency, strict=True)],
        "probability": [None if p is None else round(p, 4) for p in payments.column("probability").to_pylist()],
        "legitimate": [int(v) for v in payments.column("known_legitimate").to_pylist()],
        "evidence": [int(v) for v in payments.column("evidence").to_pylist()],
    }


def _later(nodes: dict[str, list[Any]], payments: pa.Table, taken: list[list[int]]) -> list[int]:
    """Which members wait in a large ring: shown are those with a part in it, then the riskiest accounts, each with what
    it shares, so that what is shown hangs together."""
    roles = nodes["member"]
    if sum(role is not None for role in roles) <= SHOWN_FIRST:
        return [0] * len(roles)
    said = np.zeros(len(roles))
    shared: list[set[int]] = [set() for _ in roles]
    for row, evidence, p in zip(taken, *_columns(payments, ("evidence", "probability")), strict=True):
        said[row] += evidence + (p or 0.0)
        shared[row[0]].update(node for node in row[1:] if roles[node] is not None)
    order = sorted(
        range(len(roles)), key=lambda i: (roles[i] in (None, *_PLAIN), nodes["role"][i] != "account", -said[i], i)
    )
    shown: dict[int, None] = {}
    for node in order:
        if roles[node] is not None and len(shown) < SHOWN_FIRST:
            shown.update(dict.fromkeys([node, *(sorted(shared[node]) if nodes["role"][node] == "account" else [])]))
    return [int(role is not None and i not in shown) for i, role in enumerate(roles)]


def _columns(payments: pa.Table, names: Iterable[str]) -> list[list[Any]]:
    return [payments.column(name).to_pylist() for name in names]
