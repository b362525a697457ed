"""The seeded payment world: same seed, same bytes; rings with lives; honest people who share; labels that come late."""

import hashlib
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.schema import check_labels, check_transactions
from data.world.planted import KINDS, plant
from data.world.synthetic import World, WorldConfig, simulate
from data.world.town import draw_town

CONFIG = WorldConfig(transactions=60_000)
DAY = 86_400_000_000


@cache
def world() -> World:
    return simulate(CONFIG)


def us(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy()


def fraud_of(w: World) -> np.ndarray:
    return w.truth["is_fraud"].to_numpy()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    config = WorldConfig(transactions=5_000, seed=3)
    for name in ("one", "two"):
        simulate(config).write(tmp_path / name)
    simulate(WorldConfig(transactions=5_000, seed=4)).write(tmp_path / "other")
    assert list(digests(tmp_path / "one")) == [f"{n}.parquet" for n in ("labels", "members", "transactions", "truth")]
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    one, other = digests(tmp_path / "one"), digests(tmp_path / "other")
    assert all(one[name] != other[name] for name in one)


def sound(w: World, config: WorldConfig) -> None:
    n = config.transactions
    good, refused = check_transactions(w.transactions)
    assert refused == []
    assert pa.Table.from_batches([good]).equals(w.transactions.combine_chunks())
    assert check_labels(w.labels)[1] == []
    assert w.transactions.num_rows == w.truth.num_rows == n
    ids = w.transactions["transaction_id"]
    assert ids.to_pylist() == [f"t{i:07d}" for i in range(1, n + 1)]
    assert w.truth["transaction_id"].equals(ids)
    time = us(w.transactions["timestamp"])
    first = int(config.start.timestamp()) * 1_000_000
    assert (np.diff(time) >= 0).all()
    assert time[0] >= first
    assert time[-1] < first + config.days * DAY
    reported = us(w.labels["reported_at"])
    rows = pc.index_in(w.labels["transaction_id"], ids.combine_chunks()).to_numpy()
    assert (np.diff(reported) >= 0).all()
    assert (reported > time[rows]).all()
    # Frauds, and only they, are lone or of a ring's attack.
    fraud = fraud_of(w)
    phase = np.array(w.truth["phase"].to_pylist(), dtype=object)
    lone = np.array(w.truth["ring_kind"].to_pylist(), dtype=object) == "lone"
    np.testing.assert_array_equal(fraud, (phase == "attack") | lone)
    with_ring = pc.is_valid(w.truth["ring_id"]).to_numpy()
    for name in ("member_role", "phase"):
        np.testing.assert_array_equal(pc.is_valid(w.truth[name]).to_numpy(), with_ring)
    np.testing.assert_array_equal(pc.is_valid(w.truth["ring_kind"]).to_numpy(), with_ring | lone)
    # Lives are in order, and every ring has paid quietly before it strikes.
    lives: dict[str, dict[str, list[int]]] = {}
    for ring, stage, at in zip(w.truth["ring_id"].to_pylist(), phase, time.tolist(), strict=True):
        if ring is not None:
            lives.setdefault(ring, {}).setdefault(stage, []).append(at)
    for life in lives.values():
        assert min(life["build_up"]) <= min(life["attack"]) - DAY
        assert max(life["build_up"]) < min(life["attack"])
        assert max(life["attack"]) < min(life.get("burn_out", [2**62]))
    if config.rings is None:
        assert set(w.members["kind"].to_pylist()) == set(KINDS)


def test_a_world_is_sound() -> None:
    sound(world(), CONFIG)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    transactions=st.integers(2_000, 6_000),
    seed=st.integers(0, 2**32),
    days=st.integers(30, 120),
    camouflage=st.floats(0, 1),
    rings=st.none() | st.integers(0, 6),
)
def test_any_small_world_is_sound(
    transactions: int, seed: int, days: int, camouflage: float, rings: int | None
) -> None:
    start = datetime(2024, 2, 20, tzinfo=UTC)
    config = WorldConfig(transactions, seed, start, days, rings, camouflage)
    sound(simulate(config), config)


def test_frauds_are_rare_and_of_every_kind() -> None:
    assert 0.006 < fraud_of(world()).mean() < 0.013
    frauds = world().truth.filter(world().truth["is_fraud"])
    counts = Counter(frauds["ring_kind"].to_pylist())
    assert set(counts) == {*KINDS, "lone"}
    assert all(count >= 15 for count in counts.values())
    late = us(world().transactions["timestamp"]) >= int(CONFIG.start.timestamp() * 1e6) + CONFIG.days * DAY * 2 // 3
    assert set(world().truth.filter(pa.array(late & fraud_of(world())))["ring_kind"].to_pylist()) == {*KINDS, "lone"}


def test_members_are_the_accounts_of_their_rings_payments() -> None:
    truth = world().truth.append_column("account_id", world().transactions["account_id"])
    truth = truth.append_column("timestamp", world().transactions["timestamp"]).filter(
        pc.is_valid(world().truth["ring_id"])
    )
    first: dict[tuple[str, str], tuple[str, str, datetime]] = {}
    for row in truth.to_pylist():
        first.setdefault((row["ring_id"], row["account_id"]), (row["ring_kind"], row["member_role"], row["timestamp"]))
    members = {
        (row["ring_id"], row["account_id"]): (row["kind"], row["member_role"], row["first_seen"])
        for row in world().members.to_pylist()
    }
    assert members == first


def test_all_that_a_member_pays_belongs_to_the_ring() -> None:
    """A colluder's daily life since joining the ring is the ring's; a victim's is the victim's own."""
    joined = {
        row["account_id"]: (row["ring_id"], row["first_seen"])
        for row in world().members.to_pylist()
        if row["member_role"] not in ("victim", "source")
    }
    table = world().transactions.select(["account_id", "timestamp"])
    rings, frauds = world().truth["ring_id"].to_pylist(), fraud_of(world()).tolist()
    for row, ring, is_fraud in zip(table.to_pylist(), rings, frauds, strict=True):
        if row["account_id"] in joined and not is_fraud:
            mine, since = joined[row["account_id"]]
            assert ring == (mine if row["timestamp"] >= since else None)
        elif not is_fraud:
            assert ring is None


def test_scripts_build_up_quietly_before_they_attack() -> None:
    rng = np.random.default_rng(1)
    town = draw_town(rng, 60_000, int(CONFIG.start.timestamp()) * 1_000_000, 90)
    planted = plant(rng, town, 24, 50, 0.5)
    for ring in range(24):
        mine = planted.ring == ring
        quiet, loud = (planted.payments.time[mine & (planted.fraud == fraud)] for fraud in (False, True))
        assert planted.begins[ring] < loud.min() - DAY
        assert quiet.max() < loud.min() - DAY
        assert len(loud) >= 5, KINDS[planted.kind[ring]]


def test_honest_people_share_more_devices_than_rings_do() -> None:
    device = world().transactions["device_id"]
    accounts: dict[str, set[str]] = {}
    guilty = set(pc.unique(device.filter(world().truth["is_fraud"])).to_pylist())
    for name, account in zip(device.to_pylist(), world().transactions["account_id"].to_pylist(), strict=True):
        if name is not None:
            accounts.setdefault(name, set()).add(account)
    shared = {name for name, users in accounts.items() if len(users) >= 2}
    assert len(shared - guilty) > 3 * len(shared & guilty) > 0
    assert sum(len(accounts[name]) >= 5 for name in shared - guilty) >= 10


def test_honest_accounts_and_devices_appear_all_along() -> None:
    fraud, time = fraud_of(world()), us(world().transactions["timestamp"])
    day = (time - time[0]) // DAY
    for column in ("account_id", "device_id"):
        seen = pc.dictionary_encode(world().transactions[column].combine_chunks()).indices.fill_null(-1).to_numpy()
        names, first = np.unique(seen, return_index=True)
        born_honest = day[first[(names >= 0) & ~np.isin(names, seen[fraud])]]
        assert all(((born_honest >= low) & (born_honest < low + 10)).sum() >= 20 for low in range(30, 90, 10))


def test_labels_come_late_and_some_never_or_wrong() -> None:
    config = WorldConfig(
        40_000, seed=5, missing_label_rate=0.2, wrong_label_rate=0.1, overturned_label_rate=0.05, label_delay_days=4.0
    )
    w = simulate(config)
    fraud, time = fraud_of(w), us(w.transactions["timestamp"])
    rows = pc.index_in(w.labels["transaction_id"], w.transactions["transaction_id"].combine_chunks()).to_numpy()
    verdict = w.labels["is_fraud"].to_numpy()
    reports = rows[verdict]
    assert len(set(reports.tolist())) == len(reports)
    right = fraud[reports]
    assert 1 - right.sum() / fraud.sum() == pytest.approx(0.2, abs=0.06)
    assert (~right).mean() == pytest.approx(0.1, abs=0.01)
    delay = (us(w.labels["reported_at"])[verdict] - time[reports]) / DAY
    assert np.median(delay) == pytest.approx(4.5, abs=1.2)
    assert 0.02 < (delay > 30).mean() < 0.12
    # Whatever is taken back was reported before.
    reported: set[int] = set()
    for row, is_fraud in zip(rows.tolist(), verdict.tolist(), strict=True):
        assert is_fraud or row in reported
        reported.add(row)
    back = rows[~verdict]
    assert fraud[back].sum() / right.sum() == pytest.approx(0.05, abs=0.04)
    assert (~fraud[back]).sum() / (~right).sum() == pytest.approx(0.5, abs=0.25)


def test_without_label_noise_exactly_the_frauds_are_reported_as_fraud() -> None:
    w = simulate(WorldConfig(5_000, missing_label_rate=0, wrong_label_rate=0, overturned_label_rate=0))
    frauds = w.transactions["transaction_id"].filter(w.truth["is_fraud"])
    assert sorted(w.labels["transaction_id"].to_pylist()) == frauds.to_pylist()
    assert pc.all(w.labels["is_fraud"]).as_py()


def test_names_and_single_columns_do_not_tell() -> None:
    """No id's number, and no amount, hour or first-seen device alone, ranks frauds well."""
    fraud, t = fraud_of(world()), world().transactions
    for column in ("transaction_id", "account_id", "merchant_id", "device_id", "card_id", "payee_id"):
        present = pc.is_valid(t[column]).to_numpy()
        number = pc.cast(pc.utf8_slice_codeunits(t[column].filter(pa.array(present)), 1), pa.int64()).to_numpy()
        # Entities, not payments: a merchant's number counts once.
        names = np.unique(number)
        tainted = np.isin(names, number[fraud[present]])
        assert area(names.astype(float), tainted) == pytest.approx(0.5, abs=0.09), column
    seconds = us(t["timestamp"]) % DAY / 1e6
    amount = t["amount"].to_numpy().astype(float)
    assert 0.35 < area(amount, fraud) < 0.75
    order = np.argsort(amount, kind="stable")
    for extreme in (order[: fraud.sum()], order[-fraud.sum() :]):
        assert fraud[extreme].mean() < 0.1
    assert 0.35 < area(seconds, fraud) < 0.65
    device = pc.dictionary_encode(t["device_id"].combine_chunks()).indices.fill_null(-1).to_numpy()
    new = np.zeros(len(device), np.bool_)
    new[np.unique(device, return_index=True)[1]] = True
    new &= device >= 0
    assert fraud[new].mean() < 0.1


def area(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve by ranks."""
    rank = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 1.0
    n = positive.sum()
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def test_columns_follow_the_channel() -> None:
    t = world().transactions
    channel = np.array(t["channel"].to_pylist())
    present = {name: pc.is_valid(t[name]).to_numpy() for name in ("ip", "payee_id", "card_id", "device_id")}
    np.testing.assert_array_equal(present["ip"], channel == "ecom")
    np.testing.assert_array_equal(present["payee_id"], channel == "transfer")
    np.testing.assert_array_equal(present["card_id"], channel != "transfer")
    assert not present["device_id"][channel == "atm"].any()
    assert 0.1 < present["device_id"][channel == "pos"].mean() < 0.6
    assert present["device_id"][channel == "ecom"].mean() > 0.9
    sizes = np.sort(np.unique(t["merchant_id"].to_pylist(), return_counts=True)[1])[::-1]
    assert sizes[: len(sizes) // 10].sum() > 0.4 * len(t)  # many sizes: a tenth of them makes most sales


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"transactions": 1999}, "transactions"),
        ({"days": 29}, "days"),
        ({"rings": 7, "transactions": 3000}, "rings"),
        ({"camouflage": 1.1}, "camouflage"),
        ({"missing_label_rate": -0.1}, "missing_label_rate"),
        ({"start": datetime(2026, 1, 1, 3, tzinfo=UTC)}, "start"),
        ({"start": datetime(2026, 1, 1)}, "start"),
        ({"label_delay_days": 0.0}, "label_delay_days"),
    ],
)
def test_bad_configurations_are_refused(arguments: dict[str, object], name: str) -> None:
    with pytest.raises(DataError, match=f"^world: {name} = "):
        WorldConfig(**arguments)  # type: ignore[arg-type]


def test_the_hard_world_is_frozen() -> None:
    """Figures of quality are compared over time: whoever changes this world makes all earlier ones worthless."""
    assert WorldConfig.hard(3) == WorldConfig(
        transactions=150_000,
        seed=3,
        start=datetime(2026, 1, 1, tzinfo=UTC),
        days=90,
        rings=None,
        camouflage=1.0,
        missing_label_rate=0.05,
        wrong_label_rate=0.02,
        overturned_label_rate=0.02,
        label_delay_days=4.0,
    )
    world = simulate(WorldConfig.hard(0))
    assert pc.sum(world.transactions["amount"]).as_py() == pytest.approx(4_260_424_777, rel=1e-6)
    assert pc.sum(world.truth["is_fraud"]).as_py() == 1569
