"""Scores on a device that holds the store and the cache itself, with the CPU's kept current beside it.

A micro-batch goes up in one copy, and scores and the rows' keys and values come down in one. The latter go into the CPU
scorer's cache, so that the CPU can answer the very next payment, should the device fail. A device that failed is not
asked again: what is left of its state is unknown, and the replica is to be replaced (`lost`). One that does not answer
in time has failed too.
"""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gnn.device.batch import Bucket, DoubleBuffer
from gnn.device.net import DeviceNet
from gnn.errors import ModelError
from gnn.model.cache import KeyValueCache
from gnn.model.network import EDGE, ModelConfig
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.reasons import Explanation
from graph.dag.jumps import velocity_dtype
from graph.dag.rows import row_dtype
from graph.dag.store import GraphStore
from graph.device.launch import Device
from graph.device.store import DeviceStore, columns_of
from graph.device.waiting import PATIENCE_S, wait

log = logging.getLogger("ringwatch")
BUCKETS = (1, 8, 64, 512, 4096)  # sizes of micro-batch that are recorded
RESCORE_ROWS = 1 << 14  # past payments scored at once


class CudaScorer:
    """One model over one graph, on a device; what `gnn.score.cpu_scorer.CpuScorer` is on the CPU.

    Args:
        cpu: The same model over the same graph on the CPU; its cache is kept current.
        device: Where.
        buckets: Sizes of micro-batch to record, rising.
        patience_s: How long a micro-batch may take before the device counts as lost.

    Raises:
        ModelError: The graph and the cache do not fit into what the device gives.
    """

    def __init__(
        self, cpu: CpuScorer, device: Device, buckets: Sequence[int] = BUCKETS, patience_s: float = PATIENCE_S
    ) -> None:
        self.artifact, self.state, self.cpu = cpu.artifact, cpu.state, cpu
        self.device_name = device.name
        self.lost = False  # the device failed: it must not be asked again
        store = self.state.store
        if not isinstance(store, GraphStore):
            raise ModelError("a device is kept beside the CPU's store, and this graph's store is another")
        self._host, self._patience_s = store, patience_s
        self._device, self._sizes = device, [n for n in buckets if n <= store.capacity]
        needed, free = device_bytes(self.artifact.config, store.capacity, self._sizes), device.free_bytes()
        if needed > free:
            raise ModelError(
                f"a buffer of {store.capacity:,} payments needs {needed / 2**30:.2f} GiB of the GPU, and this replica "
                f"may take {free / 2**30:.2f} GiB: raise RINGWATCH_CUDA_MEMORY or lower RINGWATCH_CAPACITY"
            )
        self._buckets: list[Bucket] = []

    @property
    def cache(self) -> KeyValueCache:
        """The CPU's."""
        return self.cpu.cache

    @property
    def ready(self) -> bool:
        """Whether it can score: it is warm, has not failed, and no past row's keys and values are still to be computed.

        A model that joins a running graph fills its cache on the CPU first, newest rows first.
        """
        return bool(self._buckets) and not self.lost and self.cpu.cache.complete_from == 0

    def warm(self) -> None:
        """Take the graph and the cache over, compile every kernel and record the micro-batches."""
        store = self._host
        nodes = max(1 << 16, store.ids.numbered)
        self.store = DeviceStore(
            self._device,
            store.roles,
            store.role_type,
            store.capacity,
            store.window,
            nodes=nodes,
            settle_us=self.artifact.config.settle_us,
        )
        self.net = DeviceNet(self.store, self.artifact.net)
        self._adopt()
        self._double_buffer = DoubleBuffer(self.net, self._sizes[-1])
        self._buckets = [Bucket(self.net, n) for n in self._sizes]  # last: from here on it is ready
        self._device.patience_s = self._patience_s

    def score(self, first: int, last: int) -> NDArray[np.float64]:
        """Score new rows and write their keys and values, here and on the CPU; see `Scorer.score`.

        Raises:
            ModelError: The device has failed before, or is not `ready`.
            HungError: It does not answer in time.
        """
        if not self.ready:
            raise ModelError("the device is lost" if self.lost else "the device is not ready: rows are still missing")
        try:
            logit = self._score(first, last)
        except Exception:
            self.lost = True
            raise
        return self.artifact.calibration.probability(logit)

    def rescore(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The probabilities of past rows once more, from the cache."""
        return self.artifact.calibration.probability(self.logits(rows))

    def logits(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Uncalibrated log-odds of past rows, float64 [n]."""
        self._follow(self.state.store.rows)
        parts = [self.net.fetched(rows[i : i + RESCORE_ROWS])[0][:, 0] for i in range(0, len(rows), RESCORE_ROWS)]
        return np.concatenate([np.empty(0), *parts])

    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of past payments, float32 [n, D]."""
        self._follow(self.state.store.rows)
        parts = [self.net.fetched(rows[i : i + RESCORE_ROWS])[1][:, 0] for i in range(0, len(rows), RESCORE_ROWS)]
        return np.concatenate([np.empty((0, self.artifact.config.width), np.float32), *parts])

    def reasons(self, rows: NDArray[np.int64], exact: bool = False) -> list[Explanation]:
        """Why rows got their scores: from the CPU, whose graph and cache are the same; see `Scorer.reasons`."""
        return self.cpu.reasons(rows, exact)

    def score_ablated(self, rows: NDArray[np.int64], masks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log-odds with parts of the evidence left out, from the CPU; see `Scorer.score_ablated`."""
        return self.cpu.score_ablated(rows, masks)

    def fill(self, rows: int) -> bool:
        """Write the keys and values of some more rows that were there before this model, newest first.

        The CPU computes them; they go to the device too, unless that is lost or fails now.

        Args:
            rows: How many, at most.

        Returns:
            Whether any are left.
        """
        before = self.cpu.cache.complete_from
        left = self.cpu.fill(rows)
        if self._buckets and not self.lost:
            try:
                self._take_cache(max(self.state.store.oldest, before - rows), before)
            except Exception:
                self.lost = True
                log.exception("the device failed while the CPU filled its cache")
        return left

    def _score(self, first: int, last: int) -> NDArray[np.float64]:
        store, cache = self._host, self.cpu.cache
        self._follow(first)
        out = np.empty(last - first, np.float64)
        if (known := min(self.store.rows, last)) > first:  # rows that the device has, but not their scores
            self._take_cache(first, known)
            out[: known - first] = self.net.fetched(np.arange(first, known))[0][:, 0]
        cache.begin(first, last)
        at = max(first, known)
        if last - at > self._double_buffer.n:
            for rows, logit, written in self._double_buffer.run(at, last, lambda r: columns_of(store, r), store.oldest):
                out[rows - first] = logit
                cache.put_encoded(rows, written)
        elif at < last:
            rows = np.arange(at, last)
            bucket = next(b for b in self._buckets if b.n >= len(rows))
            out[at - first :] = bucket.score(columns_of(store, rows), store.oldest)
            cache.put_encoded(rows, bucket.written[:, : len(rows)])
        return out

    def _follow(self, upto: int) -> None:
        """Take up labels, and rows before `upto` that the CPU has scored meanwhile."""
        behind, store = self.store.rows, self._host
        if store.rows - behind >= store.capacity:
            self._adopt()
            return
        self.store.follow(store, max(upto, behind))
        if upto > behind:
            self._take_cache(max(behind, store.oldest), upto)

    def _adopt(self) -> None:
        """Copy the whole graph and cache; that may take longer than any micro-batch."""
        self.store.adopt(self._host)
        wait(self._device.mark(), PATIENCE_S)
        self._take_cache(self._host.oldest, self._host.rows)
        wait(self._device.mark(), PATIENCE_S)

    def _take_cache(self, first: int, last: int) -> None:
        """Copy the keys and values of rows [first, last) from the CPU's cache."""
        cache = self.cpu.cache
        if first < last:  # copies from memory that is not pinned cannot be given up
            wait(self._device.mark(), self._device.patience_s)
        for start in range(first, last, RESCORE_ROWS):
            slots = self._host.slots(np.arange(start, min(last, start + RESCORE_ROWS)))
            with self._device.on():
                xp = self._device.xp
                self.net.cache[:, xp.asarray(slots)] = xp.asarray(cache.data[:, slots])


def device_bytes(config: ModelConfig, capacity: int, buckets: Sequence[int] = BUCKETS) -> int:
    """Memory of a device that a model over a full buffer takes, bytes; a scorer reserves nothing beyond it but heads.

    Args:
        config: The model's.
        capacity: Rows of the buffer.
        buckets: Sizes of micro-batch.
    """
    roles = len(config.roles)
    row = row_dtype(roles).itemsize + velocity_dtype(roles).itemsize
    cached = config.layers * 2 * config.width * np.dtype(config.cache).itemsize
    heads = 4 * roles  # an entity of its own in each role of each row, at worst
    near = roles * config.neighbours * (8 + 4 * EDGE)
    staged = near + 4 * config.inputs + 2 * row + 40 * roles + cached
    return capacity * (row + cached + heads) + staged * (sum(buckets) + 2 * max(buckets, default=0) + RESCORE_ROWS)
