"""Two engines for one network: fused kernels on the CPU, and PyTorch on any device.

Both fill the same `Work` and share one key-value cache in host memory, so either can go on where the other stopped. The
fused kernels read the arrays of the CPU's store; PyTorch is fed by any `graph.dag.protocol.Store`.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data.jit import MIN_ROWS_PER_CHUNK, chunked
from gnn.model import kernels
from gnn.model.cache import KeysValues, KeyValueCache, as_uint16_bits
from gnn.model.groups import CONTEXT, LABELS, OWN_GROUPS, feature_groups, head_groups
from gnn.model.kernels import Plan, Work
from gnn.model.network import RingwatchNet, beside
from gnn.model.trees import apply_trees, pack
from graph.dag.features import counterparts, describe
from graph.dag.memory import layout, read_head
from graph.dag.protocol import Store
from graph.dag.store import GraphStore


class Engine(Protocol):
    """Runs a network on rows of one store, step by step; `work` holds results so far. C slots, L layers, D width."""

    name: str  # "cpu" or "cuda"

    def describe(self, rows: NDArray[np.int64], work: Work) -> None:
        """Set `work.x` to the rows' features."""

    def gather(self, rows: NDArray[np.int64], work: Work) -> None:
        """Set `work.near` to the rows' neighbours, and `work.edge` to what ties them."""

    def encode(self, rows: NDArray[np.int64], work: Work) -> None:
        """Set `work.h` to the rows' embeddings by themselves, `work.logit` to 0."""

    def keys_values(self, layer: int, work: Work) -> NDArray[np.float32]:
        """What later rows read of these in a layer, float32 [B, 2D]."""

    def attend(self, layer: int, kv: KeysValues, work: Work) -> None:
        """Update `work.h` and add to `work.logit`, reading the layer's keys and values `kv` [C, 2D]."""

    def finish(self, work: Work) -> None:
        """Turn the network's log-odds in `work.logit` into the model's."""

    def forward(self, rows: NDArray[np.int64], cache: KeyValueCache, write: bool, work: Work) -> bool:
        """Do all steps at once on rows whose neighbours are all in the cache; False, and nothing done, otherwise."""

    def score_ablated(
        self, cache: KeysValues, rows: NDArray[np.int64], work: Work, masks: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Log-odds [B, G] with the groups in each bit mask [G] left out; `cache` [L, C, 2D]."""


def make_engine(net: RingwatchNet, store: Store, device: str, threads: int | None = None) -> Engine:
    """The engine for a store and a device: the fused kernels where both are the CPU's, else PyTorch."""
    if device == "cpu" and isinstance(store, GraphStore):
        return CpuEngine(net, store, threads)
    return TorchEngine(net, store, device)


def make_plan(net: RingwatchNet) -> Plan:
    """The constants of a network's kernels."""
    roles = net.config.roles
    held = layout(roles)
    return Plan(counterparts(roles), head_groups(roles), held.shift, held.mask, net.config.heads, pack(net.trees))


class CpuEngine:
    """The fused kernels, on threads where there are many rows."""

    name = "cpu"

    def __init__(self, net: RingwatchNet, store: GraphStore, threads: int | None = None) -> None:
        self._store, self._settle_us = store, net.config.settle_us
        self._weights = net.weights()
        self._plan = make_plan(net)
        self._threads = threads

    def describe(self, rows: NDArray[np.int64], work: Work) -> None:
        """Set `work.x` [B, F] to the features of rows [B], and `work.beside` [B, E] to what the head reads besides."""
        view, pairs = self._store.view_for(self._settle_us), self._plan.pairs
        shift, mask = self._plan.shift, self._plan.mask
        self._each(len(rows), lambda i, j: describe(view, pairs, rows[i:j], work.x[i:j]))
        read_head(view.rows, rows, shift, mask, work.beside)

    def gather(self, rows: NDArray[np.int64], work: Work) -> None:
        """Set `work.near` [B, R, K] to the rows' neighbours, and `work.edge` [B, R, K, E] to what ties them."""
        view = self._store.view_for(self._settle_us)
        self._each(len(rows), lambda i, j: kernels.gather(view, rows[i:j], part(work, i, j)))

    def encode(self, rows: NDArray[np.int64], work: Work) -> None:
        """Set `work.h` [B, D] to the rows' embeddings from their own features, and `work.logit` [B] to 0."""
        view, w, plan = self._store.view_for(self._settle_us), self._weights, self._plan
        self._each(len(rows), lambda i, j: kernels.encode(view, w, plan, rows[i:j], part(work, i, j)))

    def keys_values(self, layer: int, work: Work) -> NDArray[np.float32]:
        """Keys and values that later rows read of these in a layer, float32 [B, 2D]."""
        w, out = self._weights, np.empty((len(work.h), self._weights.kv_w.shape[2]), np.float32)
        self._each(len(out), lambda i, j: kernels.keys_values(w, layer, part(work, i, j), out[i:j]))
        return out

    def attend(self, layer: int, kv: KeysValues, work: Work) -> None:
        """Update `work.h` and add to `work.logit`, reading the layer's keys and values `kv` [C, 2D]."""
        w, plan = self._weights, self._plan
        self._each(len(work.h), lambda i, j: kernels.attend(w, plan, layer, as_uint16_bits(kv), part(work, i, j)))

    def finish(self, work: Work) -> None:
        """Turn the network's log-odds in `work.logit` [B] into the model's."""
        w, plan = self._weights, self._plan
        if len(plan.trees.root):
            self._each(len(work.h), lambda i, j: kernels.finish(w, plan, part(work, i, j)))

    def forward(self, rows: NDArray[np.int64], cache: KeyValueCache, write: bool, work: Work) -> bool:
        """All steps in one call of one kernel, for a micro-batch over a float32 cache; False for anything else."""
        if len(rows) > MIN_ROWS_PER_CHUNK or cache.data.dtype != np.float32:
            return False
        kernels.forward(
            self._store.view_for(self._settle_us), self._weights, self._plan, rows, cache.data, cache.depth, write, work
        )
        return True

    def score_ablated(
        self, cache: KeysValues, rows: NDArray[np.int64], work: Work, masks: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Log-odds float32 [B, G] of rows without the evidence in each bit mask int64 [G]; `cache` [L, C, 2D]."""
        view, w, plan = self._store.view_for(self._settle_us), self._weights, self._plan
        out = np.empty((len(rows), len(masks)), np.float32)

        def run(i: int, j: int) -> None:
            kernels.score_ablated(view, w, plan, as_uint16_bits(cache), rows[i:j], part(work, i, j), masks, out[i:j])

        self._each(len(rows), run)
        return out

    def _each(self, n: int, run: Callable[[int, int], object]) -> None:
        chunked(run, n, self._threads)


class TorchEngine:
    """The network in PyTorch on a device, fed from a store anywhere."""

    def __init__(self, net: RingwatchNet, store: Store, device: str = "cuda") -> None:
        self._store, self._settle_us = store, net.config.settle_us
        self.name = torch.device(device).type
        self._device = torch.device(device)
        self._net = RingwatchNet(net.config)
        self._net.load_state_dict(net.state_dict())
        self._net.trees = net.trees
        self._net.to(self._device).eval().requires_grad_(False)
        self._groups = torch.from_numpy(feature_groups(net.config.roles)).to(self._device)

    def describe(self, rows: NDArray[np.int64], work: Work) -> None:
        """Set `work.x` [B, F] to the features of rows [B], and `work.beside` [B, E] to what the head reads besides."""
        work.x[:] = self._store.features(rows, self._settle_us)
        work.beside[:] = beside(self._store, rows)

    def gather(self, rows: NDArray[np.int64], work: Work) -> None:
        """Set `work.near` [B, R, K] to the rows' neighbours, and `work.edge` [B, R, K, E] to what ties them."""
        work.near[:] = self._store.neighbours(rows, work.near.shape[2])
        work.edge[:] = self._store.edges(rows, work.near, self._settle_us)

    @torch.inference_mode()
    def encode(self, rows: NDArray[np.int64], work: Work) -> None:
        """Set `work.h` [B, D] to the rows' embeddings from their own features, and `work.logit` [B] to 0."""
        work.h[:] = self._net.encode(self._to(work.x), self._category(rows)).cpu().numpy()
        work.logit[:] = 0

    @torch.inference_mode()
    def keys_values(self, layer: int, work: Work) -> NDArray[np.float32]:
        """Keys and values that later rows read of these in a layer, float32 [B, 2D]."""
        out: NDArray[np.float32] = self._net.layer(layer).keys_values(self._to(work.h)).cpu().numpy()
        return out

    @torch.inference_mode()
    def attend(self, layer: int, kv: KeysValues, work: Work) -> None:
        """Update `work.h` and add to `work.logit`, reading the layer's keys and values `kv` [C, 2D]."""
        near, edge = self._to(work.near >= 0), self._to(work.edge)
        h, step = self._net.layer(layer).attend(self._to(work.h), self._gathered(layer, kv, work), near, edge)
        work.h[:] = h.cpu().numpy()
        work.logit[:] += step.cpu().numpy()

    def finish(self, work: Work) -> None:
        """Turn the network's log-odds in `work.logit` [B] into the model's."""
        work.logit[:] = apply_trees(self._net.trees, work.x, work.logit, work.beside)

    @torch.inference_mode()
    def forward(self, rows: NDArray[np.int64], cache: KeyValueCache, write: bool, work: Work) -> bool:
        """Nothing is done: always False, as this engine has no single call for all steps."""
        return False

    def score_ablated(
        self, cache: KeysValues, rows: NDArray[np.int64], work: Work, masks: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Log-odds float32 [B, G] of rows without the evidence in each bit mask int64 [G]; `cache` [L, C, 2D]."""
        net = self._net
        normal, category = net.normalise(self._to(work.x), self._category(rows))
        near, edge = self._to(work.near >= 0), self._to(work.edge)
        out = torch.empty(len(rows), len(masks), device=self._device)
        for g, mask in enumerate(int(m) for m in masks):
            kept = ((mask >> self._groups) & 1) == 0
            h = net.encode_normalised(normal * kept, category * float(not mask >> CONTEXT & 1))
            valid = near.clone()
            for r in range(len(net.config.roles)):
                if mask >> (len(OWN_GROUPS) + r) & 1:
                    valid[:, r] = False
            ties = edge * valid[..., None]
            if mask >> LABELS & 1:
                ties[..., 1:4] = 0
            logit = torch.zeros(len(rows), device=self._device)
            for layer in range(net.config.layers):
                h, step = net.layer(layer).attend(h, self._gathered(layer, cache[layer], work), valid, ties)
                logit += step
            out[:, g] = logit
        network, mean = out.cpu().numpy(), net.mean.cpu().numpy()
        groups = self._groups.cpu().numpy()
        others = head_groups(net.config.roles)[len(groups) + 1 :]
        for g, mask in enumerate(int(m) for m in masks):
            kept = ((mask >> groups) & 1) == 0
            left = np.where((mask >> others) & 1 == 0, work.beside, np.float32(0))
            network[:, g] = apply_trees(net.trees, np.where(kept, work.x, mean), network[:, g], left)
        return network

    def _to(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def _category(self, rows: NDArray[np.int64]) -> torch.Tensor:
        return self._to(self._store.column("category", rows).astype(np.int64))

    def _gathered(self, layer: int, kv: KeysValues, work: Work) -> torch.Tensor:
        steps = self._to(kv[np.maximum(work.near, 0) % len(kv)])
        return steps * self._net.layer(layer).kv_scale


def part(work: Work, i: int, j: int) -> Work:
    """Rows [i, j) of a batch's intermediate results, as views."""
    return Work._make(array[i:j] for array in work)
