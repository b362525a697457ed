"""Snapshots of a replica, made by a process of their own that follows the journal as any replica does.

That process takes up the newest snapshot, applies and scores what came after it, and writes the next. It shares nothing
with the replicas but files, so that they score on undisturbed, and two snapshots of one journal never differ in more
than their age. It runs at the lowest priority.
"""

import logging
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.errors import JournalError
from data.journal.protocol import Journal
from data.report import Report
from gnn.model.artifact import Artifact
from graph.errors import GraphError
from graph.snapshot import Restored, list_snapshots, restore, save, sole_writer
from graph.state import GraphState
from serve import children
from serve.settings import Settings

log = logging.getLogger("ringwatch")
LOWEST = 19  # niceness
LOOK_S = 1.0  # between two looks at how much has been applied


def newest(settings: Settings, artifact: Artifact, capacity: int, journal: Journal) -> Restored | None:
    """The newest snapshot that is whole and fits: the journal, the model's window and roles, the buffer's size.

    Args:
        settings: They name the folder.
        artifact: The model that will score.
        capacity: Rows of the buffer.
        journal: That the snapshot must be of.
    """
    for path in list_snapshots(settings.snapshot_folder):
        try:
            restored = restore(path, journal)
            reason = _misfit(restored.state, artifact, capacity, journal)
        except (GraphError, JournalError) as error:
            reason = str(error)
        if reason is None:
            log.info("going on from the snapshot %s", path)
            return restored
        log.warning("snapshot left aside: %s: %s", path, reason)
    return None


def _misfit(state: GraphState, artifact: Artifact, capacity: int, journal: Journal) -> str | None:
    """Why a graph cannot be gone on from, if it cannot."""
    store = state.store
    if (store.roles, store.window, store.capacity) != (artifact.roles, artifact.config.window, capacity):
        return "it has other roles, another window or another capacity than the model and the settings ask for"
    if state.applied > journal.end:
        return f"it is of offset {state.applied:,}, the journal ends at {journal.end:,}"
    if store.rows:
        last = store.rows - 1
        name = journal.take(store.offsets.of(np.array([last])))["transaction_id"].combine_chunks()
        if state.transaction_rows(name)[0] != last:
            return "its newest payment is not the journal's: it is of another journal"
    return None


def bring_up_to_date(artifact: Artifact, settings: Settings, report: Report) -> Path | None:
    """Bring the snapshots of a journal up to date, the keys and values of the model included.

    Returns:
        The new snapshot; None where another process is at it, or nothing new has come.
    """
    from serve.replica.replica import Replica

    with sole_writer(settings.snapshot_folder) as may:
        if not may:
            return None
        replica = Replica(artifact, settings.model_copy(update={"device": "cpu"}), readonly=True)
        try:
            if replica.open(report) == replica.follower.position:
                return None
            slot = replica.slot
            facts = {**slot.facts(), **replica.decider.facts()}
            return save(replica.state, settings.snapshot_folder, slot.parts(), facts)
        finally:
            replica.close()


class SnapshotScheduler:
    """Starts a process that writes a snapshot whenever enough has been applied since the newest one.

    The newest one may be of another process: what is counted outlasts a restart, however often that happens. A process
    that failed is started again only after as many events more.

    Args:
        settings: They say how often.
        position: The journal offset reached.
    """

    def __init__(self, settings: Settings, position: Callable[[], int]) -> None:
        self._settings, self._position = settings, position
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="ringwatch-snapshots")
        if settings.snapshot_every:
            self._thread.start()

    def _run(self) -> None:
        s, tried = self._settings, 0
        while not self._stop.wait(LOOK_S):
            position = self._position()
            if position - max(tried, _newest_offset(s.snapshot_folder, position)) < s.snapshot_every:
                continue
            tried = position
            options = ["--model", str(s.model), "--journal", str(s.journal), "--snapshots", str(s.snapshot_folder)]
            self._process = subprocess.Popen(
                children.command("snapshot", *options),
                env=children.environment(RINGWATCH_CAPACITY=str(s.capacity)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            os.setpriority(os.PRIO_PROCESS, self._process.pid, LOWEST)
            _, said = self._process.communicate()
            if self._process.returncode:
                log.warning("no snapshot: %s", said.decode(errors="replace").strip()[-500:])

    def close(self) -> None:
        """Stop, and the process with it: what it has not finished is not there."""
        self._stop.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        if self._thread.ident is not None:
            self._thread.join(10)


def _newest_offset(folder: Path, position: int) -> int:
    """The offset of the newest snapshot up to a position, 0 without one; one from beyond is of another journal."""
    return next((offset for path in list_snapshots(folder) if (offset := int(path.name)) <= position), 0)
