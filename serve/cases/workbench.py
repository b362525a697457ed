"""Rings in a notebook: one class over a running investigator or a journal on this machine, with data frames.

Needs pandas, and DuckDB for `Workbench.sql`: `pip install 'ringwatch[notebook]'`.
"""

import getpass
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from data.currency import format_totals
from data.history import History
from data.report import Report, silent
from data.schema import TIMESTAMP
from gnn.model.artifact import load
from graph.rings.records import LISTED, RingRecord, RingState, totals
from serve.cases.investigator import Investigator
from serve.cases.protocol import Entity, GivenVerdict, Investigation, RingFilter
from serve.cases.remote import RemoteInvestigation
from serve.decide.spending.guidance import Advice
from serve.decide.spending.profile import Profile
from serve.errors import ServeError
from serve.http.client import RingwatchClient
from serve.settings import Settings

Frame = Any  # a pandas.DataFrame; pandas is imported where one is made
MOST_RINGS = 1_000


class Workbench:
    """Rings, who is in them, what they rest on, and verdicts, as data frames.

    Made by `at` or `over`; times are UTC, money is in minor units where a column says `amount`.

    Args:
        investigation: What answers.
        journal: Of the payments, for `sql`.

    Example:
        >>> desk = Workbench.over("var/demo/journal.sqlite", "var/demo/model")  # doctest: +SKIP
        >>> desk.rings().head()                                                 # doctest: +SKIP
        >>> desk.confirm("K-1042", note="seven accounts, one phone")           # doctest: +SKIP
    """

    def __init__(self, investigation: Investigation, journal: Path | None = None) -> None:
        self.investigation, self._journal = investigation, journal

    @classmethod
    def at(cls, url: str = "http://127.0.0.1:8400", key: str | None = None, journal: Path | str | None = None) -> Self:
        """Open a running investigator (`ringwatch investigate`).

        Args:
            url: Its address.
            key: A key that may investigate; by default RINGWATCH_API_KEY.
            journal: Its journal, where this machine can read it: only `sql` needs it.
        """
        client = RingwatchClient(url, key or os.environ.get("RINGWATCH_API_KEY") or None)
        return cls(RemoteInvestigation(client), None if journal is None else Path(journal))

    @classmethod
    def over(cls, journal: Path | str, model: Path | str, report: Report = silent) -> Self:
        """Open a journal on this machine: rings are found in this process, and nothing is written but verdicts.

        Args:
            journal: Of a service, running or not.
            model: Folder of its model.
            report: Told of progress.

        Raises:
            JournalError: The journal cannot be read.
            ModelError: There is no readable model.
            ServeError: There is no such journal.
        """
        if not Path(journal).exists():
            raise ServeError(f"no journal at {journal}")
        settings = Settings.from_environment(model=Path(model), journal=Path(journal), insecure=True)
        found = Investigator(load(Path(model)), settings, journals=False)
        found.open(report)
        return cls(found, Path(journal))

    def rings(
        self,
        states: Sequence[str] = (),
        entity: tuple[str, str] | None = None,
        confidence: float = LISTED,
        as_of: Any = None,
    ) -> Frame:
        """Rings, the most certain first: a line for each.

        Args:
            states: `forming`, `active`, `quiet`, `ended`; all by default.
            entity: (role, name) of a member.
            confidence: At least.
            as_of: As they were at this moment, whatever pandas takes for one (`2026-03-01T12:00Z`).
        """
        self._follow()
        wanted = RingFilter(tuple(RingState(state) for state in states), entity, confidence=confidence)
        moment = None if as_of is None else int(_pandas().Timestamp(as_of).value // 1_000)
        found = self.investigation.rings(wanted, MOST_RINGS, as_of=moment)
        return _pandas().DataFrame([_line(ring) for ring in found], columns=_LINE).set_index("ring")

    def ring(self, ring_id: str) -> RingRecord:
        """One ring's record.

        Raises:
            KeyError: There is none.
        """
        self._follow()
        found = self.investigation.ring(ring_id)
        if found is None:
            raise KeyError(ring_id)
        return found

    def members(self, ring_id: str) -> Frame:
        """Who is in a ring, as what, and since when."""
        rows = [(m.role, m.name, str(m.member_role), m.joined_at, m.named_at) for m in self.ring(ring_id).members]
        frame = _pandas().DataFrame(rows, columns=["role", "name", "member_role", "joined_at", "named_at"])
        return _times(frame, "joined_at", "named_at")

    def timeline(self, ring_id: str) -> Frame:
        """How a ring came to be what it is: a line for each version."""
        lines = [(v.version, v.last_seen, *_line(v)[1:6]) for v in self.investigation.versions(ring_id)]
        return _times(_pandas().DataFrame(lines, columns=["version", "last_seen", *_LINE[1:6]]), "last_seen")

    def payments(self, ring_id: str, neighbours: bool = False) -> Frame:
        """The payments behind a ring, oldest first, with scores and labels; with `neighbours`, what is around it."""
        return _frame(self.investigation.ring_payments(ring_id, neighbours))

    def compare(self, ring_id: str) -> Frame:
        """A ring's accounts beside accounts of like age and volume that are in no ring."""
        return _frame(self.investigation.comparison(ring_id)).set_index("metric")

    def alike(self, ring_id: str, limit: int = 10) -> Frame:
        """Rings whose payments look like this one's to the model, most alike first."""
        found = self.investigation.alike(ring_id, limit)
        return _pandas().DataFrame(found, columns=["ring", "likeness"]).set_index("ring")

    def entity(self, role: str, name: str) -> Entity:
        """An account, device, merchant, ...

        Raises:
            KeyError: It was never seen, or has left the graph.
        """
        self._follow()
        found = self.investigation.entity(role, name)
        if found is None:
            raise KeyError(f"{role} {name}")
        return found

    def payments_of(self, role: str, name: str) -> Frame:
        """The newest payments of an entity, oldest first, with scores and labels."""
        return _frame(self.entity(role, name).payments)

    def profile(self, account: str) -> Profile:
        """What an account pays again and again, what it earns, what comes next and what was unusual.

        Raises:
            KeyError: It was never seen, or has left the graph.
        """
        self._follow()
        found = self.investigation.profile(account)
        if found is None:
            raise KeyError(account)
        return found

    def guidance(self, account: str, balance: Mapping[str, int] | None = None) -> Frame:
        """What to tell an account's owner, the most certain first: a line for each item, with its evidence.

        Args:
            account: Whose.
            balance: What it holds, minor units by currency, if that is known.

        Raises:
            KeyError: It was never seen, or has left the graph.
        """
        self._follow()
        found = self.investigation.guidance(account, balance)
        if found is None:
            raise KeyError(account)
        columns = [field.name for field in fields(Advice)]
        return _times(_pandas().DataFrame([asdict(one) for one in found], columns=columns), "at")

    def draw(self, ring_id: str, neighbours: bool = True) -> Any:
        """A picture to play with, as a widget: see `graph.rings.picture.widget.RingWidget`."""
        from graph.rings.picture.widget import ring_widget

        return ring_widget(self.ring(ring_id), self.investigation.ring_payments(ring_id, neighbours))

    def confirm(self, ring_id: str, payments: Sequence[str] | None = None, note: str = "") -> GivenVerdict:
        """Say that a ring is fraud: its evidence, or the payments that are given by id, are labelled so."""
        return self._judge(ring_id, True, payments, note)

    def dismiss(self, ring_id: str, payments: Sequence[str] | None = None, note: str = "") -> GivenVerdict:
        """Say that a ring is none: its evidence, or the payments that are given by id, are labelled legitimate."""
        return self._judge(ring_id, False, payments, note)

    def tables(self) -> dict[str, pa.Table]:
        """The journal's `payments` and `labels`, and `rings` and `members` of all that ever stood, as Arrow tables.

        Payments have a column `fraud_probability`, where this process has the model and the graph holds them.

        Raises:
            ServeError: No journal was given.
        """
        if self._journal is None:
            raise ServeError("give the journal's file too: Workbench.at(url, journal='var/journal.sqlite')")
        history = History.read(self._journal)
        rings = self.investigation.rings(RingFilter(), MOST_RINGS)
        members = [
            {"ring_id": ring.id, "role": m.role, "name": m.name, "member_role": str(m.member_role)}
            for ring in rings
            for m in ring.members
        ]
        return {
            "payments": history.payments.append_column("fraud_probability", self._scores(history.payments)),
            "labels": history.labels,
            "rings": pa.Table.from_pylist([_record(r) for r in rings], schema=_RINGS),
            "members": pa.Table.from_pylist(members, schema=_MEMBERS),
        }

    def sql(self, query: str) -> Frame:
        """Ask the tables of `tables` in SQL (DuckDB).

        Raises:
            ServeError: No journal was given, or DuckDB is not installed.
        """
        try:
            import duckdb
        except ModuleNotFoundError:
            raise ServeError("SQL needs DuckDB: pip install 'ringwatch[notebook]'") from None
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone='UTC'")
            for name, table in self.tables().items():
                connection.register(name, table)
            return connection.sql(query).df()

    def close(self) -> None:
        """Let the journal or the connections go."""
        close = getattr(self.investigation, "close", None)
        if close is not None:
            close()

    def _judge(self, ring_id: str, fraud: bool, payments: Sequence[str] | None, note: str) -> GivenVerdict:
        ring = self.ring(ring_id)
        chosen = ring.evidence if payments is None else payments
        return self.investigation.give_verdict(
            ring_id, "fraud" if fraud else "legitimate", list(chosen), getpass.getuser(), note
        )

    def _scores(self, payments: pa.Table) -> pa.Array:
        """What the model said of payments, float64 [n]; null where that is not known here."""
        if not isinstance(self.investigation, Investigator):
            return pa.nulls(len(payments), pa.float64())
        return self.investigation.probabilities(payments["transaction_id"])

    def _follow(self) -> None:
        """Take in what is new, where this process is the one that follows."""
        if isinstance(self.investigation, Investigator):
            while self.investigation.follow():
                pass


_COUNTS = ("accounts", "known_frauds", "payments")
_LINE = ("ring", "state", "confidence", *_COUNTS, "tried", "lost", "first_seen", "last_seen", "reasons")
_RINGS = pa.schema(
    [
        ("ring_id", pa.string()),
        ("state", pa.string()),
        ("confidence", pa.float64()),
        ("accounts", pa.int64()),
        ("known_frauds", pa.int64()),
        ("first_seen", TIMESTAMP),
        ("named_at", TIMESTAMP),
        ("last_seen", TIMESTAMP),
    ]
)
_MEMBERS = pa.schema([(name, pa.string()) for name in ("ring_id", "role", "name", "member_role")])


def _record(ring: RingRecord) -> dict[str, Any]:
    values = {name: getattr(ring, name) for name in ("confidence", "first_seen", "named_at", "last_seen")}
    counts = {"accounts": len(ring.accounts), "known_frauds": len(ring.known_frauds)}
    return {"ring_id": ring.id, "state": str(ring.state), **values, **counts}


def _line(ring: RingRecord) -> tuple[Any, ...]:
    tried, lost = (format_totals(dict(totals(ring.money, kind))) for kind in ("tried", "lost"))
    counts = (len(ring.accounts), len(ring.known_frauds), len(ring.evidence))
    times = (_pandas().Timestamp(us, unit="us", tz="UTC") for us in (ring.first_seen, ring.last_seen))
    return (ring.id, str(ring.state), round(ring.confidence, 3), *counts, tried, lost, *times, ring.reasons)


def _frame(table: pa.Table) -> Frame:
    _pandas()
    return table.to_pandas()


def _times(frame: Frame, *columns: str) -> Frame:
    for name in columns:
        frame[name] = _pandas().to_datetime(frame[name], unit="us", utc=True)
    return frame


def _pandas() -> Any:
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise ServeError("data frames need pandas: pip install 'ringwatch[notebook]'") from None
    return pd
