"""Each journal, id index and answer store does what the protocols say."""

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from data.errors import JournalError
from data.journal.kafka import KafkaJournal
from data.journal.memory import (
    MemoryAnswerStore,
    MemoryIdIndex,
    MemoryJournal,
    MemoryLabelIndex,
    MemoryOutcomeIndex,
)
from data.journal.protocol import AnswerStore, Events, IdIndex, Journal, Kind, LabelIndex, OutcomeIndex
from data.journal.sqlite import SqliteJournal
from data.journal.sqlite_tables import TABLES, SqliteAnswerStore, SqliteIdIndex, SqliteLabelIndex, SqliteOutcomeIndex
from tests.data.journal import conformance
from tests.data.journal.brokers import MockCluster
from tests.data.journal.conformance import Implementation, JournalMachine, rows


def reopened(journal: Journal, folder: Path) -> SqliteJournal:
    journal.close()
    return SqliteJournal(folder / "j.db")


def reread(journal: Journal, folder: Path) -> MemoryJournal:
    """A memory journal does not outlast its process: what can be had again is had from a replay."""
    again = MemoryJournal(journal.replay())
    again.answers = journal.answers  # type: ignore[assignment]
    return again


TOPICS = itertools.count()
CLUSTER: list[MockCluster] = []  # one for all tests of this file


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    yield
    while CLUSTER:
        CLUSTER.pop().close()


def on_a_topic(folder: Path) -> KafkaJournal:
    if not CLUSTER:
        CLUSTER.append(MockCluster())
    return KafkaJournal(CLUSTER[0].topic(f"journal-{next(TOPICS)}"), folder / "copy.db")


def on_the_same_copy(journal: Journal, folder: Path) -> KafkaJournal:
    assert isinstance(journal, KafkaJournal)
    journal.close()
    return KafkaJournal(journal.address, journal.path)


def copied_anew(journal: Journal, folder: Path) -> KafkaJournal:
    """All but the answers is had again from the topic."""
    assert isinstance(journal, KafkaJournal)
    again = KafkaJournal(journal.address, folder / f"copy-{next(TOPICS)}.db")
    kept = journal.answers.find(range(journal.end + 2))
    again.answers.keep(list(kept.items()))
    journal.close()
    return again


IMPLEMENTATIONS = [
    Implementation("sqlite", lambda folder: SqliteJournal(folder / "j.db"), reopened),
    Implementation("memory", lambda folder: MemoryJournal(), reread),
    Implementation("kafka", on_a_topic, on_the_same_copy),
    Implementation("kafka copied anew", on_a_topic, copied_anew),
]
every_journal = pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda i: i.name)


def table_of(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(TABLES)
    return connection


@every_journal
def test_a_journal_does_what_a_list_would(
    implementation: Implementation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_state_machine_as_test(
        lambda: JournalMachine(implementation, lambda: tmp_path_factory.mktemp("journal")),
        # A reader of the mock cluster waits a tenth of a second for its first message.
        settings=settings(
            max_examples=5 if "kafka" in implementation.name else 60, stateful_step_count=20, deadline=None
        ),
    )


@every_journal
def test_a_journal_refuses_bad_calls(implementation: Implementation, tmp_path: Path) -> None:
    journal = implementation.make(tmp_path)
    conformance.check_bad_calls(journal)
    journal.close()


@every_journal
def test_a_replay_ends_where_the_journal_ended_when_it_began(implementation: Implementation, tmp_path: Path) -> None:
    journal = implementation.make(tmp_path)
    conformance.check_followers(journal)
    journal.close()


@every_journal
def test_appending_no_rows_records_nothing(implementation: Implementation, tmp_path: Path) -> None:
    journal = implementation.make(tmp_path)
    with journal.begin() as commit:
        conformance.check_commit_type(commit)
    assert journal.end == 0
    journal.close()


@pytest.mark.parametrize(
    "make", [lambda path: MemoryIdIndex(), lambda path: SqliteIdIndex(table_of(path), path)], ids=["memory", "sqlite"]
)
def test_an_id_index_works_in_a_file_of_its_own(make: Callable[[Path], IdIndex], tmp_path: Path) -> None:
    conformance.check_ids(make(tmp_path / "ids.db"))


@pytest.mark.parametrize(
    "make",
    [lambda path: MemoryLabelIndex(), lambda path: SqliteLabelIndex(table_of(path), path)],
    ids=["memory", "sqlite"],
)
def test_a_label_index_works_in_a_file_of_its_own(make: Callable[[Path], LabelIndex], tmp_path: Path) -> None:
    conformance.check_labels(make(tmp_path / "labels.db"))


@pytest.mark.parametrize(
    "make",
    [lambda path: MemoryOutcomeIndex(), lambda path: SqliteOutcomeIndex(table_of(path), path)],
    ids=["memory", "sqlite"],
)
def test_an_outcome_index_works_in_a_file_of_its_own(make: Callable[[Path], OutcomeIndex], tmp_path: Path) -> None:
    conformance.check_outcomes(make(tmp_path / "outcomes.db"))


@every_journal
def test_a_journal_knows_outcomes_by_id_and_by_payment(implementation: Implementation, tmp_path: Path) -> None:
    journal = implementation.make(tmp_path)
    conformance.check_outcomes_of(journal)
    journal.close()


@pytest.mark.parametrize(
    "make",
    [lambda path: MemoryAnswerStore(), lambda path: SqliteAnswerStore(table_of(path), path)],
    ids=["memory", "sqlite"],
)
def test_an_answer_store_works_in_a_file_of_its_own(make: Callable[[Path], AnswerStore], tmp_path: Path) -> None:
    conformance.check_answers(make(tmp_path / "answers.db"))


def test_a_memory_journal_refuses_events_that_do_not_follow() -> None:
    batch = rows(Kind.LABEL, ["a", "b"])
    with pytest.raises(JournalError, match="offset 3 do not follow offset 2"):
        MemoryJournal([Events(Kind.LABEL, 0, batch), Events(Kind.LABEL, 3, batch)])
