"""The leakage audit: clean inputs pass, planted leaks are named, and the three protocols are told apart."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.files.datasets import s_ffsd
from data.history import History
from data.journal.protocol import Events, Kind
from data.world.synthetic import WorldConfig, simulate
from gnn.errors import ModelError
from gnn.quality.audit import Audit, as_tables, at_once, audit, to_dict
from gnn.quality.leaks import (
    CAUSAL,
    NEXT_GAP,
    OWN_LABEL,
    PLANTED,
    WHOLE_HISTORY,
    LabelTimes,
    build,
    choose_probes,
    leaking,
)
from graph.dag.sampler import EDGE_FEATURES
from serve.cli.main import app
from tests.data.files.test_datasets import dataset
from tests.gnn.train.test_train import history
from tests.odd_histories import Odd


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("world")
    simulate(WorldConfig(transactions=20_000, seed=3)).write(folder)
    return {name: folder / f"{name}.parquet" for name in ("transactions", "labels")}


def named(files: dict[str, Path]) -> dict[str, Path]:
    return {"source": files["transactions"], "labels": files["labels"]}


@pytest.fixture(scope="module")
def found(world: dict[str, Path]) -> Audit:
    return audit(History.read(**named(world)))


def whole_history() -> tuple[tuple[Events, ...], tuple[str, ...], int]:
    known = History(history()[0])
    return known.events, known.roles, len(known.payments)


def test_planted_leaks_are_named_and_causal_inputs_are_not() -> None:
    events, roles, total = whole_history()
    inputs = {"causal": CAUSAL, "whole": WHOLE_HISTORY, "next": NEXT_GAP, "own": OWN_LABEL}
    whole, _ = build(events, roles, total)
    fraud = np.zeros(total, bool)
    fraud[whole.store.label_events().row] = True
    probes = choose_probes(fraud, fraud, 60)
    state, cut = build(events, roles, total, probes, inputs)
    assert state.store.rows == whole.store.rows == total
    named = {n: leaking(i.read(state, probes), cut[n], i.names(roles)) for n, i in inputs.items()}
    assert named["causal"] == ()
    assert named["next"] == ("planted.account.next_gap",)
    assert named["own"] == ("planted.payment.own_label",)
    assert "account.whole_history.count" in named["whole"]


def test_the_planted_look_at_the_future_shows_where_accounts_pay_once() -> None:
    payments, labels, fraud = Odd(payments=500, accounts=0).draw()
    known = History([(Kind.TRANSACTION, payments), (Kind.LABEL, labels)])
    probes = choose_probes(fraud, fraud, 60)
    whole, cut = build(known.events, known.roles, 500, probes, {"next": NEXT_GAP})
    assert leaking(NEXT_GAP.read(whole, probes), cut["next"], ("gap",)) == ("gap",)
    assert np.isfinite(NEXT_GAP.read(whole, np.arange(499))).all()


class Leaky:
    """A store in which each payment is its own newest neighbour, its newest label in plain sight."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def neighbours(self, rows: np.ndarray, k: int) -> np.ndarray:
        near = self._store.neighbours(rows, k)
        near[:, :, 0] = rows[:, None]
        return near

    def edges(self, rows: np.ndarray, near: np.ndarray, *more: Any) -> np.ndarray:
        ties, known = self._store.edges(rows, near, *more), self._store.believed(rows)[:, None]
        ties[:, :, 0, EDGE_FEATURES.index("labelled")] = known >= 0
        ties[:, :, 0, EDGE_FEATURES.index("fraud")] = known > 0
        return ties


def test_labels_seen_before_their_report_are_counted_and_clean_ones_are_not() -> None:
    """Planted: reports that reach the graph right behind their payments, and a payment that sees itself."""
    runs, _ = history()
    whole = History(runs)
    roles, total = whole.roles, len(whole.payments)
    clean, _ = build(whole.events, roles, total)
    times = LabelTimes(whole.events, clean)
    seeds = np.arange(0, total, 7)
    wrong, looked = times.early(clean, seeds)
    assert wrong == 0
    assert looked > 10_000
    labels = pa.Table.from_batches([b for kind, b in runs if kind is Kind.LABEL]).combine_chunks().to_batches()[0]
    early: list[Any] = []
    for kind, batch in runs:
        if kind is Kind.TRANSACTION:
            now = pa.compute.is_in(labels["transaction_id"], batch["transaction_id"])
            early += [(kind, batch), (Kind.LABEL, labels.filter(now))]
    planted, _ = build(History(early).events, roles, total)
    assert times.early(planted, seeds)[0] > 100
    labelled = np.unique(clean.store.label_events().row)
    seen, _ = times.early(SimpleNamespace(store=Leaky(clean.store)), labelled)
    assert seen >= len(labelled)


def test_bits_are_compared_and_a_missing_value_equals_itself() -> None:
    a = np.array([[1.0, np.nan, 0.0], [2.0, 5.0, 1.0]], np.float32)
    b = a.copy()
    assert leaking(a, b, ("x", "y", "z")) == ()
    b[1, 2] = np.nextafter(np.float32(1), np.float32(2))
    b[0, 1] = 3
    assert leaking(a, b, ("x", "y", "z")) == ("y", "z")


def test_what_the_journal_had_said_equals_a_plain_walk_through_it() -> None:
    runs, _ = history()
    events_of_it, roles, total = whole_history()
    state, _ = build(events_of_it, roles, total)
    times = LabelTimes(events_of_it, state)
    rng = np.random.default_rng(0)
    last = sum(len(batch) for _, batch in runs)
    labelled = rng.choice(state.store.label_events().row, 200)
    rows = np.concatenate([labelled, rng.integers(0, total, 50)])
    before = rng.integers(0, last + 1, len(rows))
    row_of = {
        i: n for n, i in enumerate(i for k, b in runs if k is Kind.TRANSACTION for i in b["transaction_id"].to_pylist())
    }
    events, offset = [], 0
    for kind, batch in runs:
        if kind is Kind.LABEL:
            pairs = zip(batch["transaction_id"].to_pylist(), batch["is_fraud"].to_pylist(), strict=True)
            events += [(offset + n, row_of[i], int(f)) for n, (i, f) in enumerate(pairs)]
        offset += len(batch)
    plain = [
        ([-1] + [f for at, r, f in events if r == row and at < cut])[-1] for row, cut in zip(rows, before, strict=True)
    ]
    np.testing.assert_array_equal(times.known(rows, before), plain)
    assert {-1, 1} <= set(plain)


def test_labels_at_once_come_right_behind_their_payments(world: dict[str, Path]) -> None:
    judged = History.read(**named(world)).labelled()
    known: set[str] = set()
    last = ""
    for kind, batch in at_once(judged):
        ids = batch["transaction_id"].to_pylist()
        if kind is Kind.LABEL:
            assert ids == [last]
            known.update(ids)
        last = ids[-1]
    payments = judged.payments["transaction_id"].to_numpy()
    assert known == set(payments[judged.labelled])
    again = pa.Table.from_batches([b for k, b in at_once(judged) if k is Kind.TRANSACTION])
    assert again["transaction_id"].to_pylist() == payments.tolist()


def test_the_strict_protocol_leaks_nothing_and_the_others_do(found: Audit) -> None:
    published, clean, strict = found.splits
    assert found.sound
    assert strict.leaks == ()
    assert (found.early_labels, found.early_targets) == (0, 0)
    assert found.early_at_once > 0
    for case in (published, clean):
        assert "account.fraud.7d" in case.leaks
        assert "merchant.whole_history.count" in case.leaks
    assert (clean.payments, clean.frauds) == (strict.payments, strict.frauds)
    assert strict.average_precision < published.average_precision
    assert len(found.planted) == len(PLANTED)
    for case in found.planted:
        assert len(case.leaks) == 1
        assert case.leaks[0].startswith("planted.")
    assert found.planted[1].average_precision > 0.95  # the label itself says nearly all
    assert json.loads(json.dumps(to_dict(found)))["sound"]
    assert [table.row_count for table in as_tables(found)] == [5, 5, 3]


def test_a_leak_that_is_not_caught_makes_the_audit_unsound(found: Audit) -> None:
    missed = replace(found.planted[0], leaks=())
    assert not replace(found, planted=(missed, found.planted[1])).sound
    assert not replace(found, early_labels=1).sound
    assert not replace(found, early_targets=1).sound


def test_too_little_to_judge_is_refused(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--published"):
        audit(History.read(**named(world)), published="best")
    none = pq.read_table(world["labels"]).slice(0, 0)
    pq.write_table(none, tmp_path / "none.parquet")
    with pytest.raises(ModelError):
        audit(History.read(world["transactions"], tmp_path / "none.parquet"))


def test_the_command_prints_the_gaps(
    world: dict[str, Path],
    found: Audit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = {}

    def audited(history: History, **options: object) -> Audit:
        asked.update(options, history=history)
        return found

    monkeypatch.setattr("gnn.quality.audit.audit", audited)
    words = [str(word) for name, path in world.items() for word in (f"--{name}", path)]
    with pytest.raises(SystemExit) as left:
        app(["audit", *words, "--test-from", "2026-03-01", "--json", str(tmp_path / "audit.json")])
    assert left.value.code == 0
    assert asked["history"].payments.equals(History.read(**named(world)).payments)
    assert len(asked["history"].labels) > 0
    assert asked["test_start"] == datetime(2026, 3, 1, tzinfo=UTC)
    printed = capsys.readouterr().out
    for said in ("published", "clean", "strict", "planted.account.next_gap", "nothing from the future"):
        assert said in printed
    assert json.loads((tmp_path / "audit.json").read_text())["splits"][2]["leaks"] == []
    found = replace(found, early_labels=1)
    with pytest.raises(SystemExit) as left:
        app(["audit", *words])
    assert left.value.code == 1
    assert "LEAKS" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        app(["audit", "--transactions", "t.parquet"])
    assert left.value.code == 2


def test_known_at_once_flatters_s_ffsd(tmp_path: Path) -> None:
    payments, labels = s_ffsd(dataset("s_ffsd/S-FFSD.zip"))
    payments = payments.slice(0, 20_000)  # a quarter will do
    labels = labels.filter(pa.compute.is_in(labels["transaction_id"], payments["transaction_id"].combine_chunks()))
    for table, name in ((payments, "t"), (labels, "l")):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    found = audit(History.read(tmp_path / "t.parquet", tmp_path / "l.parquet"))
    _, clean, strict = found.splits
    assert found.sound
    assert clean.average_precision > strict.average_precision + 0.05
