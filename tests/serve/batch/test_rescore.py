"""Re-scoring: the scores of the service, the same bytes whoever scores and wherever a run was stopped."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import DataError
from data.files.sources import merged
from data.history import numbered
from data.journal.protocol import SCHEMAS, Kind
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import load, untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.replay import capacity_for
from gnn.score.slices import CpuSlices
from graph.state import GraphState
from serve.batch import rescore as module
from serve.batch.manifest import SUCCESS, difference, read_manifest
from serve.batch.partitions import SCORES
from serve.batch.rescore import Rescored, rescore
from serve.batch.source import FileSource, open_source
from serve.batch.workers import HereWorkers, WorkersLost
from serve.errors import ServeError
from serve.settings import Settings
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device", "payee")
DAY = 86_400_000_000
N, BLOCK = 9_000, 2_048
THRESHOLDS = {"challenge": 0.2, "review": 0.25, "decline": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose window is far shorter than the history, and the history as files and as a journal."""
    folder = tmp_path_factory.mktemp("rescore")
    untrained(ROLES, neighbours=4, window_rows=1_500).save(folder / "model")
    untrained(ROLES, neighbours=4, window_rows=1_500, seed=9).save(folder / "other")
    payments = payment_batch(N, seed=4, accounts=700, devices=300)
    labels = [label_batch(payments, [row], [row % 3 > 0], DAY // 8) for row in range(0, N, 40)]
    labels += [label_batch(payments, [row], [row % 2 > 0], DAY // 4) for row in range(0, N, 200)]
    pq.write_table(pa.Table.from_batches([payments]), folder / "t.parquet")
    pq.write_table(pa.Table.from_batches(labels), folder / "l.parquet")
    with SqliteJournal(folder / "journal.sqlite") as journal:
        for kind, batch in merged(folder / "t.parquet", folder / "l.parquet"):
            with journal.begin() as commit:
                commit.append(kind, batch)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    """Probabilities as the service computes them: one event after the other, over a graph that holds everything."""
    artifact = load(folder / "model")
    state = GraphState(ROLES, capacity_for(N, artifact.config.window), artifact.config.window)
    scorer, parts = CpuScorer(artifact, state), []
    for events in numbered(merged(folder / "t.parquet", folder / "l.parquet")):
        rows = state.apply(events)
        parts.append(scorer.score(rows.start, rows.stop) if len(rows) else np.empty(0))
    return np.concatenate(parts)


def workers(folder: Path, count: int = 1, block: int = BLOCK, model: str = "model") -> HereWorkers:
    artifact = load(folder / model)
    return HereWorkers([CpuSlices(artifact, block, 1) for _ in range(count)], artifact.config.layers)


def run(folder: Path, out: Path, count: int = 1, source: Any = None, model: str = "model", **more: Any) -> Rescored:
    return rescore(
        folder / model,
        source or open_source(folder / "t.parquet", folder / "l.parquet"),
        out,
        settings=Settings(model=folder / model, insecure=True, **more.pop("thresholds", THRESHOLDS)),
        make_workers=more.pop("make_workers", partial(workers, folder, count, model=model)),
        block_rows=BLOCK,
        **more,
    )


def scores(out: Path) -> pa.Table:
    """The scores in the order of the journal."""
    files = sorted(out.glob("date=*/part-*.parquet"))
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in files]).sort_by("journal_offset")


def content(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob("date=*/*"))}


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    run(folder, out)
    return content(out)


@pytest.mark.parametrize("source", ["files", "journal"])
def test_scores_are_those_of_the_service(folder, expected, tmp_path, source):
    given = open_source(folder / "journal.sqlite") if source == "journal" else None
    done = run(folder, tmp_path, source=given)
    table = scores(tmp_path)
    assert done.payments == done.scored == len(table) == N
    assert table.schema.equals(SCORES)
    np.testing.assert_allclose(table["fraud_probability"].to_numpy(), expected, rtol=0, atol=1e-5)
    assert table["transaction_id"].to_pylist() == pq.read_table(folder / "t.parquet")["transaction_id"].to_pylist()
    np.testing.assert_allclose(1 / (1 + np.exp(-table["log_odds"].to_numpy())), table["fraud_probability"].to_numpy())
    bounds = np.array([THRESHOLDS[name] for name in ("challenge", "review", "decline")])
    words = np.array(["approve", "challenge", "review", "decline"])
    found = words[np.searchsorted(bounds, table["fraud_probability"].to_numpy(), "right")]
    assert table["decision"].to_pylist() == found.tolist()
    assert len(set(found)) > 2
    for path in tmp_path.glob("date=*/*"):
        days = set(np.datetime_as_string(pq.read_table(path, partitioning=None)["timestamp"].to_numpy(), "D"))
        assert {f"date={day}" for day in days} == {path.parent.name}
    assert (tmp_path / SUCCESS).exists()


@pytest.mark.parametrize("count", [2, 7])
def test_the_bytes_are_the_same_however_many_score(folder, undisturbed, tmp_path, count, monkeypatch):
    monkeypatch.setattr("gnn.score.slices.ROWS_PER_BATCH", 300)  # so that blocks of a test give all of them a slice
    run(folder, tmp_path, count)
    assert content(tmp_path) == undisturbed


class Killed(BaseException):
    """What stands for SIGKILL: nothing catches it."""


def killing(monkeypatch: pytest.MonkeyPatch, after: int, where: str) -> None:
    """Let the n-th call of a function of the run be its last."""
    owner: Any = module._Run if hasattr(module._Run, where) else module
    function, left = getattr(owner, where), [after]

    def once(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return function(*arguments, **named)

    monkeypatch.setattr(owner, where, once)


@pytest.mark.parametrize("snapshots", [0.0, 3600.0])
@pytest.mark.parametrize(("where", "after"), [("write_days", 2), ("write_manifest", 4), ("_save", 1), ("_start", 3)])
def test_a_run_that_was_killed_goes_on_with_the_same_bytes(
    folder, undisturbed, tmp_path, monkeypatch, where, after, snapshots
):
    with monkeypatch.context() as patch:
        killing(patch, after, where)
        with pytest.raises(Killed):
            run(folder, tmp_path, snapshot_every_s=snapshots)
    assert not (tmp_path / SUCCESS).exists()
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in named(tmp_path)}
    orphan = tmp_path / "date=2023-11-14" / "part-000000777777.parquet"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"half")
    done = run(folder, tmp_path, snapshot_every_s=snapshots)
    assert content(tmp_path) == undisturbed
    assert done.payments == N
    assert done.scored == max(0, N - BLOCK * len({p.split("/")[1] for p in before}))
    assert all((tmp_path / path).stat().st_mtime_ns == at for path, at in before.items())  # none was written again
    assert run(folder, tmp_path).scored == 0


def named(out: Path) -> list[str]:
    manifest = read_manifest(out)
    assert manifest is not None
    return [part["path"] for block in manifest.blocks for part in block.parts]


def test_lost_workers_are_replaced_and_nothing_is_scored_twice(folder, undisturbed, tmp_path):
    started: list[int] = []

    class Dying(HereWorkers):
        def start(self, stretch: Any) -> Callable[[], Any]:
            started.append(stretch.first)
            if started.count(stretch.first) == 1 and stretch.first in (BLOCK, 3 * BLOCK):
                raise WorkersLost("the machine is gone")
            return super().start(stretch)

    def make() -> HereWorkers:
        made = workers(folder)
        return Dying(made._workers, made._layers)

    run(folder, tmp_path, make_workers=make)
    assert content(tmp_path) == undisturbed


def test_workers_lost_again_and_again_end_the_run(folder, tmp_path):
    class Dead(HereWorkers):
        def start(self, stretch: Any) -> Callable[[], Any]:
            raise WorkersLost("no route to host")

    with pytest.raises(ServeError, match=r"5 times in a row.*no route to host"):
        run(folder, tmp_path, make_workers=lambda: Dead([], 1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "other"}, "the model: name was"),
        ({"thresholds": {**THRESHOLDS, "decline": 0.9}}, "the thresholds: decline was 0.3, and is 0.9 now"),
        ({"source": "t"}, "the input: labels was"),
    ],
)
def test_a_run_of_something_else_is_refused_and_the_difference_named(folder, tmp_path, monkeypatch, change, says):
    with monkeypatch.context() as patch:
        killing(patch, 3, "write_days")
        with pytest.raises(Killed):
            run(folder, tmp_path)
    if "source" in change:
        change = {"source": open_source(folder / "t.parquet")}
    with pytest.raises(ServeError, match=says):
        run(folder, tmp_path, **change)
    done = run(folder, tmp_path, restart=True, **change)
    assert done.scored == N


def test_scores_that_somebody_removed_are_missed(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killing(patch, 3, "write_days")
        with pytest.raises(Killed):
            run(folder, tmp_path)
    gone = tmp_path / named(tmp_path)[0]
    gone.unlink()
    with pytest.raises(ServeError, match="is missing: somebody changed"):
        run(folder, tmp_path)


def test_a_journal_that_grew_is_read_as_far_as_it_was(folder, tmp_path):
    source = open_source(folder / "journal.sqlite")
    earlier = {**source.identity, "events": 5_000}
    again = open_source(folder / "journal.sqlite", earlier=earlier)
    assert again.identity == earlier
    assert sum(len(events.batch) for events in again.events(1_000)) == 4_000
    with pytest.raises(DataError, match="ends at event"):
        open_source(folder / "journal.sqlite", earlier={**earlier, "events": 10**9})


def test_files_in_any_order_a_folder_and_an_address_give_the_same_events(folder, tmp_path):
    import fsspec

    table = pq.read_table(folder / "t.parquet")
    hive = tmp_path / "hive"
    for i, part in enumerate([table.slice(6_000), table.slice(0, 3_000), table.slice(3_000, 3_000)]):
        (hive / f"part={i}").mkdir(parents=True)
        pq.write_table(part, hive / f"part={i}" / "x.parquet")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "t.parquet"), "/ringwatch-test/t.parquet")

    def ids(source: FileSource) -> Iterator[str]:
        for events in source.events(0):
            if events.kind is Kind.TRANSACTION:
                yield from events.batch.column("transaction_id").to_pylist()

    whole = table["transaction_id"].to_pylist()
    for where in (hive, f"{hive}/*/*.parquet", "memory://ringwatch-test/t.parquet"):
        source = open_source(where, folder / "l.parquet")
        assert isinstance(source, FileSource)
        assert list(ids(source)) == whole
        assert json.loads(json.dumps(source.identity))["kind"] == "files"


def test_standard_input_and_an_empty_history_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="cannot be read again"):
        open_source("-")
    pq.write_table(pq.read_table(folder / "t.parquet").slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(ServeError, match="no payment"):
        run(folder, tmp_path / "out", source=open_source(tmp_path / "none.parquet"))


def test_a_difference_is_named_by_its_first_key():
    assert difference({"a": {"b": 1}}, {"a": {"b": 1}}) is None
    assert difference({"input": {"events": 1}}, {"input": {"events": 2}}) == "the input: events was 1, and is 2 now"


def test_rings_of_the_journal_are_named_from_their_event_on(folder, tmp_path):
    payments = pq.read_table(folder / "t.parquet").to_batches()[0].slice(0, 4_000)
    name = payments.column("account_id")[3_000].as_py()
    ring = {
        "ring_id": "K-1",
        "version": 1,
        "state": "active",
        "confidence": 0.99,
        "members": [{"role": "account", "name": name, "member_role": "account"}],
        "at": payments.column("timestamp")[1_999].as_py(),
    }
    with SqliteJournal(tmp_path / "journal.sqlite") as journal, journal.begin() as commit:
        commit.append(Kind.TRANSACTION, payments.slice(0, 2_000))
        commit.append(Kind.RING, pa.RecordBatch.from_pylist([ring], SCHEMAS[Kind.RING]))
        commit.append(Kind.TRANSACTION, payments.slice(2_000))
    run(folder, tmp_path / "out", source=open_source(tmp_path / "journal.sqlite"))
    table = scores(tmp_path / "out")
    of_ring = np.array(payments.column("account_id").to_pylist()) == name
    expected = [i >= 2_000 and bool(mine) for i, mine in enumerate(of_ring)]
    assert table["ring_id"].is_valid().to_pylist() == expected
    assert sum(of_ring[:2_000]) > 0
    assert table["journal_offset"][2_000].as_py() == 2_001
