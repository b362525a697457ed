"""Mandates under a race: payments of the same budgets through two replicas that are killed again and again.

Each replica is a process that admits, journals, applies and decides as the service does (`Admission`, `Decider`),
without a graph and a score: budgets depend on neither. It kills itself (SIGKILL) before a commit, between commit and
apply, and behind both, and a new one sends the same again. What every payment was told is then compared with a plain
sum over the journal.

Example: python -m benchmarks.mandates 1000000
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.report import Figure, show, write
from data.journal.protocol import SCHEMAS, Kind
from data.journal.sqlite import SqliteJournal
from data.outcomes import PARTIAL, RELEASES
from serve.decide.decider import Decider
from serve.decide.terms import DAY_US, Recurrence, Terms
from serve.problems import Problem
from serve.replica.admission import Admission, Admitted, OutcomeCall, ScoreCall
from serve.replica.granted import MandateCall
from serve.settings import Settings

PLACES = ("before the commit", "between commit and apply", "behind both")
START_US = 1_767_225_600_000_000
KEEP_EVERY = 150_000  # events between two snapshots of a replica's books
# Payments by which no replica may be ahead of another: what a mandate said is held of the last 100,000 payments, and
# whoever sends one again does so sooner.
AHEAD = 40_000
Kill = Callable[[str], None]


@dataclass(frozen=True)
class Race:
    """What is raced.

    Attributes:
        payments: In all.
        mandates: They share.
        chunk: Payments of one call.
        seed: Of every draw.
        kill: Probability of a kill at each of `PLACES` of each call.
        replicas: That race.
    """

    payments: int = 1_000_000
    mandates: int = 4_000
    chunk: int = 1_000
    seed: int = 7
    kill: float = 0.01
    replicas: int = 2

    @property
    def chunks(self) -> int:
        """Calls that are needed."""
        return -(-self.payments // self.chunk)

    def terms(self, number: int) -> Terms:
        """Terms of a mandate: every third has a limit for each day as well. About half of the payments fit."""
        each = self.payments // self.mandates * 1_000
        daily = Recurrence("day", budget=max(2_000, each // 20)) if number % 3 == 0 else None
        return Terms(f"a{number}", "EUR", START_US + 400 * DAY_US, "bot", max(2_000, each // 2), recurrence=daily)

    def calls(self, chunk: int) -> tuple[ScoreCall, OutcomeCall]:
        """Payments of a chunk, over 30 days in all, and what becomes of some of them."""
        rng, first = np.random.default_rng([self.seed, chunk]), chunk * self.chunk
        number = np.arange(first, min(first + self.chunk, self.payments))
        n, which = len(number), rng.integers(self.mandates, size=len(number)).tolist()
        amount, at = rng.integers(1, 2_000, size=n), START_US + number * 30 * DAY_US // self.payments
        kinds = {1: "declined", 2: "expired", 3: "approved", 4: "reversed", 5: "refunded"}
        became = [kinds.get(i % 20) for i in number.tolist()]
        paid = {
            "transaction_id": [f"t{i}" for i in number.tolist()],
            "timestamp": at,
            "amount": amount,
            "currency": ["EUR"] * n,
            "mandate_id": [f"M{m}" for m in which],
            "account_id": [f"a{m}" for m in which],
            "agent_id": ["bot"] * n,
            "merchant_id": ["m"] * n,
        }
        told = {
            "transaction_id": paid["transaction_id"],
            "outcome": became,
            "outcome_id": [f"o{i}" for i in number.tolist()],
            "amount": [max(1, a // 2) if b in PARTIAL else None for a, b in zip(amount.tolist(), became, strict=True)],
            "at": at,
        }
        outcomes = _batch(Kind.OUTCOME, told, n)
        outcomes = outcomes.filter(outcomes["outcome"].is_valid())
        return ScoreCall(_batch(Kind.TRANSACTION, paid, n)), OutcomeCall(outcomes)


def _batch(kind: Kind, columns: dict[str, Any], n: int) -> pa.RecordBatch:
    """Events of these columns; the others are null."""
    schema = SCHEMAS[kind]
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@dataclass
class Contender:
    """A replica of the race, from the newest snapshot of its books on.

    Attributes:
        folder: Of the journal, snapshots, and what was answered.
        number: Which replica.
        kill: Called at each of `PLACES`; it may not return.
    """

    folder: Path
    number: int
    kill: Kill
    at: int = 0  # journal offset that is applied next
    kept: int = 0
    decider: Decider = field(init=False)

    def __post_init__(self) -> None:
        self.journal = SqliteJournal(self.folder / "journal.sqlite")
        self.decider = Decider(Settings(model=self.folder, journal=self.folder / "journal.sqlite", insecure=True))
        if (snapshot := self.folder / f"books-{self.number}.json").exists():
            held = json.loads(snapshot.read_text())
            self.at = self.kept = held["at"]
            self.decider.adopt(held["facts"])

    def catch_up(self, stop: int) -> None:
        """Apply what others wrote."""
        for events in self.journal.replay(self.at, stop):
            self.decider.apply(events)
            self.at = events.offset + len(events.batch)

    def process(self, *calls: ScoreCall | OutcomeCall | MandateCall) -> list[Any]:
        """One commit, then its decisions: as `Replica.process` does it."""
        with self.journal.begin() as commit:
            self.catch_up(commit.end)
            admission = Admission(commit, self.journal, mandates=self.decider.mandates)
            admission.look_up(calls)
            taken = [admission.take(call) for call in calls]
            admission.append()
            self.kill(PLACES[0])
        self.kill(PLACES[1])
        for events in commit.events:
            self.decider.apply(events)
            self.at = events.offset + len(events.batch)
        self.kill(PLACES[2])
        for problem in taken:
            if isinstance(problem, Problem):
                raise problem
        return [self._answered(one) if isinstance(one, Admitted) else one for one in taken]

    def keep(self) -> None:
        """Keep a snapshot of the books, now and then; whole or not at all."""
        if self.at - self.kept >= KEEP_EVERY:
            path = self.folder / f"books-{self.number}.json"
            new = path.with_suffix(".new")
            new.write_text(json.dumps({"at": self.at, "facts": self.decider.facts()}))
            os.replace(new, path)
            self.kept = self.at

    def run(self, race: Race, chunks: list[int]) -> None:
        """Send chunks, from the first that this replica has not answered."""
        for chunk in chunks:
            done = self.folder / f"said-{self.number}-{chunk}.npy"
            if not done.exists():
                payments, outcomes = race.calls(chunk)
                said = self.process(payments)[0]
                self.process(outcomes)
                new = done.with_suffix(".new.npy")
                np.save(new, said)
                os.replace(new, done)
                self.keep()

    def _answered(self, admitted: Admitted) -> np.ndarray:
        offsets = np.array(admitted.offsets)
        situation = self.decider.situation(admitted.call.batch, offsets, np.zeros(len(offsets)))
        decided = self.decider.decide(situation)
        # What is left is not known of a payment that is no longer held: -1, so that the check finds it.
        left = [-1 if d.mandate is None or d.mandate.remaining is None else d.mandate.remaining for d in decided]
        rows = [
            (d.mandate.within, d.decision == "decline", at) for d, at in zip(decided, left, strict=True) if d.mandate
        ]
        return np.column_stack([offsets, np.array(rows, np.int64)])


def chunks_of(race: Race, number: int) -> list[int]:
    """The chunks of a replica: its share, and each tenth of the others', which thus comes to two replicas."""
    return [c for c in range(race.chunks) if c % race.replicas == number or c % 10 == 0]


def grant_all(race: Race, folder: Path) -> None:
    """Make the journal, with the mandates."""
    contender = Contender(folder, 0, lambda _: None)
    contender.process(*(MandateCall(f"M{n}", race.terms(n), 1, START_US) for n in range(race.mandates)))
    contender.journal.close()


def check(race: Race, folder: Path) -> dict[str, int]:
    """Compare what was told with a plain sum over the journal: how many payments, and how many were told wrong.

    Returns:
        `payments` in the journal; `over`, payments behind which a mandate holds more than its budget;
        `refused_that_fitted` and `let_in_beyond`, answers that were wrong; `refused`, payments that did not fit;
        `twice`, payments told to two replicas, and `unlike`, those of them that were not told the same.
    """
    held: dict[str, dict[str, int]] = {f"M{n}": {} for n in range(race.mandates)}
    sums, days = dict.fromkeys(held, 0), dict[tuple[str, int], int]()
    day_of, fits = dict[str, int](), dict[int, bool]()
    terms = {f"M{n}": race.terms(n) for n in range(race.mandates)}
    over = clock = 0
    with SqliteJournal(folder / "journal.sqlite", readonly=True) as journal:
        for events in journal.replay():
            if events.kind not in (Kind.TRANSACTION, Kind.OUTCOME):
                continue
            for i, row in enumerate(_plain(events.batch)):
                name, payment = row["mandate_id"], row["transaction_id"]
                if events.kind is Kind.TRANSACTION:
                    clock = max(clock, row["timestamp"])
                    day, limit = clock // DAY_US, terms[name].recurrence
                    ok = sums[name] + row["amount"] <= terms[name].budget
                    ok = ok and (limit is None or days.get((name, day), 0) + row["amount"] <= limit.budget)
                    fits[events.offset + i] = ok
                    if ok:
                        held[name][payment], day_of[payment] = row["amount"], day
                        _move(sums, days, name, day, row["amount"])
                        over += sums[name] > terms[name].budget
                elif row["outcome"] in RELEASES and held[name].get(payment):
                    back = held[name][payment] if row["amount"] is None else min(row["amount"], held[name][payment])
                    held[name][payment] -= back
                    _move(sums, days, name, day_of[payment], -back)
    told: dict[int, tuple[int, ...]] = {}
    twice = unlike = wrong_in = wrong_out = 0
    for path in folder.glob("said-*.npy"):
        for offset, *said in np.load(path).tolist():
            if offset in told:
                twice, unlike = twice + 1, unlike + (told[offset] != tuple(said))
            told[offset] = tuple(said)
    for offset, ok in fits.items():
        within, declined, _ = told[offset]
        wrong_in += bool(within and not ok) + bool(not ok and not declined)
        wrong_out += bool(ok and not within)
    return {
        "payments": len(fits), "refused": len(fits) - sum(fits.values()), "over": over,
        "let_in_beyond": wrong_in, "refused_that_fitted": wrong_out, "twice": twice, "unlike": unlike,
    }  # fmt: skip


def _move(sums: dict[str, int], days: dict[tuple[str, int], int], name: str, day: int, amount: int) -> None:
    sums[name] += amount
    days[name, day] = days.get((name, day), 0) + amount


def _plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    wanted = [n for n in ("transaction_id", "mandate_id", "amount", "outcome", "timestamp") if n in batch.schema.names]
    batch = batch.select(wanted)
    if "timestamp" in wanted:
        batch = batch.set_column(wanted.index("timestamp"), "timestamp", batch.column("timestamp").cast(pa.int64()))
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows


def _replica(race: Race, folder: str, number: int, life: int) -> None:
    rng = np.random.default_rng([race.seed, number, life])

    def kill(place: str) -> None:
        if rng.random() < race.kill / 2:  # a chunk is two calls
            os.kill(os.getpid(), signal.SIGKILL)

    contender = Contender(Path(folder), number, kill)
    for chunk in chunks_of(race, number):
        while chunk > _slowest(race, Path(folder)) + AHEAD // race.chunk:
            time.sleep(0.01)
        contender.run(race, [chunk])


def _slowest(race: Race, folder: Path) -> int:
    """The newest chunk of the replica that is behind all others; -1 before it has answered any."""
    newest = dict.fromkeys(range(race.replicas), -1)
    for path in folder.glob("said-*.npy"):
        if path.name.count(".") == 1:  # not one that is being written
            number, chunk = map(int, path.stem.split("-")[1:])
            newest[number] = max(newest[number], chunk)
    return min(newest.values())


def main() -> None:
    """Race, check, and write the result."""
    payments = int(sys.argv[1]) if len(sys.argv) > 1 else Race.payments
    race, begin, kills = Race(payments, max(12, payments // 250)), time.perf_counter(), 0
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload(["benchmarks.mandates"])
    with tempfile.TemporaryDirectory() as folder:
        grant_all(race, Path(folder))
        alive = {
            n: (0, spawn.Process(target=_replica, args=(race, folder, n, 0), daemon=True)) for n in range(race.replicas)
        }
        for _, process in alive.values():
            process.start()
        while alive:
            for number, (life, process) in list(alive.items()):
                process.join(0.05)
                if process.exitcode is None:
                    continue
                del alive[number]
                if process.exitcode == -signal.SIGKILL:
                    kills += 1
                    again = spawn.Process(target=_replica, args=(race, folder, number, life + 1), daemon=True)
                    again.start()
                    alive[number] = life + 1, again
                elif process.exitcode:
                    raise SystemExit(f"replica {number} failed with status {process.exitcode}")
        seconds = time.perf_counter() - begin
        found = check(race, Path(folder))
    figures = {
        "payments": Figure(found["payments"], "raced over two replicas", 1_000_000, "higher"),
        "over_budget": Figure(found["over"] + found["let_in_beyond"], "payments beyond a budget", 0, "lower"),
        "refused_that_fitted": Figure(found["refused_that_fitted"], "payments", 0, "lower"),
        "told_unlike": Figure(found["unlike"], "payments that two replicas answered, not alike", 0, "lower"),
        "kills": Figure(kills, "SIGKILL"),
        "rate": Figure(found["payments"] / seconds, "payments/s, kills and restarts included"),
    }
    if payments == Race.payments:
        write("mandates", figures, about=__doc__, facts={**found, "seconds": round(seconds, 1)})
    show("mandates", figures)


if __name__ == "__main__":
    main()
