"""The network on a device: its weights, its key-value cache, and the kernels of `cuda/network.cu` over them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.schema import CATEGORIES
from gnn.errors import ModelError
from gnn.model.groups import CONTEXT, LABELS, OWN_GROUPS, head_groups
from gnn.model.network import (
    BIAS_HIDDEN,
    CATEGORY_WIDTH,
    EDGE,
    EDGE_SCALE,
    HEAD_HIDDEN,
    MAX_FLOAT16,
    MAX_INT8_STEP,
    ModelConfig,
    RingwatchNet,
)
from graph.dag.categories import CATEGORY_BUCKETS
from graph.dag.memory import layout
from graph.device.launch import filled, structure
from graph.device.layout import single, store_defines
from graph.device.staging import THREADS, blocks, to_host
from graph.device.store import DeviceStore

CUDA = Path(__file__).parent / "cuda"
NET = structure(CUDA / "network.cuh", "Net")
THREADS_PER_BLOCK = 128  # of the network's kernels
MAX_UNSHARED_READERS = 256  # payments up to which a block takes one; above, several share what is read of the weights


def defines(config: ModelConfig) -> dict[str, int | str]:
    """What the kernels are compiled with: sizes, and the numbers that they share with the CPU's."""
    return {
        **store_defines(len(config.roles)),
        "FEATURES": config.inputs,
        "WIDTH": config.width,
        "HEADS": config.heads,
        "HIDDEN": config.hidden,
        "NEIGHBOURS": config.neighbours,
        "LAYERS": config.layers,
        "BIAS_HIDDEN": BIAS_HIDDEN,
        "HEAD_HIDDEN": HEAD_HIDDEN,
        "CATEGORIES": len(CATEGORIES),
        "CATEGORY_WIDTH": CATEGORY_WIDTH,
        "BUCKETS": CATEGORY_BUCKETS,
        "CONTEXT": CONTEXT,
        "LABELS": LABELS,
        "ROLE_GROUPS": len(OWN_GROUPS),
        "EDGE_SCALE": single(EDGE_SCALE),
        "MAX_INT8_STEP": single(MAX_INT8_STEP),
        "MAX_FLOAT16": single(MAX_FLOAT16),
        "NETWORK_THREADS": THREADS_PER_BLOCK,
        "KV_BITS": 8 * np.dtype(config.cache).itemsize,
    }


class DeviceNet:
    """One model over one store on the same device.

    Args:
        store: The graph.
        net: The network, on the CPU.

    Raises:
        ModelError: The keys and values of a row are not a multiple of 16 bytes, which the kernels read at once.
    """

    def __init__(self, store: DeviceStore, net: RingwatchNet) -> None:
        config, self.device, self.store = net.config, store.device, store
        if 2 * config.width * np.dtype(config.cache).itemsize % 16:
            raise ModelError(f"a width of {config.width} with a cache of {config.cache} does not run on a device")
        self.config, xp = config, self.device.xp
        self._launch = self.device.load(CUDA / "network.cu", defines(config))
        with self.device.on():
            self._weights = {name: xp.asarray(array) for name, array in net.weights()._asdict().items()}
            self._groups = xp.asarray(head_groups(config.roles))
            held = layout(config.roles)
            self._trees = {"shift": xp.asarray(held.shift), "mask": xp.asarray(held.mask)}
            self._trees |= {f"tree_{name}": xp.asarray(array) for name, array in net.trees._asdict().items()}
            self.cache = xp.zeros((config.layers, store.capacity, 2 * config.width), config.cache)
            facts = xp.zeros(2, np.float32)
        self._launch("tile", 1, 1, filled(self.device, NET, {"logit": facts}))
        self._tile, size = (int(v) for v in to_host(self.device, facts))
        if size != NET.itemsize:
            raise ModelError(f"network.cuh lays Net out in {size} bytes, NumPy in {NET.itemsize}")

    def net(self, layer: int, **members: Any) -> Any:
        """What the kernels are handed for a layer."""
        shared = {**self._weights, **self._trees, "groups": self._groups, "cache": self.cache, "variants": 1}
        shared["trees"] = len(self._trees["tree_root"])
        return filled(self.device, NET, {**shared, **members, "layer": layer})

    def nets(self, **members: Any) -> list[Any]:
        """What the kernels are handed for each layer."""
        return [self.net(layer, **members) for layer in range(self.config.layers)]

    def run(self, nets: list[Any], readers: int) -> None:
        """Start the network over up to so many readers, whose graph side is described."""
        self.encode(nets[0], readers)
        for net in nets:
            self.attend(net, readers)
        self.finish(nets[0], readers)

    @property
    def headed(self) -> bool:
        """Whether the model has a head of trees."""
        return len(self._trees["tree_root"]) > 0

    def encode(self, net: Any, readers: int) -> None:
        """Start the encoder alone."""
        self._start("encode", readers, net)

    def finish(self, net: Any, readers: int) -> None:
        """Start the head, if the model has one."""
        if self.headed:
            self._launch("finish", blocks(readers), THREADS, net)

    def attend(self, net: Any, readers: int) -> None:
        """Start one layer alone."""
        self._start("attend", readers, net)

    def _start(self, kernel: str, readers: int, net: Any) -> None:
        if readers <= MAX_UNSHARED_READERS:
            self._launch(f"{kernel}_one", readers, THREADS_PER_BLOCK, net)
        else:
            self._launch(f"{kernel}_many", (readers + self._tile - 1) // self._tile, THREADS_PER_BLOCK, net)

    def outcome(self, rows: Any, masks: NDArray[np.int64] | None = None) -> tuple[Any, Any]:
        """Score past rows from the cache.

        Args:
            rows: int64 [B], on the host or the device.
            masks: Groups of evidence to leave out, bit by bit, int64 [G].

        Returns:
            Log-odds [B, G] and embeddings [B, G, D], float32, on the device; G is 1 without masks.
        """
        xp, c, b = self.device.xp, self.config, len(rows)
        g = 1 if masks is None else len(masks)
        with self.device.on():
            near = xp.empty((b, len(c.roles), c.neighbours), np.int64)
            edge, x = xp.empty((*near.shape, EDGE), np.float32), xp.empty((b, c.inputs), np.float32)
            h, logit = xp.empty((b, g, c.width), np.float32), xp.empty((b, g), np.float32)
            kept = None if masks is None else xp.asarray(masks)
        frame = self.store.reading(rows, near=near, edge=edge, x=x, depth=c.neighbours)
        self.store.describe(b, frame)
        self.run(self.nets(graph=frame, h=h, logit=logit, masks=kept, variants=g), b * g)
        return logit, h

    def fetched(
        self, rows: NDArray[np.int64], masks: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`outcome` on the host."""
        logit, h = self.outcome(rows, masks)
        return to_host(self.device, logit), to_host(self.device, h)
