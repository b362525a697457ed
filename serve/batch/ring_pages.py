"""Pictures of the rings of a history that was replayed offline: a page to play with for each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.history import History
from data.journal.protocol import Known, Report
from graph.rings.picture.html import ring_html
from graph.rings.records import RingRecord
from serve.batch.risk_rings import RiskHistory
from serve.cases.lookup import Lookup


def draw_rings(found: RiskHistory, records: Sequence[RingRecord], folder: Path) -> list[Path]:
    """Draw rings into a folder, `<id>.html` each: a page of its own that needs no network.

    Raises:
        GraphError: The pictures' JavaScript was not built: `make picture` does it.
    """
    lookup = Lookup(_Recorded(found.history), found.state, lambda rows: found.probability[rows])
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for record in records:
        members = [(member.role, member.name) for member in record.members]
        path = folder / f"{record.id}.html"
        path.write_text(ring_html(record, lookup.ring(members, record.evidence, True)), encoding="utf-8")
        paths.append(path)
    return paths


class _Recorded:
    """A history as `serve.cases.lookup.Recorded`: its graph holds every payment, so none is looked for elsewhere."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._labels: dict[str, list[Report]] = {}
        labels = history.labels
        columns = (labels["transaction_id"], labels["reported_at"].cast(pa.int64()), labels["is_fraud"])
        for name, at, fraud in zip(*(column.to_pylist() for column in columns), strict=True):
            self._labels.setdefault(name, []).append((at, fraud))

    def take(self, offsets: NDArray[np.int64]) -> pa.Table:
        """Payments by offset."""
        return self._history.take(offsets)

    @property
    def ids(self) -> "_Ids":
        """Nothing: see the class."""
        return _Ids()

    @property
    def labels(self) -> "_Labels":
        """What was reported of payments."""
        return _Labels(self._labels)


class _Ids:
    def find(self, ids: Sequence[str]) -> dict[str, Known]:
        return {}

    def add(self, ids: Sequence[str], first: int, hashes: Sequence[bytes]) -> None:
        raise TypeError("a history is only read here")


class _Labels:
    def __init__(self, labels: dict[str, list[Report]]) -> None:
        self._labels = labels

    def find(self, ids: Sequence[str]) -> dict[str, list[Report]]:
        return {name: self._labels[name] for name in ids if name in self._labels}

    def add(self, labels: pa.RecordBatch) -> None:
        raise TypeError("a history is only read here")
