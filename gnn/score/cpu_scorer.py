"""Scores rows of the graph with one model, keeps its key-value cache, and says why."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gnn.errors import ModelError
from gnn.model.artifact import Artifact
from gnn.model.cache import KeyValueCache
from gnn.model.engines import make_engine
from gnn.model.groups import group_names
from gnn.model.kernels import Work
from gnn.model.network import EDGE, ModelConfig
from gnn.score.reasons import Explanation, explain_contributions
from gnn.score.shapley import all_masks, exact_values, pair_masks, pair_values
from graph.state import GraphState

ROWS_PER_BATCH = 4096  # rows of intermediate results held at once


class CpuScorer:
    """One model over one graph.

    Args:
        artifact: The model.
        state: The graph; its roles must be the model's.
        device: `cpu` (fused kernels) or a PyTorch device.
        cache: Keys and values of another scorer of the same model to go on with.
        threads: CPU threads for many rows; by default one for each core.

    Raises:
        ModelError: The graph's roles are not the model's.
    """

    ready, lost = True, False  # see `Scorer`

    def __init__(
        self,
        artifact: Artifact,
        state: GraphState,
        device: str = "cpu",
        cache: KeyValueCache | None = None,
        threads: int | None = None,
    ) -> None:
        if artifact.roles != state.store.roles:
            raise ModelError(f"the model reads roles {artifact.roles}, the graph holds {state.store.roles}")
        self.artifact = artifact
        self.state = state
        self._engine = make_engine(artifact.net, state.store, device, threads)
        self.device_name = self._engine.name
        if cache is None:
            cache = KeyValueCache(artifact.config, artifact.net.weights().kv_scale, state.store)
            # Rows that were there before this model are missing, and are computed as they are asked for.
            cache.complete_from = cache.upto = state.store.rows
        self.cache = cache

    def score(self, first: int, last: int) -> NDArray[np.float64]:
        """Score new rows and write their keys and values. To be called for every row once, in order.

        Args:
            first: First row.
            last: One past the last.

        Returns:
            Fraud probabilities, float64 [last - first].
        """
        self.cache.begin(first, last)
        out = np.empty(last - first, np.float64)
        for start in range(first, last, ROWS_PER_BATCH):
            stop = min(last, start + ROWS_PER_BATCH)
            work = self._run(np.arange(start, stop), write=True)
            out[start - first : stop - first] = work.logit
        return self.artifact.calibration.probability(out)

    def fill(self, rows: int) -> bool:
        """Write the keys and values of some more rows that this model has not seen yet, newest first.

        Args:
            rows: How many, at most.

        Returns:
            Whether any are left.
        """
        cache, oldest = self.cache, self.state.store.oldest
        first = max(oldest, cache.complete_from - rows)
        if first < cache.complete_from:
            missing = cache.missing(np.arange(first, cache.complete_from), cache.layers - 1)
            self._fill(missing, cache.layers - 1)
            cache.complete_from = first
        if cache.complete_from <= oldest:
            cache.complete_from = 0
        return cache.complete_from > 0

    def rescore(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The probabilities of past rows once more, from the cache: the score is a pure function of the row's past."""
        return self.artifact.calibration.probability(self.logits(rows))

    def logits(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Uncalibrated log-odds of past rows, float64 [n]."""
        batches = (rows[i : i + ROWS_PER_BATCH] for i in range(0, len(rows), ROWS_PER_BATCH))
        return np.concatenate([np.empty(0), *(self._run(batch, write=False).logit for batch in batches)])

    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of payments, float32 [n, D]; the mean over a ring's payments embeds the ring."""
        batches = (rows[i : i + ROWS_PER_BATCH] for i in range(0, len(rows), ROWS_PER_BATCH))
        width = self.artifact.config.width
        return np.concatenate([np.empty((0, width), np.float32), *(self._run(b, write=False).h for b in batches)])

    def reasons(self, rows: NDArray[np.int64], exact: bool = False) -> list[Explanation]:
        """Why rows got their scores: a baseline and at most five reasons each, which add up to the score's log-odds.

        Args:
            rows: Rows already scored, int64 [n].
            exact: Exact Shapley values, for an investigation: 2^G evaluations of the score for G groups, and not 2 G.
        """
        groups = len(group_names(self.artifact.roles))
        masks, values = (all_masks(groups), exact_values) if exact else (pair_masks(groups), pair_values)
        found = []
        for batch, work, worth in self._ablated_batches(rows, masks):
            found += explain_contributions(self.state, batch, work.x, worth[:, 0], values(worth))
        return found

    def score_ablated(self, rows: NDArray[np.int64], masks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log-odds of past rows, as their probabilities have them, with parts of their evidence left out.

        Args:
            rows: Rows already scored, int64 [n].
            masks: Bit masks over `gnn.model.groups.group_names` of what to leave out, int64 [M].

        Returns:
            float64 [n, M].
        """
        return np.concatenate(
            [np.empty((0, len(masks))), *(worth for _, _, worth in self._ablated_batches(rows, masks))]
        )

    def _ablated_batches(
        self, rows: NDArray[np.int64], masks: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], Work, NDArray[np.float64]]]:
        """For each batch of rows: the rows, what was read, and the log-odds [B, M] without each mask's evidence."""
        top, calibration = self.artifact.config.layers - 1, self.artifact.calibration
        for i in range(0, len(rows), ROWS_PER_BATCH):
            batch = rows[i : i + ROWS_PER_BATCH]
            work = self._prepare(batch)
            self._fill(self.cache.missing(work.near, top), top)
            logits = self._engine.score_ablated(self.cache.data, batch, work, masks).astype(np.float64)
            yield batch, work, logits * calibration.slope + calibration.intercept

    def warm(self) -> None:
        """Compile every kernel on an empty batch, so that the first payment does not wait."""
        rows = np.empty(0, np.int64)
        work = new_work(self.artifact.config, 0)
        self._engine.forward(rows, self.cache, True, work)
        self._by_layers(rows, work, write=True)
        self.reasons(np.zeros(0, np.int64))
        self._engine.score_ablated(self.cache.data, rows, self._prepare(rows), np.zeros(1, np.int64))

    def _prepare(self, rows: NDArray[np.int64]) -> Work:
        work = new_work(self.artifact.config, len(rows))
        self._engine.describe(rows, work)
        self._engine.gather(rows, work)
        return work

    def _run(self, rows: NDArray[np.int64], *, write: bool) -> Work:
        """The network on rows, layer by layer, so that rows of one batch see each other as if scored one by one."""
        work, engine, cache = new_work(self.artifact.config, len(rows)), self._engine, self.cache
        if cache.complete_from > 0 or not engine.forward(rows, cache, write, work):
            self._by_layers(rows, work, write=write)
        return work

    def _by_layers(self, rows: NDArray[np.int64], work: Work, *, write: bool) -> None:
        """The network on many rows, or on such as read what is not in the cache yet."""
        engine, cache = self._engine, self.cache
        engine.describe(rows, work)
        engine.gather(rows, work)
        engine.encode(rows, work)
        for layer in range(cache.layers):
            if write:
                cache.put(layer, rows, engine.keys_values(layer, work))
            self._fill(cache.missing(work.near, layer), layer)
            engine.attend(layer, cache.layer(layer), work)
        engine.finish(work)

    def _fill(self, rows: NDArray[np.int64], top: int) -> None:
        """Write the keys and values of past rows up to layer `top`, and whatever those read."""
        engine, cache = self._engine, self.cache
        for start in range(0, len(rows), ROWS_PER_BATCH):
            batch = rows[start : start + ROWS_PER_BATCH]
            work = self._prepare(batch)
            engine.encode(batch, work)
            for layer in range(top + 1):
                cache.put(layer, batch, engine.keys_values(layer, work))
                if layer < top:
                    self._fill(cache.missing(work.near, layer), layer)
                    engine.attend(layer, cache.layer(layer), work)


def new_work(config: ModelConfig, b: int) -> Work:
    """Room for the intermediate results of b rows."""
    shape = (b, len(config.roles), config.neighbours)
    return Work(
        x=np.empty((b, config.inputs), np.float32),
        beside=np.empty((b, config.beside), np.float32),
        near=np.empty(shape, np.int64),
        edge=np.empty((*shape, EDGE), np.float32),
        h=np.empty((b, config.width), np.float32),
        logit=np.empty(b, np.float32),
    )
