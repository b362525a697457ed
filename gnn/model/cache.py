"""The key-value cache: what later payments read of a row, computed once for each model and kept beside the graph.

A row's keys and values in a layer depend on its own past only, so they never go stale, and one that is missing can be
computed as long as the buffer holds that past, with the same result. Rows are filled as they are scored; for a model
that joins a running graph, the others follow newest first (`gnn.score.cpu_scorer.CpuScorer.fill`). What its first
payments read goes back a window for each layer and one for the features (`gnn.score.replay.late_capacity`, the
service's default). A buffer that has lapped and holds less gives a late model scores that see a little less than they
should, until it has scored as many windows of payments itself as it has layers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.errors import ModelError
from gnn.model.network import MAX_FLOAT16, MAX_INT8_STEP, ModelConfig
from graph.dag.protocol import Store
from graph.memory import reserve

KeysValues = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8]
CACHES = ("float32", "float16", "int8")


class KeyValueCache:
    """Keys and values by layer and slot, as float32, or in steps that are part of the model as float16 or int8.

    Args:
        config: Shape of the network.
        scale: Size of a step for each layer and channel, float32 [L, 2D]; ones for float32.
        store: The graph: its slots.
    """

    def __init__(self, config: ModelConfig, scale: NDArray[np.float32], store: Store) -> None:
        self.layers, self.scale, self._slots = config.layers, scale, store.slots
        capacity = store.capacity
        self.data: KeysValues = reserve((config.layers, capacity, 2 * config.width), config.cache)
        self.depth: NDArray[np.uint8] = reserve(capacity, np.uint8)  # layers written of the row in each slot
        self.upto = 0  # rows from here on are not in `depth`: what stands there belongs to the rows they overwrote
        self.complete_from = 0  # from here up to `upto` every row has every layer

    def adopt(self, data: KeysValues, depth: NDArray[np.uint8], upto: int, complete_from: int) -> None:
        """Go on from the arrays of another cache of the same model over the same history.

        Raises:
            ModelError: They are of another shape.
        """
        if (data.shape, data.dtype, depth.shape) != (self.data.shape, self.data.dtype, self.depth.shape):
            raise ModelError("these keys and values are of another model or another buffer")
        self.data, self.depth, self.upto, self.complete_from = data, depth, upto, complete_from

    def layer(self, number: int) -> KeysValues:
        """Keys, then values, of all slots in a layer, [C, 2D]."""
        return self.data[number]

    def put(self, layer: int, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Write a layer of rows whose layers below are written, float32 [B, 2D]."""
        slots = self._slots(rows)
        self.data[layer, slots] = quantise(values, self.scale[layer], self.data.dtype)
        self.depth[slots] = np.maximum(self.depth[slots], layer + 1)

    def put_encoded(self, rows: NDArray[np.int64], kept: KeysValues) -> None:
        """Write all layers of rows, [L, B, 2D] already in this cache's dtype, as another device's cache keeps them."""
        slots = self._slots(rows)
        self.data[:, slots] = kept
        self.depth[slots] = self.layers

    def begin(self, first: int, last: int) -> None:
        """New rows [first, last) are about to be written; those between `upto` and `first` were left out."""
        if first >= self.upto:
            self.depth[self._slots(np.arange(max(self.upto, last - len(self.depth)), last))] = 0
            if first > self.upto:
                self.complete_from = first
            self.upto = last

    def missing(self, rows: NDArray[np.int64], layer: int) -> NDArray[np.int64]:
        """Those of some rows, each once, whose keys and values in a layer are not there; -1 stands for no row."""
        # Nearly always nothing is missing, and one comparison tells.
        if not rows.size or self.complete_from == 0:
            return np.empty(0, np.int64)
        if (oldest := rows.min()) >= self.complete_from:
            return np.empty(0, np.int64)
        wanted = np.unique(rows[rows >= 0]) if oldest < 0 else np.unique(rows)
        wanted = wanted[wanted < self.complete_from]
        return wanted[self.depth[self._slots(wanted)] <= layer]


def quantise(values: NDArray[np.float32], scale: NDArray[np.float32], dtype: np.dtype[Any]) -> KeysValues:
    """Keys and values [..., 2D] as a cache of a dtype keeps them.

    float32 keeps them as they are. int8 and float16 keep multiples of `scale`, rounded to the nearest with ties to
    even: whole numbers up to 127, or float16 numbers up to 65,504.
    """
    if dtype == np.float32:
        return values
    if dtype == np.float16:
        return np.clip(values / scale, -MAX_FLOAT16, MAX_FLOAT16).astype(np.float16)
    return np.clip(np.rint(values / scale), -MAX_INT8_STEP, MAX_INT8_STEP).astype(np.int8)


def as_uint16_bits(kept: KeysValues) -> NDArray[Any]:
    """A cache as the CPU's kernels take it: float16 as the uint16 that holds its bits, anything else as it is."""
    return kept.view(np.uint16) if kept.dtype == np.float16 else kept
