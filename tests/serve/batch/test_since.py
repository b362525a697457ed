"""Re-scoring goes on from a run that is done: the same scores as of one run over the whole."""

import json
import shutil
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
from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import load, untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.replay import capacity_for
from gnn.score.slices import CpuSlices
from graph.state import GraphState
from serve.batch.manifest import STATE, read_manifest
from serve.batch.partitions import REASON
from serve.batch.prefix import Passed
from serve.batch.rescore import Rescored, rescore
from serve.batch.source import open_source
from serve.batch.workers import HereWorkers
from serve.errors import ServeError
from serve.settings import Settings
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device", "payee")
DAY = 86_400_000_000
N, FIRST, BLOCK = 5_000, 2_600, 1_024  # FIRST is no end of a block
THRESHOLDS = {"challenge": 0.2, "review": 0.25, "decline": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a history as files and as a journal, and its beginning as files and as a journal of its own."""
    folder = tmp_path_factory.mktemp("since")
    untrained(ROLES, neighbours=4, window_rows=1_500).save(folder / "model")
    untrained(ROLES, neighbours=4, window_rows=1_500, seed=9).save(folder / "other")
    payments = payment_batch(N, seed=4, accounts=400, devices=200)
    labels = pa.Table.from_batches([label_batch(payments, [row], [row % 3 > 0], DAY // 8) for row in range(0, N, 20)])
    payments = pa.Table.from_batches([payments])
    pq.write_table(payments, folder / "t.parquet")
    pq.write_table(labels, folder / "l.parquet")
    (folder / "days").mkdir()
    pq.write_table(payments.slice(0, FIRST), folder / "days" / "1.parquet")
    known = pa.compute.is_in(labels["transaction_id"], payments["transaction_id"].slice(0, FIRST))
    pq.write_table(labels.filter(known), folder / "l1.parquet")  # some are reported behind the last payment of day 1
    journal = SqliteJournal(folder / "journal.sqlite")
    with journal:
        for kind, batch in merged(folder / "t.parquet", folder / "l.parquet"):
            with journal.begin() as commit:
                commit.append(kind, batch)
    return folder


def run(folder: Path, out: Path, source: Any, model: str = "model", **more: Any) -> Rescored:
    artifact = load(folder / model)
    return rescore(
        folder / model,
        source,
        out,
        settings=Settings(model=folder / model, insecure=True, **{**THRESHOLDS, **more.pop("thresholds", {})}),
        make_workers=partial(HereWorkers, [CpuSlices(artifact, BLOCK, 1)], artifact.config.layers),
        block_rows=BLOCK,
        **more,
    )


def files(folder: Path) -> Any:
    return open_source(folder / "t.parquet", folder / "l.parquet")


def content(out: Path, first: int = 0) -> dict[str, bytes]:
    """Files of blocks from a row on."""
    paths = sorted(out.glob("date=*/part-*"))
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in paths if int(p.stem.split("-")[1]) >= first}


def scores(out: Path) -> pa.Table:
    read = [pq.read_table(path, partitioning=None) for path in out.glob("date=*/part-*.parquet")]
    return pa.concat_tables(read).sort_by("journal_offset")


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(folder, out, files(folder), reasons="risky")
    return out


@pytest.fixture(scope="module")
def former(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("former")
    run(folder, out, open_source(folder / "days", folder / "l1.parquet"))
    return out


def check_same_as_whole(out: Path, whole: Path) -> None:
    aligned = -(-FIRST // BLOCK) * BLOCK
    assert content(out, aligned) == content(whole, aligned) != {}
    assert scores(out).equals(scores(whole).slice(FIRST))


def test_what_came_since_has_the_bytes_of_a_run_of_the_whole(folder, whole, former, tmp_path):
    done = run(folder, tmp_path, files(folder), since=former, reasons="risky")
    assert (done.payments, done.scored) == (N - FIRST, N - FIRST)
    check_same_as_whole(tmp_path, whole)


def test_it_needs_nothing_of_the_former_run_but_its_manifest_once_it_began(folder, whole, former, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(former, copy)

    class Killed(BaseException):
        pass

    def kill(stage: str, share: float) -> None:
        if stage.startswith("scoring"):
            raise Killed

    with pytest.raises(Killed):
        run(folder, tmp_path / "out", files(folder), since=copy, reasons="risky", report=kill)
    shutil.rmtree(copy / STATE)
    done = run(folder, tmp_path / "out", files(folder), since=copy, reasons="risky")
    assert 0 < done.scored < done.payments == N - FIRST
    check_same_as_whole(tmp_path / "out", whole)
    with pytest.raises(ServeError, match="nothing can go on from this run"):
        run(folder, tmp_path / "again", files(folder), since=copy)


def test_a_chain_of_runs_over_a_journal_gives_the_scores_of_one(folder, whole, tmp_path):
    source = open_source(folder / "journal.sqlite")
    before = None
    for i, events in enumerate((1_500, 3_100, source.identity["events"])):
        part = open_source(folder / "journal.sqlite", earlier={**source.identity, "events": events})
        run(folder, tmp_path / str(i), part, since=before, reasons="risky")
        before = tmp_path / str(i)
    assert pa.concat_tables(scores(tmp_path / str(i)) for i in range(3)).equals(scores(whole))


def test_another_beginning_is_refused_and_what_differs_is_named(folder, former, tmp_path):
    changed = tmp_path / "changed"
    changed.mkdir()
    first, rest = pq.read_table(folder / "days" / "1.parquet"), pq.read_table(folder / "t.parquet").slice(FIRST)
    pq.write_table(first.slice(1), changed / "1.parquet")
    pq.write_table(rest, changed / "2.parquet")
    with pytest.raises(DataError, match=r"are not those that .*former.*1\.parquet.*changed or gone"):
        run(folder, tmp_path / "a", open_source(changed, folder / "l.parquet"), since=former)
    pq.write_table(first.slice(0, 1_000), tmp_path / "short.parquet")
    with pytest.raises(DataError, match=r"ends after 1,000 events.*had read"):
        run(folder, tmp_path / "b", open_source(tmp_path / "short.parquet"), since=former)
    with pytest.raises(DataError, match="files input, and this one is journal"):
        run(folder, tmp_path / "c", open_source(folder / "journal.sqlite"), since=former)
    with pytest.raises(ServeError, match="the model: name was"):
        run(folder, tmp_path / "d", files(folder), model="other", since=former)
    with pytest.raises(ServeError, match="the thresholds: decline was"):
        run(folder, tmp_path / "e", files(folder), thresholds={"decline": 0.9}, since=former)
    with pytest.raises(ServeError, match="no payment to score in this history behind those"):
        run(folder, tmp_path / "f", open_source(folder / "days", folder / "l1.parquet"), since=former)
    with pytest.raises(ServeError, match="holds no run that is done"):
        run(folder, tmp_path / "g", files(folder), since=tmp_path / "nothing")
    with pytest.raises(ServeError, match="a folder of its own"):
        run(folder, former, files(folder), since=former)
    assert not any(tmp_path.glob("?/date=*"))


def test_a_journal_that_went_on_otherwise_is_refused(folder, tmp_path):
    source = open_source(folder / "journal.sqlite")
    run(folder, tmp_path / "out", open_source(folder / "journal.sqlite", earlier={**source.identity, "events": 1_200}))
    path = tmp_path / "restored.sqlite"
    with SqliteJournal(path) as journal:
        for kind, batch in merged(folder / "t.parquet", folder / "l.parquet"):
            if kind is Kind.LABEL and journal.end > 1_000:
                continue
            with journal.begin() as commit:
                commit.append(kind, batch)
    with pytest.raises(DataError, match=r"event 1,199 of .* is not the one"):
        run(folder, tmp_path / "b", open_source(path), since=tmp_path / "out")


def test_a_prefix_does_not_depend_on_how_events_are_cut(folder):
    def prefix(chunk: int) -> Any:
        passed = Passed()
        for _ in passed.through(numbered(merged(folder / "t.parquet", folder / "l1.parquet", chunk=chunk))):
            pass
        return passed.prefix

    assert prefix(77) == prefix(4_096)


def test_a_reason_for_every_payment_that_would_be_challenged_is_that_of_the_service(folder, whole, tmp_path):
    artifact = load(folder / "model")
    state = GraphState(ROLES, capacity_for(N, artifact.config.window), artifact.config.window)
    scorer = CpuScorer(artifact, state)
    for events in numbered(merged(folder / "t.parquet", folder / "l.parquet")):
        if len(rows := state.apply(events)):
            scorer.score(rows.start, rows.stop)
    table = scores(whole)
    assert table.schema.field("reasons").type == pa.list_(REASON)
    risky = [p >= THRESHOLDS["challenge"] for p in table["fraud_probability"].to_pylist()]
    assert table["reasons"].is_valid().to_pylist() == risky
    assert 0 < sum(risky) < N
    places = np.flatnonzero(risky)
    for place, why in zip(places.tolist(), scorer.reasons(places), strict=True):
        found = table["reasons"][place].as_py()
        assert [(r["code"], r["message"]) for r in found] == [(r.code, r.message) for r in why.reasons]
        assert [r["contribution"] for r in found] == pytest.approx([r.contribution for r in why.reasons], abs=2e-4)


def test_files_that_cannot_be_read_are_left_out_and_listed(folder, tmp_path):
    days = tmp_path / "days"
    days.mkdir()
    table = pq.read_table(folder / "t.parquet")
    for i in range(4):
        pq.write_table(table.slice(i * 500, 500), days / f"{i}.parquet")
    torn = (days / "1.parquet").read_bytes()
    (days / "1.parquet").write_bytes(torn[: len(torn) // 2])
    pq.write_table(table.slice(1_000, 500).drop_columns(["amount"]), days / "2.parquet")
    (days / "4.csv").write_text("transaction_id,account_id\n")
    with pytest.raises(DataError, match=r"1\.parquet"):
        run(folder, tmp_path / "stopped", open_source(days))
    skipped: list[Any] = []
    run(folder, tmp_path / "stopped", open_source(days, on_skip=skipped.append))  # nothing was done there yet
    assert [Path(one.file).name for one in skipped] == ["1.parquet", "2.parquet", "4.csv"]
    assert "amount" in skipped[1].reason
    ids = table["transaction_id"].to_pylist()
    assert scores(tmp_path / "stopped")["transaction_id"].to_pylist() == ids[:500] + ids[1_500:2_000]
    manifest = read_manifest(tmp_path / "stopped")
    assert manifest is not None
    assert [name for name, *_ in manifest.asked["input"]["payments"]] == ["0.parquet", "3.parquet"]
    assert json.loads(json.dumps(manifest.facts["prefix"]))["events"] == 1_000
    with pytest.raises(DataError, match="--keep-going is for files"):
        open_source(folder / "journal.sqlite", on_skip=skipped.append)
    for path in days.iterdir():
        path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="none of the 5 files of payments can be read"):
        open_source(days, on_skip=skipped.append)
