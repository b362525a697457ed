"""Re-score history with a model, spread over a Ray cluster.

One cheap sequential pass builds the graph; after that every payment hangs off its own row, so the network goes
layer by layer: all rows' layer-1 keys and values, then all rows' layer 1, and so on, each spread over actors that own a
slice of the rows. The graph and each layer's keys and values are shared through Ray's object store, without a copy on a
machine. The kernels are those of the service, so the scores are those that were given online. GPUs take consecutive
slices of the rows, each with the window before it, and hand on keys and values of that window alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from data.history import History
from data.report import Report, silent
from gnn.device.bulk import Shard, score_sharded
from gnn.model.artifact import Artifact, load
from gnn.model.engines import make_engine
from gnn.model.kernels import Work
from gnn.model.network import ModelConfig
from gnn.score.cpu_scorer import ROWS_PER_BATCH, new_work
from gnn.score.replay import capacity_for
from graph.dag.protocol import Window
from graph.dag.store import GraphStore
from graph.device.cuda_device import CudaDevice
from graph.device.launch import Device
from graph.state import GraphState
from serve.children import safe_folder
from serve.errors import ServeError
from serve.ray_address import check_address

Opens = Callable[[], Device]


@dataclass(frozen=True)
class Rescored:
    """Scores of all payments, in journal order.

    Attributes:
        scores: Columns transaction_id, journal_offset, fraud_probability, model_version.
        actors: How many actors scored, and on what.
    """

    scores: pa.Table
    actors: str


def rescore(
    model: Path | str,
    history: History,
    device: str = "auto",
    actors: int | None = None,
    report: Report = silent,
) -> Rescored:
    """Score every payment of a history.

    Args:
        model: Folder of the artifact.
        history: Payments and labels.
        device: `auto` takes GPUs where the cluster has them.
        actors: How many to use; by default one for each GPU, or each CPU.
        report: Told of progress.

    Returns:
        The scores.

    Raises:
        ServeError: There is no payment, or RAY_ADDRESS names a cluster that does not answer.
    """
    artifact = load(model)
    if not len(history.payments):
        raise ServeError("there is no payment to score in this history")
    check_address()
    state = GraphState(artifact.roles, capacity_for(len(history), artifact.config.window), artifact.config.window)
    for event in history.events:
        state.apply(event)
        report("building the graph", state.applied / len(history))
    started = not ray.is_initialized()
    if started:
        with safe_folder():
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        logit, what = _spread(artifact, Path(model).resolve(), state, device, actors, report)
    finally:
        if started:
            ray.shutdown()
    n = state.store.rows
    return Rescored(
        pa.table(
            {
                "transaction_id": history.payments["transaction_id"],
                "journal_offset": state.store.offsets.of(np.arange(n)),
                "fraud_probability": artifact.calibration.probability(logit),
                "model_version": pa.repeat(artifact.version, n),
            }
        ),
        what,
    )


def write(rescored: Rescored, folder: Path) -> Path:
    """Write the scores as `scores.parquet` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scores.parquet"
    pq.write_table(rescored.scores, path)
    return path


def _spread(
    artifact: Artifact, model: Path, state: GraphState, device: str, actors: int | None, report: Report
) -> tuple[NDArray[np.float64], str]:
    n = state.store.rows
    cluster = ray.cluster_resources()
    gpus, cpus = int(cluster.get("GPU", 0)), int(cluster.get("CPU", 1))
    on_gpu = device != "cpu" and gpus > 0
    arrays = {name: p.array[: p.used] for name, p in state.store.parts().items()}
    graph, facts = ray.put(arrays), state.store.facts()
    if on_gpu:
        report("scoring", 0.0)
        count = max(1, min(actors or gpus, gpus, -(-n // ROWS_PER_BATCH)))
        return _on_cards(str(model), artifact.config, graph, facts, n, count), f"{count} x cuda"
    count = max(1, min(actors or cpus, -(-n // ROWS_PER_BATCH)))
    # A fraction of a CPU each, so that they start beside a service that holds some.
    options: dict[str, Any] = {"num_cpus": 0.9 * cpus / count}
    threads = max(1, cpus // count)
    bounds = np.linspace(0, n, count + 1).astype(int)
    worker = ray.remote(_Slice)
    slices: list[Any] = [
        worker.options(**options).remote(str(model), graph, facts, int(i), int(j), threads) for i, j in pairwise(bounds)
    ]
    layers = artifact.config.layers
    logit = np.empty(0, np.float32)
    kv = _gathered([s.encode.remote() for s in slices])
    for layer in range(layers):
        report("scoring", (layer + 1) / (layers + 1))
        shared = ray.put(kv)
        parts = [s.attend.remote(layer, shared) for s in slices]
        if layer + 1 < layers:
            kv = _gathered(parts)
        else:
            logit = _gathered(parts)
    return logit.astype(np.float64), f"{count} x cpu ({threads} threads)"


def _gathered(parts: Sequence[Any]) -> NDArray[np.float32]:
    return np.concatenate(ray.get(list(parts)))


def _store(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> GraphStore:
    store = GraphStore(facts["roles"], facts["capacity"], Window(*facts["window"]))
    store.adopt(arrays, facts)
    return store


def _on_cards(
    model: str,
    config: ModelConfig,
    graph: Any,
    facts: Mapping[str, Any],
    n: int,
    count: int,
    device: Opens = CudaDevice,
) -> NDArray[np.float64]:
    """Log-odds of all `n` rows, by an actor for each of `count` GPUs; `device` opens the one that an actor is given."""
    bounds = np.linspace(0, n, count + 1).astype(int).tolist()
    card = ray.remote(_card_type(device)).options(num_gpus=1, num_cpus=0.5)
    cards: list[Any] = [card.remote(model, graph, facts, i, j) for i, j in pairwise(bounds)]

    def call(actor: Any, method: str, *arguments: Any) -> Any:
        return getattr(actor, method).remote(*arguments)

    made = score_sharded(cards, bounds, config.layers, config.window.rows, call)
    parts = ray.get(made)[-count:]  # all of them, so that what failed first is said
    return np.concatenate(parts).astype(np.float64)


def _card_type(device: Opens) -> type[Shard]:
    class Card(Shard):
        """A slice of the history on the GPU that its actor is given."""

        def __init__(
            self, model: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], first: int, last: int
        ) -> None:
            super().__init__(_store(arrays, facts), load(model).net, device(), first, last)

    return Card


class _Slice:
    """Scores rows [first, last), one step of one layer at a time; keeps their embeddings between steps."""

    def __init__(
        self,
        model: str,
        arrays: Mapping[str, NDArray[Any]],
        facts: Mapping[str, Any],
        first: int,
        last: int,
        threads: int,
    ) -> None:
        net = load(model).net
        self._engine, self._config = make_engine(net, _store(arrays, facts), "cpu", threads), net.config
        self._rows = np.arange(first, last)
        self._h = np.empty((last - first, net.config.width), np.float32)
        self._logit = np.zeros(last - first, np.float32)

    def encode(self) -> NDArray[np.float32]:
        """Embed the rows by themselves; returns their first keys and values, float32 [n, 2D]."""

        def step(rows: NDArray[np.int64], work: Work) -> NDArray[np.float32]:
            self._engine.describe(rows, work)
            self._engine.encode(rows, work)
            return self._engine.keys_values(0, work)

        return self._each(step)

    def attend(self, layer: int, kv: NDArray[np.float32]) -> NDArray[np.float32]:
        """One layer over all rows' keys and values [N, 2D]; returns the next, or the log-odds after the last."""

        def step(rows: NDArray[np.int64], work: Work) -> NDArray[np.float32]:
            self._engine.gather(rows, work)
            self._engine.attend(layer, kv, work)
            if layer + 1 < self._config.layers:
                return self._engine.keys_values(layer + 1, work)
            # Features are not kept between steps: the head has them computed once more.
            self._engine.describe(rows, work)
            self._engine.finish(work)
            return work.logit

        return self._each(step)

    def _each(self, step: Callable[[NDArray[np.int64], Work], NDArray[np.float32]]) -> NDArray[np.float32]:
        out = []
        for i in range(0, len(self._rows), ROWS_PER_BATCH):
            rows = self._rows[i : i + ROWS_PER_BATCH]
            work = new_work(self._config, len(rows))
            work.h[:], work.logit[:] = self._h[i : i + ROWS_PER_BATCH], self._logit[i : i + ROWS_PER_BATCH]
            out.append(step(rows, work).copy())
            self._h[i : i + ROWS_PER_BATCH], self._logit[i : i + ROWS_PER_BATCH] = work.h, work.logit
        return np.concatenate(out) if out else np.empty((0, 2 * self._config.width), np.float32)
