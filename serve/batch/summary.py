"""What a run of re-scoring came to, beside an earlier one: read from the files of both, in bounded memory."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from serve.batch.manifest import SUCCESS, replace_file
from serve.errors import ServeError

SUMMARY: Final = "summary.json"
BINS: Final = 10  # of a population stability index: tenths of the old scores
MOST_SEGMENTS: Final = 20  # of each kind, those with the most payments
SEGMENTS: Final = ("currency", "channel", "country", "ring_id")
_EMPTY: Final = 1e-4  # share that stands for none at all: the index has logarithms


@dataclass(frozen=True)
class Drift:
    """How scores of one part of the payments moved.

    Attributes:
        segment: The column that names the part; empty for all payments.
        value: In it.
        payments: How many.
        psi: Population stability index over tenths of the old scores (Siddiqi 2006): below .1 little moved, above .25
            much. 0 where a part has fewer than 100 payments.
        mean_old: Mean probability then.
        mean_new: Mean probability now.
    """

    segment: str
    value: str
    payments: int
    psi: float
    mean_old: float
    mean_new: float


@dataclass(frozen=True)
class Change:
    """Payments that would be decided otherwise.

    Attributes:
        old: Decision then.
        new: Decision now.
        currency: Of the amounts.
        payments: How many.
        amount: Their sum, minor units.
    """

    old: str
    new: str
    currency: str
    payments: int
    amount: int


@dataclass(frozen=True)
class Summary:
    """Scores of a run beside those of an earlier one.

    Attributes:
        payments: Of the run.
        compared: Of them, those that the earlier run scored, too.
        decisions: Payments by decision now.
        changes: Decisions that differ, those of the most payments first.
        drift: Of all payments, then of each part.
    """

    payments: int
    compared: int
    decisions: dict[str, int]
    changes: list[Change]
    drift: list[Drift]


def summarise(folder: Path, against: Path | None = None, memory: str = "1GB") -> Summary:
    """Sum up a run, and write `summary.json` beside its files.

    Args:
        folder: Of the run.
        against: Of an earlier one, by another model or other thresholds; payments are matched by their ids.
        memory: That the comparison may take; beyond it, it uses the disk.

    Raises:
        ServeError: One of them is not there, or not done.
    """
    for place in (folder, against):
        if place is not None and not (place / SUCCESS).exists():
            raise ServeError(f"{place} holds no scores that are done: there is no {SUCCESS}")
    with duckdb.connect(config={"memory_limit": memory, "temp_directory": str(folder / "_state")}) as db:
        db.execute(f"create view new as {_files(folder)}")
        decisions = dict(db.execute("select decision, count(*) from new group by 1 order by 2 desc, 1").fetchall())
        found = Summary(sum(decisions.values()), 0, decisions, [], [])
        if against is not None:
            db.execute(f"create view old as {_files(against)}")
            found = _compared(db, found)
    replace_file(folder / SUMMARY, (json.dumps(asdict(found), indent=1) + "\n").encode())
    return found


def _files(folder: Path) -> str:
    files = str(folder / "date=*" / "part-*.parquet").replace("'", "''")
    return f"select * from read_parquet('{files}', hive_partitioning = false)"


def _compared(db: duckdb.DuckDBPyConnection, found: Summary) -> Summary:
    db.execute(
        "create temp table pairs as select new.*, old.fraud_probability as before, old.decision as decided_before "
        "from new join old using (transaction_id)"
    )
    [(compared,)] = db.execute("select count(*) from pairs").fetchall()
    changes = db.execute(
        "select decided_before, decision, currency, count(*), sum(amount)::bigint from pairs "
        "where decision <> decided_before group by all order by 4 desc, 1, 2, 3"
    ).fetchall()
    tenths = [i / BINS for i in range(1, BINS)]
    [(cuts,)] = db.execute(f"select quantile_cont(before, {tenths}) from pairs").fetchall()

    def tenth(column: str) -> str:  # that a score is in: how many cuts are below it
        return " + ".join(f"({column} > {cut!r})::int" for cut in cuts or [0.0])

    db.execute(
        f"create temp table binned as select pairs.*, {tenth('before')} as old_bin, "
        f"{tenth('fraud_probability')} as new_bin from pairs"
    )
    drift = _drift(db, "''", "")
    for name in SEGMENTS:
        drift += _drift(db, name, name)
    return Summary(found.payments, compared, found.decisions, [Change(*row) for row in changes], drift)


def _drift(db: duckdb.DuckDBPyConnection, column: str, segment: str) -> list[Drift]:
    """The drift of each value of a column; `''` is all payments."""
    rows: list[Any] = db.execute(
        f"""
        with parts as (
            select {column} as value, count(*) as n, avg(before) as mean_old, avg(fraud_probability) as mean_new
            from binned where {column} is not null group by 1 order by n desc, 1 limit {MOST_SEGMENTS}
        ), shares as (
            select value, bin, n,
                greatest(count(*) filter (old_bin = bin) / n, {_EMPTY}) as was,
                greatest(count(*) filter (new_bin = bin) / n, {_EMPTY}) as now
            from binned join parts on value = {column}, range({BINS}) as bins(bin) group by value, bin, n
        ), indices as (select value, sum((now - was) * ln(now / was)) as psi from shares group by value)
        select value, n, case when n < 100 then 0 else psi end, mean_old, mean_new
        from parts join indices using (value) order by n desc, value
        """
    ).fetchall()
    return [Drift(segment, str(value), n, round(psi, 4), old, new) for value, n, psi, old, new in rows]
