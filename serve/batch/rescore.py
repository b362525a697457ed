"""Score a history of any size with a model: read as a stream, scored by workers, written day by day, resumed at will.

One cheap sequential pass builds the graph, in memory that a window of payments bounds, and cuts it into blocks. Workers
score the blocks (`gnn.score.slices`), with the kernels of the service: the scores are those that were given online.
What is done is on disk before the next block is counted (`serve.batch.manifest`): a run that is killed goes on where it
was, with the same bytes in the end.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from data.journal.protocol import Events, Kind
from data.report import BESIDE, Report, silent
from gnn.model.artifact import Artifact, load
from gnn.score.slices import CpuSlices
from graph.dag.features import feature_names
from graph.dag.store import GraphStore
from graph.slices import Stretch, cut
from graph.state import GraphState
from serve.batch.asked import Explained, Since, what_is_asked
from serve.batch.explained import Explainer
from serve.batch.manifest import (
    SUCCESS,
    Block,
    Manifest,
    check_parts,
    difference,
    read_manifest,
    remove_orphans,
    remove_run,
    replace_file,
    write_manifest,
)
from serve.batch.partitions import score_table, write_days
from serve.batch.source import BatchSource
from serve.batch.state import IN_FLIGHT, RunState
from serve.batch.workers import HereWorkers, LateWorkers, RayWorkers, ScoredBlock, Workers, WorkersLost
from serve.decide.decider import Decider
from serve.errors import ServeError
from serve.settings import Settings

BLOCK_ROWS: Final = 1 << 16
SNAPSHOT_EVERY_S: Final = 60.0
MOST_LOSSES: Final = 5  # times in a row that workers are lost before a block is done

MakeWorkers = Callable[[], Workers]


@dataclass(frozen=True)
class Rescored:
    """What a run did.

    Attributes:
        folder: Where the scores are.
        payments: Scored in all, by this call and by those that it went on from.
        scored: Scored by this call.
        seconds: This call took, Ray's start included.
        actors: Who scored.
        stages: Seconds by stage: reading, graph, scoring (waiting for it), deciding, writing, state.
    """

    folder: Path
    payments: int
    scored: int
    seconds: float
    actors: str
    stages: dict[str, float]


def rescore(
    model: Path | str,
    source: BatchSource,
    folder: Path | str,
    *,
    settings: Settings | None = None,
    device: str = "auto",
    actors: int | None = None,
    make_workers: MakeWorkers | None = None,
    block_rows: int = BLOCK_ROWS,
    snapshot_every_s: float = SNAPSHOT_EVERY_S,
    restart: bool = False,
    reasons: Explained = "none",
    since: Path | str | None = None,
    report: Report = silent,
) -> Rescored:
    """Score every payment, or go on with a run that stopped.

    Args:
        model: Folder of the artifact.
        source: What to score, see `serve.batch.source.open_source`.
        folder: For the scores: `date=YYYY-MM-DD/part-*.parquet` (`serve.batch.partitions.SCORES`), `manifest.json`,
            and `_SUCCESS` once all are there. One that holds a run that stopped is gone on with.
        settings: Thresholds of the decisions where the journal activates no policy; by default the environment's.
        device: `auto` takes GPUs where the cluster has them.
        actors: How many to use; by default one for each GPU, or each machine. 0 scores in this process, on the CPU,
            without Ray.
        make_workers: Makes other workers than Ray's.
        block_rows: Payments that are scored, written and counted at once.
        snapshot_every_s: Seconds between two snapshots of the graph, from which a run that was killed goes on.
        restart: Remove what the folder holds of an earlier run, and begin anew.
        reasons: For which payments to write the column `reasons`: `risky` are those from the challenge threshold on.
        since: Folder of a run that is done, by the same model: only payments behind its last one are scored, from what
            it kept. The source has to begin with what that run had read.
        report: Told of progress.

    Returns:
        What was done.

    Raises:
        ServeError: There is no payment; the folder, or that of `since`, holds a run of another model, input or
            thresholds, which is named; workers are lost again and again; or RAY_ADDRESS names a cluster that does not
            answer.
        DataError: The source cannot be read, or does not begin with what the run of `since` had read.
    """
    begin = time.perf_counter()
    artifact, folder = load(model), Path(folder)
    settings = settings or Settings.from_environment(model=Path(model), insecure=True)
    if since is not None and Path(since).resolve() == folder.resolve():
        raise ServeError(f"--since and --out are both {folder}: scores of a run are written to a folder of its own")
    former = None if since is None else Since(Path(since))
    if restart:
        remove_run(folder)
    run = _Run(artifact, source, folder, settings, block_rows, snapshot_every_s, report, reasons, former)
    before = run.manifest.rows

    def usual() -> Workers:
        if actors == 0:
            return HereWorkers([CpuSlices(artifact, block_rows)], artifact.config.layers)
        return RayWorkers(str(Path(model).resolve()), artifact, block_rows, device, actors)

    make_workers = make_workers or usual
    what = run.finished() or _until_done(run, make_workers)
    rows = run.manifest.rows - run.manifest.begins["row"]
    seconds = time.perf_counter() - begin
    return Rescored(folder, rows, run.manifest.rows - before, seconds, what, run.stages)


def _until_done(run: "_Run", make_workers: MakeWorkers) -> str:
    losses = 0
    while True:
        before = run.manifest.rows
        workers = LateWorkers(make_workers)
        try:
            run.go(workers)
            return workers.what
        except WorkersLost as error:
            losses = losses + 1 if run.manifest.rows == before else 1
            if losses == MOST_LOSSES:
                raise ServeError(
                    f"workers were lost {losses} times in a row, and no block was done: {error}"
                ) from error
        finally:
            workers.close()


class _Run:
    """A run: its manifest, and one way through the source for each set of workers that it is given."""

    def __init__(
        self,
        artifact: Artifact,
        source: BatchSource,
        folder: Path,
        settings: Settings,
        block_rows: int,
        snapshot_every_s: float,
        report: Report,
        reasons: Explained,
        since: Since | None,
    ) -> None:
        self._artifact, self._source, self._folder = artifact, source, folder
        self._settings, self._block_rows, self._every_s = settings, block_rows, snapshot_every_s
        self._report, self._reasons = report, reasons
        self._explainer: Explainer | None = None
        self._going = (time.perf_counter(), 0)  # since when, and from which row
        self._state = RunState(folder, artifact.roles, artifact.config, block_rows)
        self.stages: dict[str, float] = dict.fromkeys(
            ("reading", "graph", "scoring", "deciding", "writing", "state"), 0.0
        )
        asked = what_is_asked(artifact, source, settings, block_rows, reasons)
        if since is not None:
            asked = since.check(asked, source)
        found = read_manifest(folder)
        if found is not None and not found.blocks:
            found = None  # nothing is done yet that another request could spoil
        if found is not None and (other := difference(found.asked, asked)) is not None:
            raise ServeError(
                f"{folder} holds a run that was asked for something else: {other}. Take another --out, or "
                "--restart to remove it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.manifest = found or (Manifest(asked) if since is None else since.begin(asked, self._state))
        if found is None:
            write_manifest(folder, self.manifest)
        check_parts(folder, self.manifest)
        remove_orphans(folder, self.manifest)

    def finished(self) -> str | None:
        """Who scored, if the run is over already."""
        found: str | None = self.manifest.facts.get("actors") if (self._folder / SUCCESS).exists() else None
        return found

    def go(self, workers: Workers) -> None:
        """From what is done to the end of the source."""
        state, decider = self._resume()
        waiting: deque[_Waiting] = deque()
        pending: list[Events] = []
        saved, done = time.monotonic(), self.manifest.rows
        self._going = (time.perf_counter(), done)
        began = done == 0 or self._begin(state, workers)
        for events in self._pieces(state):
            with self._timing("graph"):
                state.apply(events)
            if state.store.rows <= done:  # done before: only what later rows read of it is made again
                decider.apply(events)
                began = began or (state.store.rows == done and self._begin(state, workers))
                continue
            pending.append(events)
            first = waiting[-1].last if waiting else self.manifest.rows
            if state.store.rows < self._end_of_block(first):
                continue
            waiting.append(self._start(workers, state, first, pending))
            pending = []
            if len(waiting) == IN_FLIGHT:
                self._commit(waiting.popleft(), state, decider)
            if time.monotonic() - saved > self._every_s:
                self._commit_all(waiting, state, decider)
                self._save(state, decider)
                saved = time.monotonic()
        self._end(workers, state, decider, waiting, pending)

    def _end(
        self, workers: Workers, state: GraphState, decider: Decider, waiting: deque["_Waiting"], pending: list[Events]
    ) -> None:
        first = waiting[-1].last if waiting else self.manifest.rows
        if state.store.rows > first:
            waiting.append(self._start(workers, state, first, pending))
            pending = []
        self._commit_all(waiting, state, decider)
        for events in pending:
            decider.apply(events)
        if self.manifest.rows == self.manifest.begins["row"]:
            behind = " behind those of the run that --since names" if self.manifest.rows else ""
            raise ServeError(f"there is no payment to score in this history{behind}")
        self._save(state, decider)
        self.manifest.facts = {"actors": workers.what, "events": state.applied, "prefix": asdict(self._source.prefix)}
        write_manifest(self._folder, self.manifest)
        replace_file(self._folder / SUCCESS, b"")

    def _resume(self) -> tuple[GraphState, Decider]:
        with self._timing("state"):
            found = self._state.resume(self.manifest.rows)
        decider = Decider(self._settings)
        if found.decider:
            decider.adopt(found.decider)
        if self._reasons != "none":
            self._explainer = Explainer(self._artifact, found.state)
        return found.state, decider

    def _begin(self, state: GraphState, workers: Workers) -> bool:
        """Hand workers the window before the first row that is not done, if the graph is there; returns whether."""
        rows = state.store.rows
        if rows < self.manifest.rows:
            return False
        with self._timing("state"):
            begin = max(state.store.oldest, rows - self._artifact.config.window.rows)
            kept = self._state.kept(self.manifest)
            workers.begin(self._cut(state, begin, all_labels=True), kept)
            if self._explainer is not None:
                self._explainer.take(kept)
        return True

    def _pieces(self, state: GraphState) -> Iterator[Events]:
        """The events that the graph expects, cut where blocks end."""
        stream = iter(self._source.events(state.applied))
        while True:
            with self._timing("reading"):
                events = next(stream, None)
            if events is None:
                return
            while len(events.batch):
                left = self._to_next_end(state.store.rows)
                piece = events
                if events.kind is Kind.TRANSACTION and len(events.batch) > left:
                    piece = replace(events, batch=events.batch.slice(0, left))
                yield piece
                n = len(piece.batch)
                events = replace(events, offset=events.offset + n, batch=events.batch.slice(n))

    def _to_next_end(self, rows: int) -> int:
        """Payments up to the end of the block at hand."""
        done = self.manifest.rows
        return done - rows if rows < done else self._end_of_block(rows) - rows

    def _end_of_block(self, row: int) -> int:
        """Blocks end at the same rows wherever a run begins, so that its files are those of a run of the whole."""
        return (row // self._block_rows + 1) * self._block_rows

    def _start(self, workers: Workers, state: GraphState, first: int, events: list[Events]) -> "_Waiting":
        with self._timing("graph"):
            stretch = self._cut(state, first)
        with self._timing("scoring"):  # workers in this process wait for the block before
            scored = workers.start(stretch)
        return _Waiting(first, state.store.rows, events, scored)

    def _commit_all(self, waiting: deque["_Waiting"], state: GraphState, decider: Decider) -> None:
        while waiting:
            self._commit(waiting.popleft(), state, decider)

    def _commit(self, block: "_Waiting", state: GraphState, decider: Decider) -> None:
        """Decide the payments of a block, write them, and count it as done."""
        with self._timing("scoring"):
            scored = block.scored()
        with self._timing("deciding"):
            table = self._decided(block, scored, state, decider)
        with self._timing("writing"):
            parts = write_days(table, self._folder, block.first)
        with self._timing("state"):
            kept = self._state.keep((block.first, block.last), scored.kept)
            self.manifest.blocks.append(Block(block.first, block.last, parts, kept))
            write_manifest(self._folder, self.manifest)
            self._state.forget(self.manifest)
        if self._source.expected:
            begin, first = self._going
            rate = (block.last - first) / (time.perf_counter() - begin)
            share = min(1.0, (block.events[-1].offset + 1) / self._source.expected)
            self._report(f"scoring{BESIDE}{rate:,.0f} payments/s", share)

    def _decided(self, block: "_Waiting", scored: ScoredBlock, state: GraphState, decider: Decider) -> pa.Table:
        for events in block.events:
            decider.apply(events)
        paid = [events for events in block.events if events.kind is Kind.TRANSACTION]
        payments = pa.concat_batches([events.batch for events in paid])
        offsets = np.concatenate([np.arange(e.offset, e.offset + len(e.batch)) for e in paid])
        calibration = self._artifact.calibration
        logit = scored.logit.astype(np.float64)
        probability = calibration.probability(logit)

        def features() -> Mapping[str, Any]:
            rows = np.arange(block.first, block.last)
            found = state.store.features(rows, self._artifact.config.settle_us)
            return dict(zip(feature_names(self._artifact.roles), found.T, strict=True))

        situation = decider.situation(payments, offsets, probability, features)
        decided = decider.decide(situation)
        log_odds = calibration.slope * logit + calibration.intercept
        table = score_table(payments, offsets, log_odds, probability, decided, situation.rings, self._artifact.version)
        if self._explainer is None:
            return table
        self._explainer.take(scored.kept)
        wanted = probability >= (self._settings.challenge if self._reasons == "risky" else 0.0)
        return table.append_column("reasons", self._explainer.column(block.first, wanted))

    def _save(self, state: GraphState, decider: Decider) -> None:
        with self._timing("state"):
            self._state.save(state, decider.facts())

    def _cut(self, state: GraphState, first: int, *, all_labels: bool = False) -> Stretch:
        store = state.store
        assert isinstance(store, GraphStore)  # as `RunState` makes them
        return cut(store, first, store.rows, all_labels=all_labels)

    def _timing(self, stage: str) -> "_Timing":
        return _Timing(self.stages, stage)


@dataclass(frozen=True)
class _Waiting:
    """A block whose scores are on their way: rows [first, last), its events, and who gives its scores."""

    first: int
    last: int
    events: list[Events]
    scored: Callable[[], ScoredBlock]


@dataclass
class _Timing:
    stages: dict[str, float]
    stage: str
    begin: float = 0.0

    def __enter__(self) -> None:
        self.begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.stages[self.stage] += time.perf_counter() - self.begin
