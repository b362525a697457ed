"""The quality benchmark: runs are kept, figures are what the scores say, splits are what the page claims."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.quality import (
    contest,
    histories,
    oracle,
    prequential,
    ring_oracle,
    runs,
    summary,
)
from benchmarks.quality.amlsim import DAY_US, Accounts, folds, most_suspect, pooled, reading, transfers, two_rounds
from benchmarks.quality.contest import OURS, RESEARCH, Contest, entrants, measures, table
from benchmarks.quality.tolokers import Graph, drawn, shuffled
from data.files.sources import Run
from data.history import History
from data.journal.protocol import Kind
from gnn.rivals import snapml
from gnn.rivals.boosting import INPUT_SETS
from gnn.rivals.forty import RIVAL_NAME
from gnn.train.boosted_trees import BoostingConfig, Setting
from gnn.train.targets import Targets, TrainConfig, make_targets
from tests.data.files.test_datasets import dataset
from tests.gnn.train.test_train import history


def early_and_late() -> tuple[list[Run], list[Run], np.ndarray]:
    """Sixty days of payments: the runs up to the 45th, all of them, and the truth of all."""
    runs, fraud = history()
    stop = next(i for i in range(len(runs)) if runs[i][0] is Kind.TRANSACTION and _time(runs[i])[0] > 45 * DAY_US)
    return runs[:stop], runs, fraud


def _time(run: Run) -> np.ndarray:
    time = run[1]["timestamp"].cast("int64").to_numpy()
    return time - _START


_START = int(history()[0][0][1]["timestamp"].cast("int64").to_numpy()[0])


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Contest:
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    train, later, fraud = early_and_late()
    payments = [batch for kind, batch in later if kind is Kind.TRANSACTION]
    time = np.concatenate([batch["timestamp"].cast("int64").to_numpy() for batch in payments])
    rows = np.flatnonzero(time - _START > 46 * DAY_US)
    return Contest(
        name="small",
        train=History(train),
        test=History(later),
        rows=rows,
        fraud=np.asarray(fraud, bool)[rows],
        account=np.arange(len(rows)),
        time=time[rows],
        config=TrainConfig(epochs=1, test=0, negatives=5),
        epochs=1,
        shape={"width": 8, "heads": 2, "hidden": 16, "neighbours": 4},
    )


def test_every_entrant_scores_the_same_payments_and_runs_are_kept(
    small: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = BoostingConfig(settings=(Setting(leaves=7, rows=20),), trees=50, negatives=5, neighbours=4)
    monkeypatch.setattr(contest, "BoostingConfig", lambda **_: quick)
    runs = entrants(small, 1, rivals=True)
    names = {OURS, RESEARCH, "rules", "logistic", RIVAL_NAME, *(f"trees: {inputs}" for inputs in INPUT_SETS)}
    assert set(runs[0]) == names | ({snapml.RIVAL_NAME} if snapml.installed() else set())
    assert {len(score) for score in runs[0].values()} == {len(small.rows)}
    found = table(small, runs)
    # Fraud comes from three merchants: who reads a merchant's past finds it.
    assert found["trees: columns"]["average_precision"][0] < found["trees: features"]["average_precision"][0]
    assert found["trees: columns"]["average_precision"][0] < found[RESEARCH]["average_precision"][0]

    def never(*_: object) -> None:
        raise AssertionError("a kept run was made again")

    for name in ("ours", "trees", "snapml", "research"):
        monkeypatch.setattr(contest, name, never)
    again = entrants(small, 1, rivals=True)
    for name, score in runs[0].items():
        np.testing.assert_array_equal(again[0][name], score)


def test_an_entity_is_new_at_its_first_payment_alone(small: Contest) -> None:
    entity = small.graph.store.column("entity")
    for role in ("account", "merchant"):
        r = small.roles.index(role)
        plain = [entity[row, r] >= 0 and not (entity[:row, r] == entity[row, r]).any() for row in small.rows[:300]]
        np.testing.assert_array_equal(small.new(role)[:300], plain)


def test_a_run_of_other_sources_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    made = []

    def make() -> tuple[dict[str, np.ndarray], dict[str, int]]:
        made.append(1)
        return {"a": np.arange(3.0)}, {"n": len(made)}

    for source, number in (("x", 1), ("x", 1), ("y", 2), ("x", 1)):
        monkeypatch.setattr(runs, "sources", lambda _, source=source: source)
        scores, facts = runs.cached_run("bench", "run-0", make)
        assert facts == {"n": number}
        assert scores["a"].tolist() == [0, 1, 2]
    monkeypatch.setattr(runs, "sources", lambda _: "z")
    with pytest.raises(ZeroDivisionError):
        runs.cached_run("bench", "run-0", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert not list((tmp_path / "var" / "quality" / "bench").glob("z/*"))


def test_rivals_need_not_run_again_where_only_the_model_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = (
        ("gnn/quality/card.py", 0),
        ("gnn/model/network.py", 1),
        ("gnn/rivals/boosting.py", 2),
        ("graph/dag/features.py", 2),
    )
    for path, _ in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text(path)
    monkeypatch.setattr(runs, "ROOT", tmp_path)

    def digests() -> tuple[str, str]:
        runs.sources.cache_clear()
        return runs.sources(False), runs.sources(True)

    before = digests()
    for path, changes in paths:
        (tmp_path / path).write_text("other")
        after = digests()
        assert sum(a != b for a, b in zip(before, after, strict=True)) == changes
        before = after
    runs.sources.cache_clear()


def test_only_the_last_days_teach() -> None:
    first = int(datetime(2018, 7, 1, tzinfo=UTC).timestamp()) * 1_000_000
    time = first + np.arange(0, 31 * DAY_US, DAY_US // 10)

    class State:
        class store:
            @staticmethod
            def column(_: str) -> np.ndarray:
                return time

    rows = np.arange(len(time))
    whole = Targets(rows[:200], rows[200:], rows[:0], np.zeros(len(time), np.float32), 7 * DAY_US)
    found = histories._LastDays(7)(State(), whole)  # type: ignore[arg-type]
    taught = np.concatenate([found.train, found.validation])
    assert time[taught[0]] == first + 24 * DAY_US  # 2018-07-25
    assert len(taught) == 70
    assert found.train[-1] < found.validation[0]


def test_s_ffsd_is_split_as_measured_and_without_labels_none_is_seen() -> None:
    dataset("s_ffsd/S-FFSD.zip")
    found = histories.s_ffsd("no_labels")
    assert (len(found.rows), int(found.fraud.sum())) == (8_837, 2_683)
    assert found.graph.store.label_count == 0
    taught = list(found.train.runs())
    labels = [batch for kind, batch in taught if kind is Kind.LABEL]
    assert sum(len(batch) for batch in labels) == 20_806
    assert [kind for kind, _ in taught].index(Kind.LABEL) == len(taught) - len(labels)  # behind every payment


def test_pooled_equals_a_plain_reference() -> None:
    rng = np.random.default_rng(0)
    index, x = rng.integers(0, 9, 60), rng.normal(size=(60, 3))
    found = pooled(index, x, 10)
    for account in range(9):
        rows = x[index == account]
        plain = np.concatenate([rows.mean(0), rows.max(0), rows.std(0), rows[-1], [np.log1p(len(rows))]])
        np.testing.assert_allclose(found[account], plain, rtol=1e-5, atol=1e-5)
    assert np.isnan(found[9, :-1]).all()


def test_accounts_read_their_transfers_and_those_at_the_other_end() -> None:
    rng = np.random.default_rng(1)
    data = Accounts(
        rng.random(40) < 0.2, *rng.integers(0, 40, (2, 300)), rng.random(300) * 100, np.sort(rng.integers(1, 20, 300))
    )
    batch = transfers(data)
    assert (np.diff(batch["timestamp"].cast("int64").to_numpy()) > 0).all()
    read = reading(data)
    assert len(read) == 40
    np.testing.assert_array_equal(read, reading(data._replace(fraud=~data.fraud)))  # no label enters
    judged = np.concatenate([test for _, test in folds(data, 0)])
    assert sorted(judged) == list(range(40))


def test_the_second_round_reads_the_most_suspect_counterparties_and_no_label_of_who_is_judged() -> None:
    rng = np.random.default_rng(2)
    n = 200
    data = Accounts(
        rng.random(n) < 0.3, *rng.integers(0, n, (2, 900)), rng.random(900) * 100, np.sort(rng.integers(1, 20, 900))
    )
    score = rng.normal(size=n)
    found = most_suspect(data.source, data.target, score)
    for account in range(n):
        plain = sorted(score[np.unique(data.target[data.source == account])], reverse=True)[:3]
        np.testing.assert_array_equal(found[account], plain + [np.nan] * (3 - len(plain)))
    x = rng.normal(size=(n, 5)).astype(np.float32)
    train, test = folds(data, 0)[0]
    other = data.fraud.copy()
    other[test] = ~other[test]
    np.testing.assert_array_equal(two_rounds(data, x, train, 0), two_rounds(data._replace(fraud=other), x, train, 0))


def test_a_worker_reads_its_own_neighbours_each_once() -> None:
    near = [[1, 2, 3], [0], [0, 3], [0, 2]]
    first = np.cumsum([0, *map(len, near)])
    none = np.zeros((1, 4), bool)
    graph = Graph(np.zeros((4, 2), np.float32), np.zeros(4, bool), first, np.concatenate(near), none, none, none)
    rng = np.random.default_rng(0)
    mixed = shuffled(graph, rng)
    for most in (1, 2, 5):
        found = drawn(mixed, np.arange(4), most, rng).numpy()
        assert found.shape == (4, most)
        for worker in range(4):
            kept_ones = found[worker][found[worker] >= 0].tolist()
            assert len(set(kept_ones)) == len(kept_ones) == min(most, len(near[worker]))
            assert set(kept_ones) <= set(near[worker])


def test_each_week_knows_only_labels_reported_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events, _ = history()
    files = tmp_path / "transactions.parquet", tmp_path / "labels.parquet"
    for kind, path in zip((Kind.TRANSACTION, Kind.LABEL), files, strict=True):
        pq.write_table(pa.Table.from_batches([batch for k, batch in events if k is kind]), path)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(prequential, "handbook_files", lambda: files)
    monkeypatch.setattr(prequential, "FIRST", datetime(2026, 2, 10, tzinfo=UTC))
    labels = pq.read_table(files[1])
    past = prequential.Past(History(events))
    for moment in (prequential.FIRST, prequential.FIRST + histories.WEEK):
        targets = past.targets(moment)
        plain = make_targets(contest.built(History.read(*files, stop=moment), prequential.ROLES), prequential.CONFIG)
        for part in ("train", "validation", "fraud"):
            np.testing.assert_array_equal(getattr(targets, part), getattr(plain, part))
        taught = np.concatenate([targets.train, targets.validation])
        known = sum(reported < moment for reported in labels["reported_at"].to_pylist())
        assert 0 < targets.fraud.sum() <= known < len(labels)
        assert len(targets.test) == 0
        payments = pq.read_table(files[0])["timestamp"].to_pylist()
        assert payments[taught[-1]] <= moment - histories.WEEK
    found = prequential.run(every=None, weeks=2)
    trees = {"trees: features, every week", "trees: features, once"}
    assert set(found) == {contest.RESEARCH, *trees}
    for weeks in found.values():
        assert list(weeks) == ["2026-02-10", "2026-02-17"]
    # The first week's trees are the same in both.
    assert len({found[name]["2026-02-10"] for name in trees}) == 1


def test_the_oracle_is_told_what_is_known_and_guesses_the_rest_by_how_long_it_was_not() -> None:
    day = 86_400_000_000
    #                  terminal 1 is taken over on day 10,  terminal 2 stays honest, a big amount on day 30
    time = day * np.array([1, 2, 10, 16, 18, 30, 36, 60])
    terminal = np.array([1, 2, 1, 1, 1, 2, 1, 2])
    kind = np.array([0, 0, 2, 2, 2, 1, 2, 0])
    told, share = oracle.scores(time, terminal, kind, np.arange(len(time)))
    # Day 16: the fraud of day 10 is not known yet. Day 36: those of days 16 and 18 are.
    assert told.tolist() == [False, False, False, False, True, True, True, False]
    assert share[0] == 1  # nothing known of the terminal
    assert share[2] == pytest.approx(9 / 28)  # honest on day 1
    assert share[3] == pytest.approx(15 / 28)
    assert share[7] == 1  # longer than a takeover lasts since the last that was none


def test_the_ring_oracle_is_told_of_a_ring_once_two_of_its_accounts_met(tmp_path: Path) -> None:
    #           a and b work for ring r and share device d; c pays at d by chance, v is a victim, e is nobody
    payments = [
        ("a", "d", "build_up", False),  # alone at d so far
        ("a", "d", "build_up", False),
        ("b", "d", "build_up", False),  # told: a was there
        ("a", "x", "camouflage", False),  # told: a and b have met, whatever device
        ("v", "d", "attack", True),  # told by the device
        ("c", "d", None, False),  # likewise
        ("v", "y", None, False),  # a victim works for nobody
        ("e", None, None, False),
    ]
    account, device, phase, fraud = map(list, zip(*payments, strict=True))
    n, none = len(payments), [None] * len(payments)
    ring = [None if p is None else "r" for p in phase]
    pq.write_table(
        pa.table(
            {
                "timestamp": pa.array(range(n), pa.timestamp("us", tz="UTC")),
                "account_id": account,
                "payee_id": pa.array(none, pa.string()),
                "device_id": device,
                "ip": pa.array(none, pa.string()),
                "merchant_id": ["m"] * n,
                "channel": ["ecom"] * n,
            }
        ),
        tmp_path / "transactions.parquet",
    )
    pq.write_table(pa.table({"ring_id": ring, "is_fraud": fraud}), tmp_path / "truth.parquet")
    members = {"ring_id": ["r"] * 3, "account_id": ["a", "b", "v"], "kind": ["account_takeover"] * 3}
    pq.write_table(pa.table({**members, "member_role": ["attacker"] * 2 + ["victim"]}), tmp_path / "members.parquet")
    cell, found = ring_oracle.cells(tmp_path)
    assert found.tolist() == fraud
    assert (cell >= 0).tolist() == [False, False, True, True, True, True, False, False]
    assert len(set(cell[2:6])) == 4  # before and during, by whom and by which tie


def test_the_mean_of_the_networks_stands_for_itself(small: Contest) -> None:
    rng = np.random.default_rng(0)
    runs = [{OURS: rng.random(len(small.rows)), "rules": rng.random(len(small.rows))} for _ in range(3)]
    found = table(small, runs)
    odds = np.mean([np.log(r[OURS] / (1 - r[OURS])) for r in runs], 0)
    assert found[contest.MEAN]["average_precision"] == [measures(small, odds)["average_precision"]]
    assert contest.MEAN not in table(small, runs[:1])
    peers = summary.figures_of(found, {})["average_precision"].peer
    assert peers is not None
    assert set(peers) == {"rules"}
