"""What every journal must do, whatever holds it: checked against a plain list, a few dictionaries and nothing else.

An implementation is tested by adding an `Implementation` to `test_conformance.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from data.errors import JournalError
from data.journal.protocol import (
    SCHEMAS,
    AnswerStore,
    Commit,
    Events,
    IdIndex,
    Journal,
    Kind,
    LabelIndex,
    OutcomeIndex,
    Report,
)
from data.outcomes import Became
from data.schema import content_hashes

Row = tuple[Kind, dict[str, Any]]


@dataclass(frozen=True)
class Implementation:
    """How a journal under test is made.

    Attributes:
        name: Of the test.
        make: Opens a journal in an empty folder.
        again: Opens the journal once more, as a process that starts anew would.
    """

    name: str
    make: Callable[[Path], Journal]
    again: Callable[[Journal, Path], Journal]


def rows(kind: Kind, ids: list[str], number: int = 1) -> pa.RecordBatch:
    """Rows of one kind, one for each id; those of another number have other content."""
    values: dict[pa.DataType, Any] = {
        pa.string(): f"s{number}",
        pa.int32(): number,
        pa.int64(): number,
        pa.float64(): number / 2,
        pa.bool_(): bool(number % 2),
        SCHEMAS[Kind.VERDICT].field("transaction_ids").type: ["a", "b"][:number],
        SCHEMAS[Kind.RING].field("members").type: [{"role": "account", "name": f"s{number}", "member_role": "hub"}],
        SCHEMAS[Kind.LABEL].field("reported_at").type: number,
    }
    schema = SCHEMAS[kind]
    columns = [pa.array([values[field.type]] * len(ids), field.type) for field in schema]
    if schema.field(0).type == pa.string():
        columns[0] = pa.array(ids, pa.string())
    if "outcome_id" in schema.names:
        columns[schema.get_field_index("outcome_id")] = pa.array([f"o{number}-{i}" for i in ids])
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def listed(events: list[Events]) -> list[Row]:
    """Events as plain rows."""
    return [(e.kind, row) for e in events for row in e.batch.to_pylist()]


def replayed(journal: Journal, start: int = 0, stop: int | None = None, chunk: int = 65536) -> list[Row]:
    """A replay as plain rows; checks on the way that offsets are dense and batches are what they must be."""
    events = []
    for e in journal.replay(start, stop, chunk):
        assert e.offset == start + sum(len(before.batch) for before in events)
        assert 1 <= len(e.batch) <= chunk
        assert e.batch.schema.equals(SCHEMAS[e.kind])
        events.append(e)
    return listed(events)


@contextmanager
def undone() -> Iterator[None]:
    """Swallow what `Undo` a block raised."""
    try:
        yield
    except Undo:
        return


class Undo(Exception):
    """Leaves a commit that must not come to be."""


def append_repeated(commit: Commit, names: list[str], caught: bool) -> None:
    """Append ids that are there already, beside a label; the error is passed on, or caught."""
    commit.append(Kind.LABEL, rows(Kind.LABEL, ["l"]))
    refusal = pytest.raises(JournalError, match="twice") if caught else nullcontext()
    with refusal:
        commit.append(Kind.TRANSACTION, rows(Kind.TRANSACTION, names))


class JournalMachine(RuleBasedStateMachine):
    """Appends, repeats, undoes, replays, takes and reopens in any order, beside a list."""

    def __init__(self, implementation: Implementation, folder: Callable[[], Path]) -> None:
        super().__init__()
        self.implementation, self.folder = implementation, folder()
        self.rows: list[Row] = []
        self.ids: dict[str, tuple[int, bytes]] = {}
        self.labels: dict[str, list[Report]] = {}
        self.answers: dict[int, bytes] = {}

    @initialize()
    def make(self) -> None:
        self.journal = self.implementation.make(self.folder)
        # Something of each kind is there from the first: short runs of rules would mostly look at an empty journal.
        self.append([(Kind.TRANSACTION, 4, 1), (Kind.LABEL, 2, 2)], kept=True, hashed=False)
        self.append([(kind, 3, 3) for kind in reversed(Kind)], kept=True, hashed=True)

    def teardown(self) -> None:
        self.journal.close()

    @rule(
        appends=st.lists(st.tuples(st.sampled_from(list(Kind)), st.integers(0, 5), st.integers(1, 9)), max_size=4),
        kept=st.booleans(),
        hashed=st.booleans(),
    )
    def commit(self, appends: list[tuple[Kind, int, int]], kept: bool, hashed: bool) -> None:
        self.append(appends, kept, hashed)

    def append(self, appends: list[tuple[Kind, int, int]], kept: bool, hashed: bool) -> None:
        """One commit; nothing of it may stay if it is not `kept`."""
        before, added, ids, labels = len(self.rows), [], {}, {}
        with undone():
            with self.journal.begin() as commit:
                for kind, n, number in appends:
                    names = [f"t{before + len(added) + k}" for k in range(n)]
                    batch = rows(kind, names, number)
                    assert commit.end == before + len(added)
                    hashes = content_hashes(batch) if kind is Kind.TRANSACTION else None
                    assert commit.append(kind, batch, hashes if hashed else None) == before + len(added)
                    if hashes is not None:
                        ids |= {i: (before + len(added) + k, hashes[k]) for k, i in enumerate(names)}
                    if kind is Kind.LABEL:
                        labels |= {i: [(number, bool(number % 2))] for i in names}
                    added += [(kind, row) for row in batch.to_pylist()]
                    self.compare(commit.ids, self.ids | ids)
                    self.compare_labels(commit.labels, self.labels | labels)
                if not kept:
                    raise Undo
            self.rows += added
            self.ids |= ids
            self.labels |= labels
            # What was recorded is where the commit says.
            assert listed(list(commit.events)) == added
            assert all(self.rows[e.offset : e.offset + len(e.batch)] == listed([e]) for e in commit.events)

    @rule(data=st.data(), fresh=st.integers(0, 3), caught=st.booleans())
    def repeat(self, data: st.DataObject, fresh: int, caught: bool) -> None:
        """An id that is there, or twice in a batch, spoils its commit, even where the caller goes on."""
        names = [f"new{k}" for k in range(fresh)]
        twice = data.draw(st.sampled_from([*self.ids, *names] or ["new"]))
        names = data.draw(st.permutations([*names, twice, *([] if twice in self.ids else ["new"])]))
        if len({*names}) == len(names) and not {*names} & {*self.ids}:
            names = [*names, names[0]]
        with pytest.raises(JournalError, match="failed" if caught else "twice"), self.journal.begin() as commit:
            append_repeated(commit, names, caught)

    @rule(data=st.data(), chunk=st.integers(1, 12))
    def replay(self, data: st.DataObject, chunk: int) -> None:
        start = data.draw(st.integers(0, len(self.rows)))
        stop = data.draw(st.none() | st.integers(0, len(self.rows) + 2))
        assert replayed(self.journal, start, stop, chunk) == self.rows[start:stop]

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        there = [at for at, (kind, _) in enumerate(self.rows) if kind is Kind.TRANSACTION]
        offsets = data.draw(st.lists(st.sampled_from(there), max_size=8)) if there else []
        table = self.journal.take(np.array(offsets, np.int64))
        assert table.schema.equals(SCHEMAS[Kind.TRANSACTION])
        assert table.to_pylist() == [self.rows[at][1] for at in offsets]
        other = data.draw(st.integers(0, len(self.rows) + 1).filter(lambda at: at not in there))
        with pytest.raises(JournalError, match=f"no transaction at offset {other}"):
            self.journal.take(np.array([*offsets, other], np.int64))

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        offset = st.integers(0, len(self.rows) + 1)
        answers = data.draw(st.lists(st.tuples(offset, st.binary(max_size=3)), max_size=4))
        self.journal.answers.keep(answers)
        for at, answer in answers:
            self.answers.setdefault(at, answer)
        assert self.journal.answers.find(range(len(self.rows) + 2)) == self.answers

    @rule()
    def reopen(self) -> None:
        self.journal = self.implementation.again(self.journal, self.folder)

    @invariant()
    def ends_where_the_list_does(self) -> None:
        assert self.journal.end == len(self.rows)

    @invariant()
    def knows_the_ids(self) -> None:
        self.compare(self.journal.ids, self.ids)

    @rule(data=st.data(), reports=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=4), kept=st.booleans())
    def report(self, data: st.DataObject, reports: list[Report], kept: bool) -> None:
        """Labels of a payment that has some already, some of them the same."""
        name = data.draw(st.sampled_from([*self.labels, "new"]))
        columns = [[name] * len(reports), [fraud for _, fraud in reports], [time for time, _ in reports]]
        schema = SCHEMAS[Kind.LABEL]
        batch = pa.RecordBatch.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
        )
        with undone(), self.journal.begin() as commit:
            commit.append(Kind.LABEL, batch)
            wanted = {**self.labels, name: sorted({*self.labels.get(name, []), *reports})}
            self.compare_labels(commit.labels, {i: found for i, found in wanted.items() if found})
            if not kept:
                raise Undo
        if kept and reports:
            self.labels = wanted
            self.rows += [(Kind.LABEL, row) for row in batch.to_pylist()]

    @invariant()
    def knows_the_labels(self) -> None:
        self.compare_labels(self.journal.labels, self.labels)

    def compare_labels(self, index: LabelIndex, labels: dict[str, list[Report]]) -> None:
        to_come = [f"t{n}" for n in range(len(self.rows), len(self.rows) + 20)]
        assert index.find([*labels, *to_come, "new"]) == labels

    def compare(self, index: IdIndex, ids: dict[str, tuple[int, bytes]]) -> None:
        undone_or_to_come = [f"t{n}" for n in range(len(self.rows), len(self.rows) + 20)]
        found = index.find([*ids, *undone_or_to_come, "new", "new0"])
        assert {i: (known.offset, known.content_hash) for i, known in found.items()} == ids


def check_bad_calls(journal: Journal) -> None:
    """What is asked wrongly is refused, and nothing comes of it."""
    with journal.begin() as commit:
        commit.append(Kind.TRANSACTION, rows(Kind.TRANSACTION, ["a"]))
    for start, chunk in ((-1, 1), (2, 1), (0, 0)):
        with pytest.raises(JournalError, match=f"from offset {start} in chunks of {chunk}: the journal ends at 1"):
            list(journal.replay(start, chunk=chunk))
    with pytest.raises(JournalError, match="no transaction at offset -1"):
        journal.take(np.array([-1]))
    with pytest.raises(JournalError, match="label events must have the columns"), journal.begin() as commit:
        commit.append(Kind.LABEL, rows(Kind.OUTCOME, ["a"]))
    with pytest.raises(JournalError, match=r"no kind of events 99: this version knows 1 \(transaction\), "):  # noqa: SIM117
        with journal.begin() as commit:
            commit.append(99, rows(Kind.LABEL, ["a"]))  # type: ignore[arg-type]
    with journal.begin() as outer:
        outer.append(Kind.LABEL, rows(Kind.LABEL, ["a"]))
        with pytest.raises(JournalError, match="cannot begin"), journal.begin():
            pass
    assert [kind for kind, _ in replayed(journal)] == [Kind.TRANSACTION, Kind.LABEL]


def check_followers(journal: Journal) -> None:
    """Rows that are appended during a replay wait for the next one."""
    append = [rows(Kind.LABEL, [name]) for name in "abc"]
    for batch in append[:2]:
        with journal.begin() as commit:
            commit.append(Kind.LABEL, batch)
    replay = journal.replay(chunk=1)
    seen = [next(replay)]
    with journal.begin() as commit:
        commit.append(Kind.LABEL, append[2])
    seen += replay
    assert [e.offset for e in seen] == [0, 1]
    assert replayed(journal, 2) == [(Kind.LABEL, append[2].to_pylist()[0])]


def check_ids(index: IdIndex) -> None:
    """An index by itself, as a journal over a broker uses it."""
    index.add(["b", "a"], 7, [b"B" * 16, b"A" * 16])
    found = index.find(["a", "b", "c", "a"])
    assert {i: (known.offset, known.content_hash) for i, known in found.items()} == {
        "a": (8, b"A" * 16),
        "b": (7, b"B" * 16),
    }
    with pytest.raises(JournalError, match="twice"):
        index.add(["a"], 9, [b"C" * 16])
    assert index.find(["a"])["a"].offset == 8
    assert index.find([]) == {}


def check_labels(index: LabelIndex) -> None:
    """An index by itself."""
    index.add(rows(Kind.LABEL, ["b", "a", "a"], 7))
    index.add(rows(Kind.LABEL, ["a"], 4))
    index.add(rows(Kind.LABEL, ["a"], 7))
    assert index.find(["a", "b", "c", "a"]) == {"a": [(4, False), (7, True)], "b": [(7, True)]}
    assert index.find([]) == {}


def reported(*found: Became) -> pa.RecordBatch:
    """Outcomes as events."""
    rows = [{**became._asdict(), "account_id": "a", "mandate_id": None} for became in found]
    return pa.RecordBatch.from_pylist(rows, SCHEMAS[Kind.OUTCOME])


def check_outcomes(index: OutcomeIndex) -> None:
    """An index by itself: the first of an id stays, and a decision without an id is none of its."""
    first = Became("o1", "t1", "refunded", 9, 500, "bank")
    other = Became("o2", "t1", "approved", 4)
    index.add(reported(first))
    index.add(reported(other, first._replace(amount=1), Became("o3", "t2", "declined", 1)))
    index.add(rows(Kind.OUTCOME, ["t9"]).set_column(3, "outcome_id", pa.nulls(1, pa.string())))
    assert index.find(["o1", "o2", "o9", "o1"]) == {"o1": first, "o2": other}
    assert index.of(["t1", "t9", "t1"]) == {"t1": [other, first]}
    assert index.find([]) == index.of([]) == {}


def check_outcomes_of(journal: Journal) -> None:
    """Beside the events, with their commit or not at all."""
    kept = Became("o1", "t1", "reversed", 9, 5)
    with journal.begin() as commit:
        commit.append(Kind.OUTCOME, reported(kept))
        assert commit.outcomes.find(["o1"]) == {"o1": kept}
    with undone(), journal.begin() as commit:
        commit.append(Kind.OUTCOME, reported(kept._replace(amount=6), kept._replace(outcome_id="o2")))
        raise Undo
    assert journal.outcomes.of(["t1"]) == {"t1": [kept]}


def check_answers(store: AnswerStore) -> None:
    """A store by itself."""
    store.keep([])
    assert store.find([0]) == {}
    store.keep([(0, b"first"), (3, b"third"), (3, b"late")])
    store.keep([(0, b"other")])
    assert store.find([3, 0, 1, 3]) == {0: b"first", 3: b"third"}
    store.keep([(0, b"new"), (1, b"one"), (1, b"one again")], replace=True)
    assert store.find([0, 1, 3]) == {0: b"new", 1: b"one again", 3: b"third"}
    assert [store.forget(3, 1), store.forget(3, 5), store.forget(3, 5)] == [1, 1, 0]
    assert store.find([0, 1, 3]) == {3: b"third"}


def check_commit_type(commit: Commit) -> None:
    """Leaving nothing behind is no error."""
    assert commit.append(Kind.LABEL, rows(Kind.LABEL, [])) == commit.end
    assert not commit.events
