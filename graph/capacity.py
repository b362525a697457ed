"""How much memory a graph takes, from the layouts of its records."""

from collections.abc import Sequence
from dataclasses import dataclass

from data.digests import LOAD_FACTOR_AFTER_GROWTH
from data.schema import role
from graph.dag.ids import HEAD_MODULUS
from graph.dag.jumps import velocity_dtype
from graph.dag.memory import MAX_LOAD
from graph.dag.rows import LABEL, row_dtype
from graph.errors import GraphError
from graph.rings.forest import NODE, TIE, USE

DIGEST_BYTES = 16
HEAD_BYTES = 4
BUCKET_BYTES = 4
PAIR_BYTES = 4 / (MAX_LOAD / 2)  # right after its table grew, where no two payments are of the same two
MAX_ROWS = HEAD_MODULUS // 2  # a store refuses more


@dataclass(frozen=True)
class Deployment:
    """What a graph is to hold.

    Attributes:
        transactions: Payments in the buffer.
        entities: Distinct entities among them, by entity type.
        roles: Roles kept.
        velocity: Whether exact counts and sums over time windows are kept.
        labels: Label events held.
        ties: Distinct pairs of an account and a device or card inside the ring window.
    """

    transactions: int
    entities: dict[str, int]
    roles: tuple[str, ...] = ("account", "merchant", "device")
    velocity: bool = True
    labels: int = 0
    ties: int = 0


@dataclass(frozen=True)
class Line:
    """One part of the memory: `count` items of `size` bytes."""

    what: str
    size: float
    count: int
    per: str

    @property
    def total(self) -> float:
        """Bytes."""
        return self.size * self.count


def estimate(d: Deployment) -> list[Line]:
    """The parts of a graph's memory.

    Raises:
        GraphError: No graph has these roles or holds so many, entities are missing for a role, or a number is negative.
    """
    if not d.roles or d.roles[0] != "account" or len(set(d.roles)) != len(d.roles):
        raise GraphError(f"roles {list(d.roles)} must be distinct and begin with 'account'")
    if d.transactions >= MAX_ROWS:
        raise GraphError(f"one graph holds fewer than {MAX_ROWS:,} transactions")
    types = tuple(dict.fromkeys(role(name).entity_type for name in d.roles))
    if missing := [name for name in types if name not in d.entities]:
        raise GraphError(f"say how many entities there are of: {', '.join(missing)}")
    if min(d.transactions, d.labels, d.ties, *d.entities.values()) < 0:
        raise GraphError("no number may be negative")
    row, n, entities = row_dtype(len(d.roles)), d.transactions, sum(d.entities[t] for t in types)
    lines = []
    for name in row.names or ():
        size, shape = row[name].itemsize, row[name].shape
        each = f" ({size // shape[0]} a role)" if shape == (len(d.roles),) else ""
        lines.append(Line(f"row: {name}{each}", size, n, "transaction"))
    if d.velocity:
        velocity = velocity_dtype(len(d.roles))
        lines.append(Line("jumps and their sums, for exact windows", velocity.itemsize, n, "transaction"))
    return [
        *lines,
        Line("duplicate table: digests of transaction ids", DIGEST_BYTES, n, "transaction"),
        Line("duplicate table: buckets", BUCKET_BYTES / LOAD_FACTOR_AFTER_GROWTH, n, "transaction"),
        Line("index of payers and whom they paid, at most", PAIR_BYTES, n, "transaction"),
        Line("known frauds", 1, entities, "entity"),
        Line("id index: digests", DIGEST_BYTES, entities, "entity"),
        Line("id index: heads", HEAD_BYTES, entities, "entity"),
        Line("id index: buckets", BUCKET_BYTES / LOAD_FACTOR_AFTER_GROWTH, entities, "entity"),
        Line("label events", LABEL.itemsize, d.labels, "label"),
        Line("rings: users of each entity", USE.itemsize, entities, "entity"),
        Line("rings: two forests", 2 * NODE.itemsize, entities, "entity"),
        Line("rings: ties and their table", TIE.itemsize + 8, d.ties, "tie"),
    ]


def row_bytes(roles: Sequence[str], *, velocity: bool) -> int:
    """Bytes of a transaction in the rows, without ids and caches."""
    return row_dtype(len(roles)).itemsize + (velocity_dtype(len(roles)).itemsize if velocity else 0)
