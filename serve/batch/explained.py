"""Reasons for payments that workers have scored, given by the process that drives them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gnn.model.artifact import Artifact
from gnn.model.cache import KeyValueCache
from gnn.score.cpu_scorer import CpuScorer
from graph.state import GraphState
from serve.batch.partitions import REASON
from serve.batch.workers import Kept


class Explainer:
    """Gives reasons from the graph that the driver builds, and from the keys and values that workers hand in.

    It is the scorer of the service over these, so the reasons are those of the service. It holds keys and values of a
    window and some blocks.

    Args:
        artifact: The model.
        state: The graph, whose buffer holds a window before the rows that are asked about.
    """

    def __init__(self, artifact: Artifact, state: GraphState) -> None:
        self._store = state.store
        # Nothing is missing in it (`complete_from` is 0): rows are asked about once theirs are there.
        self._cache = KeyValueCache(artifact.config, artifact.net.weights().kv_scale, state.store)
        self._scorer = CpuScorer(artifact, state, cache=self._cache)

    def take(self, kept: Sequence[Kept]) -> None:
        """Take keys and values of rows, as workers or the disk have them."""
        for part in kept:
            rows = np.arange(part.first, part.first + len(part.values))
            held = rows >= self._store.oldest
            self._cache.data[part.layer, self._store.slots(rows[held])] = part.values[held]

    def column(self, first: int, wanted: NDArray[np.bool_]) -> pa.Array:
        """Reasons of n rows from `first` on, list of `REASON` [n]; null where none are wanted."""
        found: list[list[dict[str, object]] | None] = [None] * len(wanted)
        places = np.flatnonzero(wanted)
        for place, why in zip(places.tolist(), self._scorer.reasons(first + places), strict=True):
            found[place] = [{"code": r.code, "message": r.message, "contribution": r.contribution} for r in why.reasons]
        return pa.array(found, pa.list_(REASON))
