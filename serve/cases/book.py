"""The case book: rings become cases, investigators act on them, and every act is kept with its time and its author.

The journal comes first: a verdict is recorded there, and the database learns it from there (`CaseBook.sync`). A crash
in between loses nothing, and a database that is lost is made again from the journal, but for what people only said in
it: comments, assignments, merges, splits and snoozes are kept in the database alone. Back it up.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from serve.cases import gather, reading
from serve.cases.database import Database
from serve.cases.figures import note
from serve.cases.gather import Decisions
from serve.cases.intake import take_ring, take_verdict
from serve.cases.links import merge_cases
from serve.cases.models import AlertRow, CaseRow, RingRow, VerdictRow
from serve.cases.protocol import Investigation, Verdict
from serve.cases.records import Alert, CaseDetail, CaseError, CaseFilter, CaseRules, CaseState, CaseSummary, NoCaseError
from serve.cases.splitting import split_case

USUAL = CaseRules()
WAITING = CaseFilter()  # open cases, but for those that are snoozed
WINDOW_US = 40 * 86_400_000_000  # a ring whose newest evidence is older than that does not change for the better
MAX_NOTE = 4_000  # characters
MAX_NAME = 128


@dataclass(frozen=True)
class Synced:
    """What a sync did: rings taken in, and verdicts mirrored."""

    rings: int
    verdicts: int


class CaseBook:
    """Cases of one database. Any thread may call any of it, but not while it holds a lock of the investigation.

    Args:
        database: An open one, or where it is (`Database`).
        rules: When rings become cases.
        decisions: Tells which payments were approved; by default all count as approved that nobody reported.
        now: Wall clock, us since 1970.

    Raises:
        ServeError: The database cannot be opened.
    """

    def __init__(
        self,
        database: Database | str | Path,
        rules: CaseRules = USUAL,
        decisions: Decisions | None = None,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._database = database if isinstance(database, Database) else Database(database)
        self._rules, self._decisions, self._now = rules, decisions, now
        self._synced: int | None = None  # journal time up to which rings were taken in

    @property
    def now(self) -> int:
        """Wall clock, us."""
        return self._now()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def sync(self, investigation: Investigation) -> Synced:
        """Take in verdicts of the journal and rings that changed; the same again does nothing, and is cheap."""
        with self._database.reading() as session:
            verdicts = gather.verdicts(session, investigation, self._decisions)
        if verdicts:  # first, and by themselves: what they close, the rings below must find closed
            with self._database.writing() as session:
                held = set(session.scalars(select(VerdictRow.journal_offset)))
                for verdict in verdicts:
                    if verdict.given.offset not in held:
                        take_verdict(session, verdict, self._rules, self._now())
        clock = investigation.clock
        with self._database.reading() as session:
            since = None if self._synced is None else self._synced - WINDOW_US
            rings = gather.changed_rings(session, investigation, self._rules, self._decisions, since)
        if rings:
            with self._database.writing() as session:
                for ring in rings:
                    take_ring(session, ring, self._rules, self._now())
        self._synced = clock
        return Synced(len(rings), len(verdicts))

    def rebuild(self, investigation: Investigation) -> Synced:
        """Make the rows that mirror the journal anew. What was done because of them is not done twice."""
        with self._database.writing() as session:
            session.execute(delete(VerdictRow))
        self._synced = None
        return self.sync(investigation)

    # Reading

    def queue(self, wanted: CaseFilter = WAITING, limit: int = 50, offset: int = 0) -> list[CaseSummary]:
        """Cases, those with the most at risk first: confidence times the largest money at risk in one currency."""
        with self._database.reading() as session:
            return reading.queue(session, wanted, self._now(), limit, offset)

    def count(self, wanted: CaseFilter = WAITING) -> int:
        """How many cases there are of these."""
        with self._database.reading() as session:
            return reading.count(session, wanted, self._now())

    def kinds(self) -> Counter[str]:
        """How many cases are in each state; those that are snoozed are counted apart from open ones."""
        with self._database.reading() as session:
            return reading.kinds(session, self._now())

    def case(self, case_id: int) -> CaseDetail:
        """All of a case.

        Raises:
            NoCaseError: There is none.
        """
        with self._database.reading() as session:
            found = reading.detail(session, case_id)
        if found is None:
            raise NoCaseError(f"no case C-{case_id}")
        return found

    def cases_of_ring(self, ring_id: str) -> list[int]:
        """Cases that hold a ring, the one that gets its later members first."""
        with self._database.reading() as session:
            return reading.cases_of_ring(session, ring_id)

    def cases_of_entity(self, role: str, name: str) -> list[CaseSummary]:
        """Cases that hold an entity, the newest first."""
        with self._database.reading() as session:
            return reading.cases_of_entity(session, role, name)

    def assignees(self) -> list[str]:
        """Who has a case."""
        with self._database.reading() as session:
            return reading.assignees(session)

    def alerts(
        self, done: bool | None = None, case_id: int | None = None, limit: int = 100, offset: int = 0
    ) -> list[Alert]:
        """Alerts, the newest first: those that are done, or not, or both; of one case or all."""
        with self._database.reading() as session:
            return reading.alerts(session, done, case_id, limit, offset)

    def at_stake(self, done: bool | None = None, case_id: int | None = None) -> dict[str, tuple[int, int]]:
        """Alerts and their money, minor units, by currency."""
        with self._database.reading() as session:
            return reading.at_stake(session, done, case_id)

    # Verdicts: into the journal first

    def confirm(
        self,
        investigation: Investigation,
        case_id: int,
        by: str,
        transaction_ids: Sequence[str],
        said: str = "",
        request_id: str = "",
    ) -> CaseDetail:
        """Say that a case is fraud; the payments that are named are labelled so, and no others.

        Args:
            investigation: Records the verdict in the journal.
            case_id: The case; an open one.
            by: Who says so.
            transaction_ids: Of its payments, chosen by them.
            said: For others to read.
            request_id: The same one again changes nothing: for callers that try again.

        Raises:
            NoCaseError: There is no such case.
            CaseError: It is closed, no payment is named, or one that the journal does not hold.
            JournalError: It cannot be recorded. Nothing is.
        """
        if not transaction_ids:
            raise CaseError("choose at least one payment that is fraud: a verdict labels those that it names")
        return self._judge(investigation, "fraud", case_id, by, transaction_ids, said, request_id)

    def dismiss(
        self,
        investigation: Investigation,
        case_id: int,
        by: str,
        transaction_ids: Sequence[str],
        said: str = "",
        request_id: str = "",
    ) -> CaseDetail:
        """Say that a case is no fraud; as `confirm`, with payments that are legitimate."""
        return self._judge(investigation, "legitimate", case_id, by, transaction_ids, said, request_id)

    def _judge(
        self,
        investigation: Investigation,
        verdict: Verdict,
        case_id: int,
        by: str,
        transaction_ids: Sequence[str],
        said: str,
        request_id: str,
    ) -> CaseDetail:
        verdict_id = f"C-{case_id}:{_name(request_id or uuid.uuid4().hex, 'request_id', 64)}"
        with self._database.reading() as session:
            repeated = session.scalar(select(VerdictRow.journal_offset).where(VerdictRow.verdict_id == verdict_id))
            if repeated is None:
                _open(session, case_id, "it needs no further verdict; reopen it to give another")
            ring_id = session.scalar(
                select(RingRow.ring_id)
                .where(RingRow.case_id == case_id)
                .order_by(RingRow.whole.desc(), RingRow.confidence.desc(), RingRow.ring_id)
            )
        assert ring_id is not None
        if repeated is None:
            chosen = list(dict.fromkeys(transaction_ids))
            try:
                investigation.give_verdict(ring_id, verdict, chosen, _name(by, "by"), _text(said), verdict_id)
            except (KeyError, ValueError) as error:
                raise CaseError(str(error.args[0] if error.args else error)) from None
            self.sync(investigation)
        return self.case(case_id)

    # Acts that are kept here alone

    def comment(self, case_id: int, by: str, text: str) -> None:
        """Say something of a case.

        Raises:
            NoCaseError: There is none. So with every act.
            CaseError: There is nothing in it.
        """
        if not (text := _text(text)):
            raise CaseError("a comment needs some text")
        with self._database.writing() as session:
            self._note(session, _any(session, case_id), by, "comment", text)

    def assign(self, case_id: int, by: str, to: str | None) -> None:
        """Give a case to somebody, or to nobody (None)."""
        with self._database.writing() as session:
            case = _any(session, case_id)
            case.assignee = _name(to, "to") if to else None
            said = f"assigned to {case.assignee}" if case.assignee else "assigned to nobody"
            self._note(session, case, by, "assigned", said, {"to": case.assignee})

    def snooze(self, case_id: int, by: str, until: int) -> None:
        """Keep an open case out of the queue until a moment, us."""
        if until <= self._now():
            raise CaseError("snooze until a moment that is still to come")
        if until > 4_102_444_800_000_000:
            raise CaseError("snooze until a moment before the year 2100")
        with self._database.writing() as session:
            case = _open(session, case_id, "only an open case is in the queue")
            case.snoozed_until = until
            moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(until / 1e6))
            self._note(session, case, by, "snoozed", f"until {moment}", {"until": until})

    def reopen(self, case_id: int, by: str, said: str = "") -> None:
        """Open a closed case again, or wake one that is snoozed. The labels of its verdict stay until a new one."""
        with self._database.writing() as session:
            case = _any(session, case_id)
            if case.state == CaseState.MERGED:
                raise CaseError(f"C-{case_id} went into C-{case.merged_into}: act on that one")
            if case.state == CaseState.OPEN and (case.snoozed_until or 0) <= self._now():
                raise CaseError(f"C-{case_id} is open")
            case.state, case.snoozed_until = CaseState.OPEN, None
            self._note(session, case, by, "reopened", _text(said))

    def merge(self, case_id: int, into: int, by: str, said: str = "") -> None:
        """Move all that a case holds into another open one, and close it."""
        if case_id == into:
            raise CaseError("a case cannot be merged into itself")
        with self._database.writing() as session:
            case = _open(session, case_id, "only open cases can be merged")
            other = _open(session, into, "only open cases can be merged")
            said = _text(said) or f"C-{case_id} merged into C-{into}"
            merge_cases(session, case, other, _name(by, "by"), said, self._now())

    def split(
        self,
        investigation: Investigation,
        case_id: int,
        members: Sequence[tuple[str, str]],
        by: str,
        said: str = "",
    ) -> int:
        """Move some members (role, name) of a case into a new one; returns its number.

        Those that join the ring later go to the old case. The ring itself, which the journal holds, stays one.
        """
        if not members:
            raise CaseError("choose at least one member to split off")
        with self._database.reading() as session:
            ring_ids = list(session.scalars(select(RingRow.ring_id).where(RingRow.case_id == case_id)))
        payments = {one: gather.payments_of(investigation, one, self._decisions) for one in ring_ids}
        with self._database.writing() as session:
            case = _open(session, case_id, "only an open case can be split")
            return split_case(session, case, set(members), payments, _name(by, "by"), _text(said), self._now())

    def finish_alert(self, transaction_id: str, by: str) -> None:
        """Say that an alert was dealt with; saying it again changes nothing."""
        with self._database.writing() as session:
            alert = session.get(AlertRow, transaction_id, with_for_update=True)
            if alert is None:
                raise CaseError(f"no alert for payment {transaction_id!r}")
            if alert.done_at is None:
                alert.done_at, alert.done_by = self._now(), _name(by, "by")
                said = f"alert of payment {transaction_id} dealt with"
                note(session, alert.case_id, self._now(), alert.done_by, "alert done", said)

    def _note(
        self, session: Session, case: CaseRow, by: str, kind: str, text: str, details: dict[str, object] | None = None
    ) -> None:
        case.updated_at = self._now()
        note(session, case.id, self._now(), _name(by, "by"), kind, text, details)


def _any(session: Session, case_id: int) -> CaseRow:
    """A case, locked until the transaction ends."""
    case = session.get(CaseRow, case_id, with_for_update=True)
    if case is None:
        raise NoCaseError(f"no case C-{case_id}")
    return case


def _open(session: Session, case_id: int, otherwise: str) -> CaseRow:
    case = _any(session, case_id)
    if case.state == CaseState.MERGED:
        raise CaseError(f"C-{case_id} went into C-{case.merged_into}: act on that one")
    if case.state != CaseState.OPEN:
        raise CaseError(f"C-{case_id} is {case.state}: {otherwise}")
    return case


def _text(said: str) -> str:
    """What somebody wrote, without what no database or page could show."""
    text = "".join(c for c in said if c.isprintable() or c in "\n\t").strip()
    if len(text) > MAX_NOTE:
        raise CaseError(f"a note may have at most {MAX_NOTE:,} characters, not {len(text):,}")
    return text


def _name(name: str, field: str, most: int = MAX_NAME) -> str:
    if not name.strip() or not name.isprintable() or len(name) > most:
        raise CaseError(f"{field}: give 1 to {most} characters that can be seen")
    return name.strip()
