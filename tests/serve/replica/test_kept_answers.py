"""Answers as they are kept: compact, word for word, and not for ever."""

import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.model.artifact import Artifact, untrained
from serve.errors import ServeError
from serve.replica import kept_answers
from serve.replica.admission import ScoreCall
from serve.replica.answers import json_bytes
from serve.replica.compact import pack, unpack
from serve.replica.kept_answers import offset_at, unpacked
from serve.replica.replica import Replica
from serve.settings import Settings
from tests.world import payment_batch

PAYMENTS = payment_batch(300, seed=5, accounts=60, devices=30)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 7)


def opened(artifact: Artifact, folder: Path, **more: Any) -> Replica:
    config = Settings(
        model=folder, journal=folder / "journal.sqlite", insecure=True, device="cpu", snapshot_every=0, **more
    )
    replica = Replica(artifact, config)
    replica.open()
    return replica


def alone(replica: Replica, i: int, payments: pa.RecordBatch = PAYMENTS) -> bytes:
    """The answer to a payment that is sent by itself."""
    ((body,),) = replica.process([ScoreCall(payments.slice(i, 1))])
    return body


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
OBJECTS = st.dictionaries(st.sampled_from(["code", "message", "contribution", "name", "version", "commit"]), VALUES)


@settings(deadline=None, max_examples=100)
@given(name=st.text(), values=st.lists(VALUES | OBJECTS | st.lists(OBJECTS, max_size=3), max_size=4), other=OBJECTS)
def test_an_answer_of_any_fields_comes_back_as_it_was(name: str, values: list[Any], other: dict[str, Any]) -> None:
    fields = ["reasons", "model", "timings", "added"]
    answer = json_bytes({"transaction_id": name, **dict(zip(fields, values, strict=False)), **other})
    assert unpack(pack(answer, name), name) == answer
    assert unpack(pack(answer, "another"), "another") == answer


def test_an_answer_of_before_the_compact_form_is_read_and_one_of_a_later_form_is_not() -> None:
    assert unpack(b'{"transaction_id":"a"}', "a") == b'{"transaction_id":"a"}'
    with pytest.raises(ServeError, match=r"kept in form 03.*upgrade"):
        unpack(b"\x03anything", "a")
    for damaged in (b"\x01\xff\xff\xff", b"\x02\xff\xff\xff", b"\x02" + pack(b"{}", "a")[1:]):
        with pytest.raises(ServeError, match="damaged"):
            unpack(damaged, "a")
    assert unpacked({7: b"\x03later", 8: b"{}"}, {7: "a", 8: "b"}) == {8: b"{}"}


def test_a_payment_that_is_sent_again_after_a_restart_is_answered_word_for_word(
    artifact: Artifact, tmp_path: Path
) -> None:
    replica = opened(artifact, tmp_path)
    said = [alone(replica, i) for i in range(20)]
    replica.close()
    again = opened(artifact, tmp_path)
    assert [alone(again, i) for i in range(20)] == said
    again.close()


def test_a_payment_sent_alone_takes_at_most_400_bytes_with_its_ids_and_its_answer(
    artifact: Artifact, tmp_path: Path
) -> None:
    names = pa.array([str(uuid.UUID(int=i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128))) for i in range(300)])
    payments = PAYMENTS.set_column(0, PAYMENTS.schema.field(0), names)
    replica = opened(artifact, tmp_path)
    before = size_of(tmp_path / "journal.sqlite")
    for i in range(300):
        alone(replica, i, payments)
        replica.idle()
    replica.close()
    assert (size_of(tmp_path / "journal.sqlite") - before) / 300 <= 400


def size_of(journal: Path) -> int:
    """Bytes that a journal takes, its log emptied."""
    with sqlite3.connect(journal) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return journal.stat().st_size


def test_answers_are_let_go_when_they_are_old(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_answers, "LOOK_S", 0.0)
    monkeypatch.setattr(kept_answers, "AT_ONCE", 7)
    replica = opened(artifact, tmp_path, answers_days=0.02, capacity=256)
    for i in range(100):
        alone(replica, i)
    times = PAYMENTS.column("timestamp").cast(pa.int64()).to_numpy()
    last = int(times[99]) - int(0.02 * 86_400_000_000)
    expected = int((times[:100] < last).sum())
    assert 20 < expected < 90
    assert offset_at(replica.state.store, last) == expected
    for _ in range(20):
        replica.idle()
    assert sorted(replica.journal.answers.find(range(100))) == list(range(expected, 100))
    replica.close()
