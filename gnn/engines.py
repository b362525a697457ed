"""Two engines for one network: fused kernels on the CPU, and PyTorch on any device.

Both read the graph through the same prepared `Work` and share one key-value cache in host memory, so either can go on
where the other stopped.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from gnn import kernels
from gnn.groups import CONTEXT, LABELS, OWN_GROUPS, feature_groups
from gnn.kernels import Plan, Work
from gnn.model import RingwatchNet
from graph.features import counterparts
from graph.jit import chunked
from graph.store import View


class Engine(Protocol):
    """Runs the network on rows whose graph side is prepared."""

    name: str  # "cpu" or "cuda"

    def score(self, view: View, cache: NDArray[np.float32], rows: NDArray[np.int64], work: Work, write: bool) -> None:
        """Fill `work.h` and `work.logit`; write the rows' keys and values to `cache` [L, C, 2D] if asked."""

    def without(
        self, view: View, cache: NDArray[np.float32], rows: NDArray[np.int64], work: Work, masks: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Log-odds [B, G] with the groups in each bit mask [G] left out."""


def make_plan(net: RingwatchNet) -> Plan:
    """The constants of a network's kernels."""
    roles = net.config.roles
    return Plan(counterparts(roles), feature_groups(roles), net.config.heads)


class CpuEngine:
    """The fused kernels, on threads where there are many rows."""

    name = "cpu"

    def __init__(self, net: RingwatchNet, threads: int | None = None) -> None:
        self._weights = net.weights()
        self._plan = make_plan(net)
        self._layers = net.config.layers
        self._threads = threads

    def score(self, view: View, cache: NDArray[np.float32], rows: NDArray[np.int64], work: Work, write: bool) -> None:
        """See `Engine`. Layer by layer, so that rows of one batch see each other as if scored one by one."""
        w, plan = self._weights, self._plan

        def encode(i: int, j: int) -> None:
            kernels.encode(view, w, plan, cache, rows[i:j], part(work, i, j), write)

        chunked(encode, len(rows), self._threads)
        for layer in range(self._layers):

            def attend(i: int, j: int, layer: int = layer) -> None:
                kernels.attend(w, plan, layer, cache, rows[i:j], part(work, i, j), write)

            chunked(attend, len(rows), self._threads)

    def without(
        self, view: View, cache: NDArray[np.float32], rows: NDArray[np.int64], work: Work, masks: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Engine`."""
        out = np.empty((len(rows), len(masks)), np.float32)
        w, plan = self._weights, self._plan

        def run(i: int, j: int) -> None:
            kernels.without(view, w, plan, cache, rows[i:j], part(work, i, j), masks, out[i:j])

        chunked(run, len(rows), self._threads)
        return out


class TorchEngine:
    """The network in PyTorch on a device, fed from the CPU store."""

    def __init__(self, net: RingwatchNet, device: str = "cuda") -> None:
        self.name = torch.device(device).type
        self._device = torch.device(device)
        self._net = RingwatchNet(net.config)
        self._net.load_state_dict(net.state_dict())
        self._net.to(self._device).eval().requires_grad_(False)
        self._groups = torch.from_numpy(feature_groups(net.config.roles)).to(self._device)

    @torch.inference_mode()
    def score(self, view: View, cache: NDArray[np.float32], rows: NDArray[np.int64], work: Work, write: bool) -> None:
        """See `Engine`."""
        net, slots = self._net, rows & (cache.shape[1] - 1)
        h = net.encode(self._to(work.x), self._category(view, rows))
        valid, edge = self._to(work.near >= 0), self._to(work.edge)
        logit = torch.zeros(len(rows), device=self._device)
        for layer in range(net.config.layers):
            if write:
                cache[layer, slots] = net.layer(layer).keys_values(h).cpu().numpy()
            h, step = net.layer(layer).attend(h, self._near(cache, layer, work), valid, edge)
            logit += step
        work.h[:] = h.cpu().numpy()
        work.logit[:] = logit.cpu().numpy()

    @torch.inference_mode()
    def without(
        self, view: View, cache: NDArray[np.float32], rows: NDArray[np.int64], work: Work, masks: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Engine`."""
        net = self._net
        normal, category = net.normalise(self._to(work.x), self._category(view, rows))
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
                ties[..., 1:3] = 0
            logit = torch.zeros(len(rows), device=self._device)
            for layer in range(net.config.layers):
                h, step = net.layer(layer).attend(h, self._near(cache, layer, work), valid, ties)
                logit += step
            out[:, g] = logit
        return out.cpu().numpy()

    def _to(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def _category(self, view: View, rows: NDArray[np.int64]) -> torch.Tensor:
        mask = len(view.columns.time) - 1
        return self._to(view.columns.category[rows & mask].astype(np.int64))

    def _near(self, cache: NDArray[np.float32], layer: int, work: Work) -> torch.Tensor:
        return self._to(cache[layer][np.maximum(work.near, 0) & (cache.shape[1] - 1)])


def part(work: Work, i: int, j: int) -> Work:
    """Rows [i, j) of a batch's intermediate results, as views."""
    return Work(*(array[i:j] for array in work))
