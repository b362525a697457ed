"""Files that were damaged, cut, deleted or replaced: noticed and named, never replayed as other content."""

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from data.errors import JournalError
from data.journal.protocol import Events, Kind
from data.journal.sqlite import SqliteJournal
from data.journal.verify import verify
from data.outcomes import Became
from tests.data.journal.conformance import reported, rows

FLIPS, CUTS = 70, 20


def fill(journal: SqliteJournal, commits: int = 60, size: int = 7) -> None:
    first = journal.end
    for i in range(commits):
        ids = [f"t-{first}-{i}-{k}" for k in range(size)]
        with journal.begin() as commit:
            commit.append(Kind.TRANSACTION, rows(Kind.TRANSACTION, ids, i))
            if i % 3 == 0:
                commit.append(Kind.LABEL, rows(Kind.LABEL, ids[:2], i))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "j.db"
    with SqliteJournal(made) as journal:
        fill(journal)
        journal.answers.keep([(at, b"answer %d" % at) for at in range(0, 100, 7)])
    return made


def read(path: Path) -> tuple[list[dict], dict[int, bytes]]:
    """All that can be had of a journal, through every way of reading it."""
    with SqliteJournal(path, readonly=True) as journal:
        found, offsets = [], []
        for events in journal.replay():
            found += [{"kind": events.kind, **row} for row in events.batch.to_pylist()]
            if events.kind is Kind.TRANSACTION:
                offsets += range(events.offset, events.offset + len(events.batch))
        taken = journal.take(np.array(offsets, np.int64)).to_pylist()
        assert taken == [{k: v for k, v in found[at].items() if k != "kind"} for at in offsets]
        return found, journal.answers.find(range(100))


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_and_no_cut_is_replayed_as_other_content(path: Path, seed: int) -> None:
    content, (wanted, answers) = path.read_bytes(), read(path)
    random = np.random.default_rng(seed)
    damaged = [flipped(content, int(bit)) for bit in random.choice(8 * len(content), FLIPS, replace=False)]
    damaged += [content[: int(size)] for size in random.choice(len(content), CUTS, replace=False)]
    noticed = 0
    for file in damaged:
        path.write_bytes(file)
        try:
            found, kept = read(path)
        except JournalError:
            noticed += 1
        else:
            assert found == wanted
            assert kept.items() <= answers.items()
        for beside in ("-wal", "-shm"):
            Path(f"{path}{beside}").unlink(missing_ok=True)
    assert noticed > CUTS


def test_every_bit_of_a_stored_row_is_under_its_checksum(path: Path) -> None:
    content = path.read_bytes()
    with SqliteJournal(path) as journal:
        payload = bytes(journal._connection.execute("SELECT payload FROM events WHERE first = 0").fetchone()[0])
    at = content.index(payload)
    for bit in range(8 * at, 8 * (at + len(payload)), 37):
        path.write_bytes(flipped(content, bit))
        with (
            SqliteJournal(path) as journal,
            pytest.raises(JournalError, match=r"j.db: the events at offset 0 are damaged: they do not match their"),
        ):
            list(journal.replay())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE events SET rows = rows + 1 WHERE first = 9", "offset 9 are damaged"),
        ("UPDATE events SET kind = 2 WHERE first = 9", "offset 9 are damaged"),
        ("UPDATE events SET payload = (SELECT payload FROM events WHERE first = 16) WHERE first = 9", "offset 9 are"),
        ("UPDATE events SET payload = 'text' WHERE first = 9", "offset 9 are damaged"),
        ("UPDATE events SET checksum = NULL WHERE first = 9", "offset 9 are damaged: their checksum is missing"),
        ("DELETE FROM events WHERE first = 9", "the events at offset 9 are lost"),
        ("DELETE FROM events WHERE first = 0", "the events at offset 0 are lost"),
        ("UPDATE events SET first = 8 WHERE first = 9", "offset 8 are damaged"),
    ],
)
def test_what_the_tables_cannot_have_held_is_an_error_with_its_offset(path: Path, damage: str, said: str) -> None:
    run(path, damage)
    with SqliteJournal(path) as journal, pytest.raises(JournalError, match=said):
        list(journal.replay())
    assert not verify(path).ok


def run(path: Path, *statements: str) -> None:
    other = sqlite3.connect(path)
    for statement in statements:
        other.execute(statement)
    other.commit()
    other.close()


def test_a_damaged_last_row_is_found_on_opening(path: Path) -> None:
    run(path, "UPDATE events SET rows = 100 WHERE first = (SELECT max(first) FROM events)")
    with pytest.raises(JournalError, match="do not match their checksum"):
        SqliteJournal(path)


def test_a_damaged_answer_counts_as_not_kept(path: Path) -> None:
    run(path, "UPDATE answers SET answer = x'00' WHERE position = 7")
    run(path, "UPDATE answers SET answer = 'text' WHERE position = 14")
    with SqliteJournal(path) as journal:
        assert set(journal.answers.find([0, 7, 14, 21])) == {0, 21}
    assert [fault.split(";")[0] for fault in verify(path).faults] == [
        f"the answer kept for offset {at} is damaged" for at in (7, 14)
    ]


# ---- a file that changes under a running process


def replace_file(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").rename(path)


def cut_file(path: Path) -> None:
    os.truncate(path, 4096)


def remove_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def cut_log(path: Path) -> None:
    os.truncate(f"{path}-wal", 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, "j.db is gone"),
        (replace_file, "j.db was replaced under this process"),
        (cut_file, "j.db was cut from"),
        (lambda path: os.truncate(path, 0), "j.db was cut from"),
        (remove_log, "j.db-wal is gone"),
        (cut_log, "j.db-wal was cut"),
    ],
    ids=["removed", "replaced", "cut", "emptied", "log removed", "log cut"],
)
def test_nothing_is_acknowledged_once_the_file_is_not_the_one_that_was_opened(
    path: Path, change: Callable[[Path], None], said: str
) -> None:
    with SqliteJournal(path) as journal:
        fill(journal, 3)
        change(path)
        for _ in range(20):
            with pytest.raises(JournalError, match=said):
                fill_one(journal)


def fill_one(journal: SqliteJournal) -> None:
    with journal.begin() as commit:
        commit.append(Kind.TRANSACTION, rows(Kind.TRANSACTION, ["fresh"]))


def test_a_reader_notices_as_well(path: Path) -> None:
    with SqliteJournal(path, readonly=True) as journal:
        path.rename(path.with_suffix(".old"))
        with pytest.raises(JournalError, match="is gone"):
            _ = journal.end
        path.with_suffix(".old").rename(path)
        assert journal.end > 0


def test_what_looks_alike_but_is_legal_is_no_alarm(path: Path) -> None:
    with SqliteJournal(path) as journal, SqliteJournal(path) as other:
        fill(journal, 2)
        # Tools that copy a journal while it is in use empty its log like this.
        run(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        assert Path(f"{path}-wal").stat().st_size == 0
        fill(journal, 2)
        fill(other, 300)
        fill(journal, 2)
        other.close()
        fill(journal, 1)
    assert verify(path).ok


def test_an_empty_file_is_not_taken_for_a_new_journal(path: Path, tmp_path: Path) -> None:
    os.truncate(path, 0)
    for readonly in (False, True):
        with pytest.raises(JournalError, match="is empty, and a journal never is: it was cut"):
            SqliteJournal(path, readonly=readonly)
    assert path.stat().st_size == 0
    (tmp_path / "gone.db-wal").write_bytes(b"log")
    with pytest.raises(JournalError, match=r"missing, but its write-ahead log gone\.db-wal is there"):
        SqliteJournal(tmp_path / "gone.db")
    assert not (tmp_path / "gone.db").exists()


# ---- rights


def test_only_its_owner_may_read_a_new_journal(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with SqliteJournal(tmp_path / "j.db") as journal:
            fill(journal, 1)
            made = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert made == {"j.db": 0o600, "j.db-wal": 0o600, "j.db-shm": 0o600}


@contextmanager
def without_rights(path: Path) -> Iterator[Path]:
    """A copy of a journal, and what lies beside it, that may be read but not written, nor may its folder."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    try:
        for file in path.parent.iterdir():
            shutil.copy(file, folder)
            (folder / file.name).chmod(0o444)
        folder.chmod(0o555)
        if user == 0:  # root may do everything: be somebody else
            os.seteuid(65534)
        yield folder / path.name
    finally:
        if user == 0:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_reading_needs_no_right_to_write(path: Path) -> None:
    wanted = read(path)
    with without_rights(path) as there:
        assert read(there) == wanted
        assert verify(there).ok
        with pytest.raises(JournalError, match=r"j\.db may not be written"):
            SqliteJournal(there)


def test_a_log_that_cannot_be_read_without_rights_is_said_and_not_left_out(path: Path) -> None:
    with SqliteJournal(path) as journal:
        fill(journal, 1)
        (path.parent / "kept").mkdir()
        for name in ("j.db", "j.db-wal"):
            shutil.copy(path.parent / name, path.parent / "kept" / name)
    with (
        without_rights(path.parent / "kept" / "j.db") as there,
        pytest.raises(JournalError, match="copy both into a folder in which you may write"),
    ):
        SqliteJournal(there, readonly=True)


def test_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no journal at"):
        SqliteJournal(tmp_path / "new" / "j.db", readonly=True)
    assert not list(tmp_path.iterdir())


def test_a_reader_cannot_write(path: Path) -> None:
    with SqliteJournal(path, readonly=True) as journal, pytest.raises(JournalError, match="readonly"):
        fill_one(journal)


def test_a_journal_is_made_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "there.db")
    with SqliteJournal(tmp_path / "link.db") as journal:
        fill(journal, 1)
    with SqliteJournal(tmp_path / "there.db") as journal:
        assert journal.end == 9


# ---- files of earlier layouts


LAYOUT_1 = """
CREATE TABLE events (
    first INTEGER PRIMARY KEY, rows INTEGER NOT NULL, kind INTEGER NOT NULL, format INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE ids (
    transaction_id TEXT PRIMARY KEY, position INTEGER NOT NULL, content BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE answers (position INTEGER PRIMARY KEY, answer BLOB NOT NULL);
INSERT INTO events SELECT first, rows, kind, format, payload FROM new.events;
INSERT INTO ids SELECT * FROM new.ids;
INSERT INTO answers SELECT position, answer FROM new.answers;
PRAGMA application_id=1381454920;
PRAGMA user_version=1;
PRAGMA journal_mode=WAL;
"""


@pytest.fixture
def old(path: Path) -> Path:
    made = path.with_name("old.db")
    connection = sqlite3.connect(made, isolation_level=None)
    connection.execute("ATTACH ? AS new", (str(path),))
    connection.executescript(LAYOUT_1)
    connection.close()
    return made


def test_a_file_without_checksums_is_read_as_it_is_and_gets_them_when_written(path: Path, old: Path) -> None:
    content = old.read_bytes()
    assert read(old) == read(path)
    found = verify(old)
    assert (found.ok, found.unchecked) == (True, found.events)
    assert old.read_bytes() == content
    with SqliteJournal(old) as journal:
        before = journal.end
        assert before == found.events
        fill(journal, 2)
        journal.answers.keep([(99, b"fresh")])
        assert journal.answers.find([0, 99]) == {0: b"answer 0", 99: b"fresh"}
    again = verify(old)
    assert (again.ok, again.unchecked, again.events) == (True, before, before + 16)
    run(old, f"UPDATE events SET checksum = NULL WHERE first = {before}")
    assert verify(old).faults[0].startswith(f"the events at offset {before} are damaged: their checksum is missing")


def test_a_file_without_a_table_of_labels_gets_it_when_written(path: Path, old: Path) -> None:
    """From layout 1 and from layout 2, with labels that were recorded twice, as they could be."""
    run(path, "DROP TABLE labels", "PRAGMA user_version=2")
    for file in (path, old):
        content = file.read_bytes()
        assert verify(file).ok
        assert read(file)
        assert file.read_bytes() == content
        with SqliteJournal(file) as journal:
            labels = {i: [(3, True)] for i in ("t-0-3-0", "t-0-3-1")}
            assert journal.labels.find(["t-0-3-0", "t-0-3-1", "t-0-3-2", "t-0-4-0"]) == labels
            with journal.begin() as commit:
                commit.append(Kind.LABEL, rows(Kind.LABEL, ["t-0-3-0"], 3))
            run(file, "DROP TABLE labels", "PRAGMA user_version=2")
        with SqliteJournal(file) as journal:
            assert journal.labels.find(["t-0-3-0", "t-0-3-1"]) == labels
        assert verify(file).ok


def test_a_file_without_a_table_of_outcomes_gets_it_when_written(path: Path) -> None:
    sent = Became("o1", "t-0-3-0", "refunded", 9, 5)
    with SqliteJournal(path) as journal, journal.begin() as commit:
        commit.append(Kind.OUTCOME, reported(sent))
    run(path, "DROP TABLE outcomes", "PRAGMA user_version=3")
    assert verify(path).ok
    with SqliteJournal(path) as journal:
        assert journal.outcomes.of(["t-0-3-0"]) == {"t-0-3-0": [sent]}
    assert verify(path).ok
    run(path, "UPDATE outcomes SET amount = 6")
    assert verify(path).faults == ["the outcome 'o1' of 't-0-3-0' is not in the index of outcomes"]


def test_damage_without_a_checksum_is_an_error_where_it_shows(old: Path) -> None:
    run(old, "UPDATE events SET payload = substr(payload, 1, length(payload) / 2) WHERE first = 9")
    with SqliteJournal(old, readonly=True) as journal, pytest.raises(JournalError, match="offset 9 are damaged"):
        list(journal.replay())


def test_a_file_of_a_later_layout_is_not_touched(path: Path) -> None:
    run(path, "PRAGMA user_version=5")
    for readonly in (False, True):
        with pytest.raises(JournalError, match="layout 5, this version knows up to 4; upgrade Ringwatch"):
            SqliteJournal(path, readonly=readonly)


# ---- verify


def test_verify_counts_what_is_there(path: Path) -> None:
    found = verify(path)
    assert (found.ok, found.faults, found.unchecked) == (True, [], 0)
    assert (found.events, found.transactions, found.answers) == (60 * 7 + 20 * 2, 60 * 7, 15)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM ids WHERE position = 3", "'t-0-0-3' at offset 3 is not in the index of ids"),
        ("UPDATE ids SET position = 4 WHERE position = 3", "'t-0-0-3' at offset 3 is indexed at offset 4"),
        ("UPDATE ids SET content = x'00' WHERE position = 3", "'t-0-0-3' at offset 3 is indexed with other content"),
        ("INSERT INTO ids VALUES ('t-x', 3, x'00')", "421 transaction ids are indexed, 420 transactions can be read"),
        ("DELETE FROM labels WHERE transaction_id = 't-0-3-1'", "label of 't-0-3-1' at offset 31 is not in the index"),
        ("UPDATE labels SET reported_at = 9 WHERE transaction_id = 't-0-0-0'", "label of 't-0-0-0' at offset 7 is not"),
        ("INSERT INTO labels VALUES ('t-x', 3, 1)", "41 labels are indexed, 40 can be read"),
        ("DELETE FROM events WHERE first = 9", "offsets 9 to 15 are lost"),
        ("DELETE FROM checked", "where its checksums begin is lost"),
    ],
)
def test_verify_compares_the_index_with_the_events(path: Path, damage: str, said: str) -> None:
    run(path, damage)
    faults = verify(path).faults
    assert any(said in fault for fault in faults), faults


def test_verify_goes_on_after_a_fault_and_counts_the_rest(path: Path) -> None:
    run(path, "UPDATE events SET payload = x'00' WHERE kind = 1")
    found = verify(path)
    assert found.events == 40
    assert len([fault for fault in found.faults if "damaged" in fault]) == 60
    run(path, "DELETE FROM ids", "UPDATE events SET checksum = 0")
    found = verify(path)
    assert not found.ok
    (path.parent / "text").write_text("no journal")
    assert "cannot open the journal" in verify(path.parent / "text").faults[0]
    with pytest.raises(JournalError, match="no journal at"):
        verify(path.parent / "nowhere")


def test_verify_works_beside_a_writer(path: Path) -> None:
    with SqliteJournal(path) as journal:
        with journal.begin() as commit:
            commit.append(Kind.LABEL, rows(Kind.LABEL, ["l"]))
            assert verify(path).events == commit.end - 1
        assert verify(path).events == journal.end
        assert list(journal.replay(journal.end - 1)) == [Events(Kind.LABEL, journal.end - 1, rows(Kind.LABEL, ["l"]))]
