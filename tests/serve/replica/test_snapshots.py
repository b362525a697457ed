"""A replica that restarts from a snapshot answers as one that never stopped."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import Artifact, load, untrained
from graph.snapshot import list_snapshots
from serve.http.app import build_app
from serve.http.wire import ARROW, arrow_bytes
from serve.replica import journals, snapshots
from serve.replica.admission import LabelCall, ScoreCall
from serve.replica.replica import Replica
from serve.replica.snapshots import SnapshotScheduler, bring_up_to_date
from serve.settings import Settings
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device")
PAYMENTS = payment_batch(900, seed=8, accounts=120, devices=60)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    untrained(ROLES, neighbours=4, window_rows=1 << 12, cache="int8").save(folder)
    return folder


@pytest.fixture
def artifact(model) -> Artifact:
    return load(model)


def settings(model: Path, folder: Path, **more: object) -> Settings:
    more = {"snapshot_every": 0, "capacity": 1 << 13, **more}
    return Settings(model=model, journal=folder / "journal.sqlite", insecure=True, **more)


def send(replica: Replica, first: int, last: int) -> np.ndarray:
    """Payments in fifties with a label after each; their scores."""
    scores = []
    for i in range(first, last, 50):
        table, _ = replica.process(
            [
                ScoreCall(PAYMENTS.slice(i, 50), reasons=False, table=True),
                LabelCall(label_batch(PAYMENTS, [i], [i % 100 == 0])),
            ]
        )
        scores.append(table["fraud_probability"].to_numpy())
    return np.concatenate(scores)


def opened(artifact: Artifact, config: Settings) -> tuple[Replica, int]:
    replica = Replica(artifact, config)
    return replica, replica.open()


def test_a_restart_from_a_snapshot_goes_on_with_the_same_bits(model, artifact, tmp_path):
    never_stopped, _ = opened(artifact, settings(model, tmp_path / "one"))
    expected = send(never_stopped, 0, 900)
    rings = never_stopped.ties.rings(50)
    config = settings(model, tmp_path / "two")
    replica, begun = opened(artifact, config)
    assert begun == 0
    got = [send(replica, 0, 400)]
    made = bring_up_to_date(artifact, config, lambda what, share: None)  # while the replica is open, as in a service
    assert made == list_snapshots(config.snapshot_folder)[0]
    got.append(send(replica, 400, 600))
    replica.close()
    replica, begun = opened(artifact, config)
    assert begun == 408  # 400 payments and 8 labels are in the snapshot, the rest came from the journal
    assert not replica.fill()  # nothing is missing: keys and values were in it too
    got.append(send(replica, 600, 900))
    np.testing.assert_array_equal(np.concatenate(got), expected)
    assert replica.ties.rings(50) == rings
    assert bring_up_to_date(artifact, config, lambda what, share: None) is not None
    assert bring_up_to_date(artifact, config, lambda what, share: None) is None  # nothing new
    replica.close()


def test_another_model_fills_its_cache_behind_the_services_back(model, artifact, tmp_path):
    config = settings(model, tmp_path / "old")
    replica, _ = opened(artifact, config)
    send(replica, 0, 600)
    replica.close()
    bring_up_to_date(artifact, config, lambda what, share: None)
    other = untrained(ROLES, seed=3, neighbours=4, window_rows=1 << 12)
    from_scratch, _ = opened(other, settings(model, tmp_path / "new"))
    expected = send(from_scratch, 0, 900)
    replica, begun = opened(other, config)
    assert begun == 612
    got = send(replica, 600, 700)  # at once: what is missing is computed as it is read
    while replica.fill():
        pass
    got = np.concatenate([got, send(replica, 700, 900)])
    np.testing.assert_array_equal(got, expected[600:])
    np.testing.assert_array_equal(replica.slot.probabilities(np.arange(900)), expected)
    np.testing.assert_array_equal(replica.slot.scorers[-1].cache.data, from_scratch.slot.scorers[-1].cache.data)
    replica.close()


def test_snapshots_are_made_by_a_process_that_may_not_write_the_journal(model, artifact, tmp_path, monkeypatch):
    config, opens = settings(model, tmp_path), []
    replica, _ = opened(artifact, config)
    send(replica, 0, 100)

    def spy(path: Path, **options: object) -> SqliteJournal:
        opens.append(options)
        return SqliteJournal(path, **options)

    monkeypatch.setattr(journals, "SqliteJournal", spy)
    assert bring_up_to_date(artifact, config, lambda what, share: None) is not None
    assert opens
    assert all(options["readonly"] for options in opens)
    replica.close()


def test_snapshots_are_counted_from_the_newest_one_and_not_from_each_start(model, tmp_path, monkeypatch):
    """Restarted every 40 events, with a snapshot wanted every 100: it comes with the third start."""
    config, started = settings(model, tmp_path, snapshot_every=100), []

    class Process:
        pid, returncode = os.getpid(), 0

        def communicate(self) -> tuple[bytes, bytes]:
            started.append(position)
            (config.snapshot_folder / f"{position:020d}").mkdir(parents=True)
            return b"", b""

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(snapshots.subprocess, "Popen", lambda *words, **options: Process())
    monkeypatch.setattr(snapshots.os, "setpriority", lambda *words: None)
    monkeypatch.setattr(snapshots, "LOOK_S", 0.01)
    for position in range(0, 400, 40):
        scheduler = SnapshotScheduler(config, lambda: position)  # noqa: B023
        time.sleep(0.1)
        scheduler.close()
    assert started == [120, 240, 360]


def test_a_snapshot_from_beyond_the_journal_or_a_failed_process_is_not_counted(model, tmp_path, monkeypatch):
    config, started = settings(model, tmp_path, snapshot_every=100), []
    (config.snapshot_folder / f"{10**6:020d}").mkdir(parents=True)

    class Fails:
        pid, returncode = os.getpid(), 1

        def communicate(self) -> tuple[bytes, bytes]:
            started.append(position)
            return b"", b"no space left"

        def poll(self) -> int:
            return 1

    monkeypatch.setattr(snapshots.subprocess, "Popen", lambda *words, **options: Fails())
    monkeypatch.setattr(snapshots.os, "setpriority", lambda *words: None)
    monkeypatch.setattr(snapshots, "LOOK_S", 0.01)
    position = 150
    scheduler = SnapshotScheduler(config, lambda: position)
    for reached in (150, 190, 260):
        position = reached
        time.sleep(0.1)
    scheduler.close()
    assert started == [150, 260]


@pytest.mark.parametrize("spoil", ["damage", "capacity", "journal"])
def test_a_snapshot_that_does_not_fit_is_left_aside(model, artifact, tmp_path, spoil):
    config = settings(model, tmp_path)
    replica, _ = opened(artifact, config)
    send(replica, 0, 200)
    replica.close()
    path = bring_up_to_date(artifact, config, lambda what, share: None)
    if spoil == "damage":
        file = path / "rows.bin"
        blob = bytearray(file.read_bytes())
        blob[0] ^= 1
        file.write_bytes(bytes(blob))
    elif spoil == "capacity":
        config = settings(model, tmp_path, capacity=1 << 18)
    else:  # the journal was replaced by another, as long
        for stale in tmp_path.glob("journal.sqlite*"):
            if stale.is_file():
                stale.unlink()
        replica, _ = opened(artifact, settings(model, tmp_path, snapshots=tmp_path / "none"))
        replica.process([ScoreCall(payment_batch(300, seed=99), reasons=False, table=True)])
        replica.close()
    replica, begun = opened(artifact, config)
    assert begun == 0
    assert replica.ready
    replica.close()


def test_the_service_has_snapshots_made_while_it_scores(model, tmp_path):
    config = settings(model, tmp_path, snapshot_every=100)
    with TestClient(build_app(config)) as client:
        until = time.monotonic() + 120
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        sent = 0
        while not list_snapshots(config.snapshot_folder):  # it scores on all the time
            assert time.monotonic() < until
            ids = pa.array([f"s{sent + i}" for i in range(20)])
            body = arrow_bytes(pa.Table.from_batches([PAYMENTS.slice(0, 20)]).set_column(0, "transaction_id", ids))
            assert client.post("/v1/scores", content=body, headers={"content-type": ARROW}).status_code == 200
            sent += 20
            time.sleep(0.02)
    replica, begun = opened(load(model), config)
    assert begun >= 100
    assert replica.state.applied == sent
    replica.close()
