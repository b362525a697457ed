"""Who scores blocks: workers in this process, or actors of a Ray cluster, one for each machine or GPU."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gnn.model.artifact import Artifact, load
from gnn.model.cache import KeysValues
from gnn.score.slices import CpuSlices, DeviceSlices, SliceWorker, score_block, slice_bounds
from graph.device.cuda_device import CudaDevice
from graph.device.launch import Device
from graph.slices import Stretch
from serve.children import safe_folder
from serve.errors import ServeError
from serve.ray_address import check_address

Opens = Callable[[], Device]
START_S: Final = 60.0  # by then an actor has started, or its machine is gone and Ray does not know yet, or is full


class WorkersLost(Exception):
    """Actors, or the machines that they ran on, are gone: what is not committed has to be scored again by others."""


@dataclass(frozen=True)
class Kept:
    """Keys and values of rows in one layer, as workers keep them.

    Attributes:
        layer: Which.
        first: First row.
        values: [n, 2D].
    """

    layer: int
    first: int
    values: KeysValues


@dataclass(frozen=True)
class ScoredBlock:
    """A block that workers have scored.

    Attributes:
        logit: Uncalibrated log-odds, float32 [n].
        kept: Keys and values of its slices, those of one layer after those of another.
    """

    logit: NDArray[np.float32]
    kept: list[Kept]


class Workers(Protocol):
    """Workers that follow one graph."""

    @property
    def what(self) -> str:
        """For people: how many there are, and on what."""

    def begin(self, stretch: Stretch, kept: Sequence[Kept]) -> None:
        """Take the window before the first block, and its keys and values."""

    def start(self, stretch: Stretch) -> Callable[[], ScoredBlock]:
        """Begin with a block. What is returned waits for its scores, and raises `WorkersLost` where they are gone."""

    def close(self) -> None:
        """Let them go."""


class HereWorkers:
    """Workers in this process: without a cluster, and without what it costs to start one.

    Args:
        workers: Them. Several share the work as those of a cluster do, for tests.
        layers: Of the model.
    """

    def __init__(self, workers: Sequence[SliceWorker], layers: int) -> None:
        self._workers, self._layers = workers, layers
        self._thread: threading.Thread | None = None
        self.what = f"{len(workers)} x here"

    def begin(self, stretch: Stretch, kept: Sequence[Kept]) -> None:
        """Take the window before the first block."""
        for worker in self._workers:
            worker.extend(stretch)
            for part in kept:
                worker.take(part.layer, part.first, part.values)

    def start(self, stretch: Stretch) -> Callable[[], ScoredBlock]:
        """Begin with a block, on a thread: kernels hold no lock, so that the graph is built beside them."""
        done: Future[ScoredBlock] = Future()

        def run() -> None:
            try:
                done.set_result(self._score(stretch))
            except BaseException as error:
                done.set_exception(error)

        self.close()
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        return done.result

    def close(self) -> None:
        """Wait for the block at hand."""
        if self._thread is not None:
            self._thread.join()

    def _score(self, stretch: Stretch) -> ScoredBlock:
        def call(worker: SliceWorker, method: str, *arguments: Any) -> Any:
            return getattr(worker, method)(*arguments)

        bounds = slice_bounds(stretch.first, stretch.last, len(self._workers))
        logits, layers = score_block(self._workers, stretch, bounds, self._layers, call)
        return ScoredBlock(np.concatenate(logits), _kept(layers, bounds))


def _kept(layers: Sequence[Sequence[KeysValues]], bounds: Sequence[int]) -> list[Kept]:
    return [
        Kept(layer, first, values)
        for layer, parts in enumerate(layers)
        for first, values in zip(bounds, parts, strict=False)
    ]


class LateWorkers:
    """Workers that are made when the first block is there: an input that is refused has started no cluster."""

    def __init__(self, make: Callable[[], Workers]) -> None:
        self._make = make
        self._made: Workers | None = None

    @property
    def what(self) -> str:
        """For people."""
        return "nobody" if self._made is None else self._made.what

    def begin(self, stretch: Stretch, kept: Sequence[Kept]) -> None:
        """Take the window before the first block."""
        self._workers.begin(stretch, kept)

    def start(self, stretch: Stretch) -> Callable[[], ScoredBlock]:
        """Begin with a block."""
        return self._workers.start(stretch)

    def close(self) -> None:
        """Let them go."""
        if self._made is not None:
            self._made.close()

    @property
    def _workers(self) -> Workers:
        if self._made is None:
            self._made = self._make()
        return self._made


class RayWorkers:
    """Actors of a Ray cluster, which is started where there is none.

    Args:
        model: Folder of the artifact; every machine reads it.
        artifact: The same, read.
        block: Rows of the longest block.
        device: `auto` takes GPUs where the cluster has them.
        actors: How many; by default one for each GPU or each machine, with all of its CPUs.
        opens: Opens the GPU that an actor is given.

    Raises:
        ServeError: RAY_ADDRESS names a cluster that does not answer.
    """

    def __init__(
        self,
        model: str,
        artifact: Artifact,
        block: int,
        device: str = "auto",
        actors: int | None = None,
        opens: Opens = CudaDevice,
    ) -> None:
        check_address()
        self._started = not ray.is_initialized()
        if self._started:
            with safe_folder():
                ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        self._layers = artifact.config.layers
        total = ray.cluster_resources()
        gpus, cpus = int(total.get("GPU", 0)), int(total.get("CPU", 1))
        if device != "cpu" and gpus:
            count = max(1, min(actors or gpus, gpus))
            worker = ray.remote(_card_type(opens)).options(num_gpus=1, num_cpus=0.5)
            self._actors = _ready([worker.remote(model, block) for _ in range(count)])
            self.what = f"{len(self._actors)} x cuda"
        else:
            made, threads = _on_cpus(model, block, actors, cpus)
            self._actors = _ready(made)
            self.what = f"{len(self._actors)} x cpu ({threads} threads)"

    def begin(self, stretch: Stretch, kept: Sequence[Kept]) -> None:
        """Take the window before the first block."""
        shared, parts = ray.put(stretch), [(k.layer, k.first, ray.put(k.values)) for k in kept]
        made = [actor.extend.remote(shared) for actor in self._actors]
        made += [actor.take.remote(*part) for actor in self._actors for part in parts]
        _given(made)

    def start(self, stretch: Stretch) -> Callable[[], ScoredBlock]:
        """Begin with a block."""
        made: list[Any] = []

        def call(actor: Any, method: str, *arguments: Any) -> Any:
            made.append(getattr(actor, method).remote(*arguments))
            return made[-1]

        bounds = slice_bounds(stretch.first, stretch.last, len(self._actors))
        try:
            logits, layers = score_block(self._actors, ray.put(stretch), bounds, self._layers, call)
        except ray.exceptions.RayError as error:
            raise WorkersLost(str(error)) from error

        def wait() -> ScoredBlock:
            _given(made)  # all of them, so that what failed first is said
            return ScoredBlock(np.concatenate(_given(logits)), _kept([_given(parts) for parts in layers], bounds))

        return wait

    def close(self) -> None:
        """Let the actors go, and the cluster where it was started for them."""
        for actor in self._actors:
            ray.kill(actor)
        if self._started:
            ray.shutdown()


def _given(made: Sequence[Any]) -> list[Any]:
    """What calls gave.

    Raises:
        WorkersLost: An actor or its machine is gone.
    """
    lost = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.NodeDiedError)
    try:
        found: list[Any] = ray.get(list(made))
        return found
    except lost as error:
        raise WorkersLost(str(error).splitlines()[0]) from error
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, lost):
            raise WorkersLost(str(cause).splitlines()[0]) from error
        raise ServeError(f"a worker failed: {type(cause).__name__}: {cause}") from error


def _ready(actors: Sequence[Any]) -> list[Any]:
    """Those actors that start in time; the others are let go.

    Raises:
        ServeError: None does.
    """
    starts = {actor.__ray_ready__.remote(): actor for actor in actors}
    up, late = ray.wait(list(starts), num_returns=len(starts), timeout=START_S)
    for start in late:
        ray.kill(starts[start])
    found, why = [], "the cluster has no room for them"
    for start in up:
        try:
            ray.get(start)
            found.append(starts[start])
        except ray.exceptions.RayActorError as error:
            why = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
    if not found:
        raise ServeError(f"no actor started within {START_S:.0f} s: {why}")
    return found


def _on_cpus(model: str, block: int, actors: int | None, cpus: int) -> tuple[list[Any], int]:
    """Actors on CPUs, and threads of each: one for each machine, so that a machine holds a window's keys once."""
    worker = ray.remote(_Slices)
    # A fraction of a CPU each, so that they start beside a service that holds some.
    if actors is not None:
        threads = max(1, cpus // actors)
        options: dict[str, Any] = {"num_cpus": 0.9 * cpus / actors, "scheduling_strategy": "SPREAD"}
        return [worker.options(**options).remote(model, block, threads) for _ in range(actors)], threads
    nodes = [(n["NodeID"], n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"]]
    made = []
    for node, own in nodes:
        if own >= 1:
            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0.9 * own, "scheduling_strategy": strategy}
            made.append(worker.options(**options).remote(model, block, int(own)))
    if not made:
        raise ServeError("no machine of the Ray cluster has a CPU to score on")
    return made, max(1, int(min(own for _, own in nodes if own >= 1)))


def _card_type(opens: Opens) -> type[DeviceSlices]:
    class Card(DeviceSlices):
        """A worker on the GPU that its actor is given."""

        def __init__(self, model: str, block: int) -> None:
            super().__init__(load(model), block, opens())

    return Card


class _Slices(CpuSlices):
    """A worker on the CPUs that its actor is given."""

    def __init__(self, model: str, block: int, threads: int) -> None:
        super().__init__(load(model), block, threads)
