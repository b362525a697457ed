"""A snapshot gives the same graph back, and a crash at any byte leaves the last good one."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import graph.snapshot
from data.journal.protocol import Events, Kind
from graph.dag.protocol import DAY_US, Window
from graph.errors import GraphError
from graph.memory import ArrayPart
from graph.snapshot import SNAPSHOTS_KEPT, list_snapshots, restore, save, sole_writer
from graph.state import GraphState
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device", "payee")
N = 4000
PAYMENTS = payment_batch(N, seed=11, accounts=700, devices=300)


def play(state: GraphState, first: int, last: int) -> None:
    """Payments in hundreds, with labels between them, some of them overturned."""
    for i in range(first, last, 100):
        state.apply(Events(Kind.TRANSACTION, state.applied, PAYMENTS.slice(i, 100)))
        for fraud in (True, i % 300 > 0):
            labels = label_batch(PAYMENTS, [i, i + 40], [fraud, not fraud])
            state.apply(Events(Kind.LABEL, state.applied, labels))


def new() -> GraphState:
    return GraphState(ROLES, 1301, Window(1100, 20 * DAY_US))  # wraps three times, and ids go and come


def assert_same(a: GraphState, b: GraphState) -> None:
    assert a.facts() == b.facts()
    for (name, one), (other, two) in zip(a.parts().items(), b.parts().items(), strict=True):
        assert (name, one.used) == (other, two.used)
        assert one.array[: one.used].tobytes() == two.array[: two.used].tobytes(), name


@pytest.mark.parametrize("at", [0, 700, 2600])
def test_a_restored_graph_goes_on_as_the_saved_one(tmp_path, at):
    state = new()
    play(state, 0, at)
    again = restore(save(state, tmp_path)).state
    assert_same(state, again)
    for each in (state, again):
        play(each, at, N)
    assert_same(state, again)


def test_arrays_beside_the_graph_come_back_with_their_holes(tmp_path):
    layers = np.zeros((3, 50, 4), np.int8)
    layers[:, :20] = np.random.default_rng(0).integers(-100, 100, (3, 20, 4))
    path = save(new(), tmp_path, {"cache": ArrayPart(layers, 20, axis=1)}, {"upto": 20})
    back = restore(path)
    np.testing.assert_array_equal(back.extra["cache"], layers)
    assert back.facts == {"upto": 20}
    back.extra["cache"][:] = 1  # copy on write: the file stays as it is
    np.testing.assert_array_equal(restore(path).extra["cache"], layers)


def test_only_the_newest_stay(tmp_path):
    state = new()
    for i in range(SNAPSHOTS_KEPT + 2):
        play(state, 100 * i, 100 * i + 100)
        save(state, tmp_path)
    assert len(list_snapshots(tmp_path)) == SNAPSHOTS_KEPT
    assert restore(list_snapshots(tmp_path)[0]).state.applied == state.applied


class _Crash(Exception):
    pass


def test_a_crash_at_any_step_leaves_the_last_good_one(tmp_path, monkeypatch):
    """Every call that touches the disk fails in turn; whatever the step, the first snapshot is there and whole."""
    state = new()
    play(state, 0, 500)
    first = save(state, tmp_path)
    whole = new()
    play(whole, 0, 500)
    play(state, 500, 600)
    crashed, step = 0, 0
    while True:
        calls = 0

        def dies(call, *, at=step):
            def run(*arguments):
                nonlocal calls
                calls += 1
                if calls > at:
                    raise _Crash  # not an OSError: nothing cleans up after it, as after a kill
                return call(*arguments)

            return run

        with monkeypatch.context() as patch:
            patch.setattr(graph.snapshot.os, "fsync", dies(os.fsync))
            patch.setattr(graph.snapshot.Path, "rename", dies(Path.rename))
            try:
                save(state, tmp_path)
            except _Crash:
                crashed += 1
            else:
                break
        step += 1
        if list_snapshots(tmp_path) != [first]:  # it died in the last flush, after the rename: the new one is whole
            assert_same(restore(list_snapshots(tmp_path)[0]).state, state)
            shutil.rmtree(list_snapshots(tmp_path)[0])
        assert_same(restore(first).state, whole)
        with sole_writer(tmp_path) as may:  # the next writer tidies up
            assert may
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", first.name]
    assert crashed > 20  # one for each file, the manifest, the folders and the rename


def test_a_writer_that_is_killed_leaves_the_last_good_one(tmp_path):
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from graph.snapshot import save
        from tests.graph.test_snapshot import new, play
        state = new()
        play(state, 0, 500)
        print("ready", flush=True)
        while True:
            save(state, Path(sys.argv[1]))
            play(state, 500, 600)
    """)
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert process.stdout is not None
    process.stdout.readline()
    while not list_snapshots(tmp_path):
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert restore(list_snapshots(tmp_path)[0]).state.applied > 500


@pytest.mark.parametrize("name", ["rows", "velocity", "ids.digests", "rings.ties.list", "labels"])
def test_damage_is_told(tmp_path, name):
    state = new()
    play(state, 0, 500)
    path = save(state, tmp_path)
    file = path / f"{name}.bin"
    blob = bytearray(file.read_bytes())
    blob[37] ^= 1
    file.write_bytes(bytes(blob))
    with pytest.raises(GraphError, match="checksum"):
        restore(path)
    file.write_bytes(bytes(blob[:-1]))
    with pytest.raises(GraphError, match="bytes"):
        restore(path)
    file.unlink()
    with pytest.raises(GraphError, match="damaged"):
        restore(path)


def test_a_damaged_manifest_and_another_key_are_told(tmp_path, monkeypatch):
    path = save(new(), tmp_path)
    monkeypatch.setenv("RINGWATCH_ID_KEY", "0123456789abcdef" * 2)
    with pytest.raises(GraphError, match="RINGWATCH_ID_KEY"):
        restore(path)
    monkeypatch.delenv("RINGWATCH_ID_KEY")
    manifest = path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"capacity": 1301', b'"capacity": 1302'))
    with pytest.raises(GraphError, match="checksum"):
        restore(path)
    with pytest.raises(GraphError, match="no readable snapshot"):
        restore(tmp_path / "nowhere")
