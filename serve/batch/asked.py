"""What a run of re-scoring is asked for: all that its files depend on, and the run that it goes on from."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from gnn.model.artifact import Artifact
from serve.batch.manifest import SUCCESS, Manifest, difference, read_manifest
from serve.batch.prefix import Former, Prefix
from serve.batch.source import BatchSource
from serve.batch.state import RunState
from serve.errors import ServeError
from serve.settings import Settings

Explained = Literal["none", "risky", "all"]


def what_is_asked(
    artifact: Artifact, source: BatchSource, settings: Settings, block_rows: int, reasons: Explained
) -> dict[str, Any]:
    """All that the files of a run depend on, as JSON."""
    made = json.dumps([artifact.sha256, asdict(artifact.calibration), asdict(artifact.config)])
    found = {
        "model": {"name": artifact.version, "sha256": hashlib.sha256(made.encode()).hexdigest()},
        "input": source.identity,
        "decisions": {name: getattr(settings, name) for name in ("challenge", "review", "decline")},
        "output": {"block_rows": block_rows, **({} if reasons == "none" else {"reasons": reasons})},
    }
    asked: dict[str, Any] = json.loads(json.dumps(found))  # as it is read back: tuples are lists
    return asked


class Since:
    """A run that is done, and that another one goes on from: payments behind it are scored, with what it kept.

    Args:
        folder: Of the run that is done.

    Raises:
        ServeError: There is none, it is not done, or it was made before runs could be gone on from.
    """

    def __init__(self, folder: Path) -> None:
        found = read_manifest(folder)
        if found is None or not (folder / SUCCESS).exists():
            raise ServeError(
                f"--since: {folder} holds no run that is done; give its own command again to bring it to its end"
            )
        if "prefix" not in found.facts:
            raise ServeError(f"--since: {folder} is of a version that did not keep what it had read")
        self._folder, self._manifest, self._prefix = folder, found, Prefix(**found.facts["prefix"])

    def check(self, asked: dict[str, Any], source: BatchSource) -> dict[str, Any]:
        """See that a run can go on from this one; returns what it is asked for then.

        Raises:
            ServeError: It is by another model, or under other thresholds.
            DataError: The input does not begin with this run's; of files that shows as they are read.
        """
        for part in ("model", "decisions"):
            other = difference({part: self._manifest.asked[part]}, {part: asked[part]})
            if other is not None:
                raise ServeError(f"--since: {self._folder} was scored otherwise: {other}")
        source.go_on_from(Former(self._folder, self._manifest.asked["input"], self._prefix))
        return {**asked, "since": {"row": self._manifest.rows, **asdict(self._prefix)}}

    def begin(self, asked: dict[str, Any], state: RunState) -> Manifest:
        """The manifest of a run that goes on from this one; what this one kept is taken over."""
        before = state.adopt(self._folder, self._manifest, self._prefix.events)
        begins = {"row": self._manifest.rows, "offset": self._prefix.events}
        return Manifest(asked, begins, before=before)
