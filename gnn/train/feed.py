"""What training reads of a graph, as tensors where the network learns: over the host, or straight from a device.

A store that lies on the network's own device hands its arrays over without a copy (DLPack); the host then only says
which rows come next.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from graph.dag.protocol import NEVER_US, Store
from graph.device.cuda_device import CudaDevice
from graph.device.launch import Device
from graph.device.twin import TwinStore, twin_store_maker
from graph.state import GraphState


def state_for(device: str, roles: tuple[str, ...], capacity: int, window: Any) -> GraphState:
    """An empty graph to train on, with its twin on the device where that is a GPU.

    Raises:
        GraphError: CUDA is asked for and CuPy or a GPU is missing.
    """
    if torch.device(device).type != "cuda":
        return GraphState(roles, capacity, window)
    return GraphState(roles, capacity, window, make=twin_store_maker(CudaDevice()))


class Feed:
    """Rows of a store as tensors.

    Args:
        store: The graph; nothing is written to it meanwhile.
        device: The network's.
        settle_us: Age, in microseconds, at which a payment without a label counts as legitimate.
    """

    def __init__(self, store: Store, device: torch.device, settle_us: int = NEVER_US) -> None:
        self._store, self._to, self._settle_us = store, device, settle_us
        self._twin = store.read_as(settle_us) if isinstance(store, TwinStore) else None
        self._device: Device | None = self._twin.device if self._twin is not None else None

    def rows(self, rows: NDArray[np.int64]) -> Tensor:
        """Row numbers, int64 [B]."""
        return torch.from_numpy(rows).to(self._to)

    def features(self, rows: NDArray[np.int64]) -> Tensor:
        """float32 [B, F]."""
        if self._twin is None or self._device is None:
            return torch.from_numpy(self._store.features(rows, self._settle_us)).to(self._to)
        with self._device.on():
            return from_dlpack(self._twin.features(rows)).to(self._to)

    def read(self, rows: NDArray[np.int64], k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The neighbours of rows and what ties them.

        Returns:
            Neighbours, int64 [B, R, K], 0 where there is none; whether there is one, bool [B, R, K]; and the ties,
            float32 [B, R, K, E].
        """
        if self._twin is None or self._device is None:
            near = self._store.neighbours(rows, k)
            edge = torch.from_numpy(self._store.edges(rows, near, self._settle_us)).to(self._to)
            there = torch.from_numpy(near).to(self._to)
        else:
            with self._device.on():
                found = self._twin.neighbours(rows, k)
                edge = from_dlpack(self._twin.edges(rows, found)).to(self._to)
                there = from_dlpack(found).to(self._to)
        return there.clamp(min=0), there >= 0, edge
