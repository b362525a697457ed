"""The seeded payment world: payments of honest habits and of fraud rings, the labels a bank would see, and the truth.

The truth is written beside the data for evaluation tables; the product never reads it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.errors import DataError
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from data.world.agents import lay_agents
from data.world.habits import PaymentColumns, honest
from data.world.planted import KINDS, ROLES, Planted, plant
from data.world.town import CHANNELS, COUNTRIES, DAY, MCCS, Ints, Town, draw_town

PHASES = ("build_up", "camouflage", "attack", "burn_out")
BUILD_UP, CAMOUFLAGE, ATTACK, BURN_OUT = range(4)
LONE = "lone"  # kind of the fraud that no ring committed
LONE_RATE = 0.0012  # of all payments: enough to be real, few enough that rings decide the tables
TIME = pa.timestamp("us", tz="UTC")

TRUTH_SCHEMA = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("is_fraud", pa.bool_(), nullable=False),
        pa.field("ring_id", pa.string()),
        pa.field("ring_kind", pa.string()),
        pa.field("member_role", pa.string()),
        pa.field("phase", pa.string()),
    ]
)
MEMBER_SCHEMA = pa.schema(
    [
        pa.field("ring_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("member_role", pa.string(), nullable=False),
        pa.field("first_seen", TIME, nullable=False),
    ]
)


@dataclass(frozen=True)
class WorldConfig:
    """What world to simulate; `hard` is the frozen difficulty that quality is measured on.

    Attributes:
        transactions: PaymentColumns in all, at least 2000.
        seed: Seed of every draw.
        start: First midnight, UTC.
        days: Length, at least 30.
        rings: Fraud rings; by default one for each 2800 payments and at least one of each kind, which with lone fraud
            makes about one payment in a hundred fraudulent.
        camouflage: How far frauds keep to their payers' habits, from 0 (blatant) to 1.
        missing_label_rate: Share of frauds that are never reported.
        wrong_label_rate: Share of the reports that accuse an honest payment.
        overturned_label_rate: Share of the reports that a second label takes back later (half of the wrong ones are).
        label_delay_days: Median delay from payment to report; the tail is heavy.
        agents: Share of the accounts that let an agent pay (`data.world.agents`); that adds payments.

    Raises:
        DataError: A value is out of range.
    """

    transactions: int = 150_000
    seed: int = 7
    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    days: int = 90
    rings: int | None = None
    camouflage: float = 0.5
    missing_label_rate: float = 0.03
    wrong_label_rate: float = 0.01
    overturned_label_rate: float = 0.01
    label_delay_days: float = 4.0
    agents: float = 0.0

    def __post_init__(self) -> None:
        most = max(len(KINDS), self.transactions // 1000)
        start = self.start
        midnight = start.tzinfo is not None and start == datetime(start.year, start.month, start.day, tzinfo=UTC)
        for name, good, need in (
            ("transactions", self.transactions >= 2000, "at least 2000"),
            ("days", 30 <= self.days <= 3650, "30 to 3650"),
            ("start", midnight and 2000 <= start.year < 2090, "midnight UTC of a year in 2000 to 2089"),
            ("rings", self.rings is None or 0 <= self.rings <= most, f"0 to {most} for this number of transactions"),
            *(
                (rate, 0.0 <= getattr(self, rate) <= 1.0, "0 to 1")
                for rate in ("camouflage", "missing_label_rate", "wrong_label_rate", "overturned_label_rate", "agents")
            ),
            ("label_delay_days", self.label_delay_days > 0, "above 0"),
        ):
            if not good:
                raise DataError(f"world: {name} = {getattr(self, name)}, must be {need}")

    @classmethod
    def hard(cls, seed: int) -> "WorldConfig":
        """The world that models are compared on, frozen before any of them was tuned on it; only the seed varies.

        Most frauds keep to their payers' habits in amount, merchant, device and address (`camouflage`), so that what is
        left is who shares what with whom, and when. One fraud in eight is alone: no ring gives it away, and nearly all
        of those stay hidden from everything. Boosted trees on point-in-time features, trained on one world and tested
        on another, reach an average precision of 0.56 and 0.58 (measured, two pairs of seeds; 0.62 at the default).
        """
        return cls(
            transactions=150_000,
            seed=seed,
            days=90,
            camouflage=1.0,
            missing_label_rate=0.05,
            wrong_label_rate=0.02,
            overturned_label_rate=0.02,
            label_delay_days=4.0,
        )


@dataclass(frozen=True)
class World:
    """A simulated world.

    Attributes:
        transactions: PaymentColumns in time order, `TRANSACTION_SCHEMA`.
        labels: Reports as the bank gets them, in order of `reported_at`, `LABEL_SCHEMA`; the last ones arrive after the
            last payment. Honest payments that nobody disputed have no label.
        truth: One row for each payment, in the same order: `is_fraud`, and for ring payments `ring_id`, `ring_kind`,
            `member_role` and `phase` (build_up, camouflage during the attack, attack, burn_out). Only payments of phase
            attack and lone frauds (`ring_kind` "lone", no `ring_id`) are frauds.
        members: Accounts of each ring, victims among them: `ring_id`, `kind`, `account_id`, `member_role`, and
            `first_seen`, the first payment by which the account belongs to the ring.
    """

    transactions: pa.Table
    labels: pa.Table
    truth: pa.Table
    members: pa.Table

    def write(self, folder: Path) -> None:
        """Write transactions, labels, truth and members as Parquet files; the same world gives the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("transactions", "labels", "truth", "members"):
            pq.write_table(getattr(self, name), folder / f"{name}.parquet", compression="zstd")


def simulate(config: WorldConfig) -> World:
    """Simulate a world; the same configuration gives the same world.

    Raises:
        DataError: The world is too small for its rings.
    """
    settling, planting, living, reporting, naming = (np.random.default_rng([config.seed, part]) for part in range(5))
    start = int(config.start.timestamp()) * 1_000_000
    town = draw_town(settling, config.transactions, start, config.days)
    rings = max(len(KINDS), config.transactions // 2800) if config.rings is None else config.rings
    planted = plant(planting, town, rings, round(config.transactions * LONE_RATE), config.camouflage)
    rest = config.transactions - len(planted.payments)
    if rest < config.transactions // 2:
        raise DataError(f"world: {rings} rings leave no room for honest payments among {config.transactions}")
    payments = PaymentColumns.join([planted.payments, honest(living, town, rest)])

    # What a habit or a script carried past the end is mirrored back inside.
    end = start + config.days * DAY
    time = np.where(payments.time >= end, np.maximum(2 * end - 1 - payments.time, start), payments.time)
    order = np.argsort(time, kind="stable")
    time, payments = time[order], payments.take(order)
    names = _Names(naming, planted, town)
    width = max(7, len(str(config.transactions)))
    ids = _numbered("t", np.arange(1, config.transactions + 1), width)
    truth = _Truth(planted, payments, time, order)
    world = World(
        transactions=_transactions(payments, time, ids, town, names),
        labels=_labels(reporting, config, truth.fraud, time, ids),
        truth=truth.table(ids),
        members=truth.members(payments.account, time, names.accounts),
    )
    return _with_agents(config, world) if config.agents else world


def _with_agents(config: WorldConfig, world: World) -> World:
    """A world with agents laid over it; what the rest of it was stays."""
    laying, reporting = (np.random.default_rng([config.seed, part]) for part in (5, 6))
    laid = lay_agents(laying, world.transactions, world.truth, world.members, config.agents)
    time = laid.payments["timestamp"].cast(pa.int64()).to_numpy()
    ids = laid.payments["transaction_id"].combine_chunks()
    labels = pa.concat_tables([world.labels, _labels(reporting, config, laid.fraud, time, ids)])
    return World(laid.payments, labels.sort_by("reported_at"), laid.truth, laid.members)


def _numbered(prefix: str, numbers: Ints, width: int) -> pa.Array:
    """Names of a prefix and a zero-padded number."""
    digits = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


class _Names:
    """Names of all entities, numbered at random, so that a name says nothing about who is behind it."""

    def __init__(self, rng: np.random.Generator, planted: Planted, town: Town) -> None:
        def shuffled(prefix: str, count: int) -> pa.Array:
            return _numbered(prefix, rng.permutation(count) + 1, max(6, len(str(count))))

        accounts = len(town.people)
        self.accounts = shuffled("a", accounts)
        self.merchants = shuffled("m", len(town.merchants.trade))
        self.devices = shuffled("d", planted.devices)
        self.cards = shuffled("c", 2 * accounts)
        count = int(town.address(np.array(planted.places)))
        # Multiplication by an odd number permutes the 32-bit addresses.
        spread = (rng.permutation(count).astype(np.uint64) * np.uint64(2_654_435_761) + np.uint64(97)) % np.uint64(
            2**32
        )
        octets = [
            pc.cast(pa.array((spread >> np.uint64(shift)) & np.uint64(255)), pa.string()) for shift in (24, 16, 8, 0)
        ]
        self.addresses = pc.binary_join_element_wise(*octets, ".")


def _named(names: pa.Array, index: NDArray[np.integer]) -> pa.Array:
    """Look names up; -1 becomes null."""
    return pc.take(names, pa.array(index, mask=index < 0))


def _transactions(payments: PaymentColumns, time: Ints, ids: pa.Array, town: Town, names: _Names) -> pa.Table:
    n = len(payments)
    trade = town.merchants.trade[payments.merchant]
    columns = {
        "transaction_id": ids,
        "timestamp": pa.array(time).cast(TIME),
        "account_id": _named(names.accounts, payments.account),
        "merchant_id": _named(names.merchants, payments.merchant),
        "device_id": _named(names.devices, payments.device),
        "amount": pa.array(payments.amount),
        "currency": _named(pa.array([country.currency for country in COUNTRIES]), payments.country),
        "ip": _named(names.addresses, payments.ip),
        "card_id": _named(names.cards, payments.card),
        "payee_id": _named(names.accounts, payments.payee),
        "channel": _named(pa.array(CHANNELS), payments.channel),
        "mcc": _named(pa.array(MCCS), trade),
        "country": _named(pa.array([country.code for country in COUNTRIES]), payments.country),
    }
    arrays = [columns.get(field.name, pa.nulls(n, field.type)) for field in TRANSACTION_SCHEMA]
    return pa.table(arrays, schema=TRANSACTION_SCHEMA)


def _labels(
    rng: np.random.Generator, config: WorldConfig, fraud: NDArray[np.bool_], time: Ints, ids: pa.Array
) -> pa.Table:
    """Reports of frauds, days later; some never come, some accuse the honest, some are taken back by a second label."""
    frauds, others = np.flatnonzero(fraud), np.flatnonzero(~fraud)
    right = frauds[rng.random(len(frauds)) >= config.missing_label_rate]
    wrong_rate = min(config.wrong_label_rate, 0.99)
    wrong = rng.choice(others, min(round(len(right) * wrong_rate / (1 - wrong_rate)), len(others)), replace=False)
    accused = np.concatenate([right, wrong])
    n = len(accused)
    delay = config.label_delay_days * np.exp(1.0 * rng.standard_normal(n))
    statement = rng.random(n) < 0.1  # found on the monthly statement
    delay = np.where(statement, delay + rng.uniform(15, 35, n), delay)
    reported = time[accused] + (np.clip(delay, 0.02, 120) * DAY).astype(np.int64)
    taken_back = rng.random(n) < np.where(fraud[accused], config.overturned_label_rate, 0.5)
    later = reported + (rng.uniform(1, 20, n) * DAY).astype(np.int64)
    rows = np.concatenate([accused, accused[taken_back]])
    when = np.concatenate([reported, later[taken_back]])
    verdict = np.arange(len(rows)) < n
    order = np.lexsort((rows, when))
    columns = [pc.take(ids, pa.array(rows[order])), pa.array(verdict[order]), pa.array(when[order]).cast(TIME)]
    return pa.table(columns, schema=LABEL_SCHEMA)


class _Truth:
    """Who did what, for each payment in time order.

    Args:
        planted: The planted payments, which come first in the order before sorting.
        payments: All payments in time order.
        time: Their times.
        order: Where each of them was before sorting.
    """

    def __init__(self, planted: Planted, payments: PaymentColumns, time: Ints, order: Ints) -> None:
        n, extra, rings = len(order), len(planted.fraud), len(planted.kind)
        rest = n - extra
        self.fraud = np.concatenate([planted.fraud, np.zeros(rest, np.bool_)])[order]
        scripted = np.concatenate([planted.ring, np.full(rest, -1)])[order]
        role = np.concatenate([planted.role, np.full(rest, -1)])[order]
        begins, first, last = planted.begins.copy(), np.full(rings, time[-1] + 1), np.zeros(rings, np.int64)
        struck = np.flatnonzero(self.fraud & (scripted >= 0))
        np.minimum.at(first, scripted[struck], time[struck])
        np.maximum.at(last, scripted[struck], time[struck])
        np.minimum.at(begins, scripted[scripted >= 0], time[scripted >= 0])
        # The members' daily life since the build-up is part of the ring's; what they did before, or as victims, is not.
        owner = planted.owner[payments.account]
        daily = (owner >= 0) & ~self.fraud & (time >= np.append(begins, 0)[owner])
        ring = np.where((scripted < 0) & daily, owner, scripted)
        role = np.where((scripted < 0) & daily, planted.owner_role[payments.account], role)
        phase = np.select(
            [self.fraud, time < np.append(first, 0)[ring], time <= np.append(last, 0)[ring]],
            [ATTACK, BUILD_UP, CAMOUFLAGE],
            BURN_OUT,
        )
        self.phase = np.where(ring >= 0, phase, -1)
        self.ring, self.role = ring, role
        self.kind = np.where(ring >= 0, np.append(planted.kind, -1)[ring], np.where(self.fraud, len(KINDS), -1))
        self.names = _numbered("ring-", np.arange(1, rings + 1), 4)
        self.kinds = pa.array([*KINDS, LONE])

    def table(self, ids: pa.Array) -> pa.Table:
        """`TRUTH_SCHEMA`, one row for each payment."""
        columns = [
            ids,
            pa.array(self.fraud),
            _named(self.names, self.ring),
            _named(self.kinds, self.kind),
            _named(pa.array(ROLES), self.role),
            _named(pa.array(PHASES), self.phase),
        ]
        return pa.table(columns, schema=TRUTH_SCHEMA)

    def members(self, account: Ints, time: Ints, accounts: pa.Array) -> pa.Table:
        """`MEMBER_SCHEMA`, by ring and first payment."""
        inside = np.flatnonzero(self.ring >= 0)
        _, at = np.unique(self.ring[inside] * len(accounts) + account[inside], return_index=True)
        rows = inside[at]  # the earliest payment of each pair, since payments are in time order
        rows = rows[np.lexsort((time[rows], self.ring[rows]))]
        columns = [
            _named(self.names, self.ring[rows]),
            _named(self.kinds, self.kind[rows]),
            _named(accounts, account[rows]),
            _named(pa.array(ROLES), self.role[rows]),
            pa.array(time[rows]).cast(TIME),
        ]
        return pa.table(columns, schema=MEMBER_SCHEMA)
