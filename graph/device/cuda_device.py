"""An NVIDIA GPU through CuPy. CuPy is imported when a device is asked for, and not before."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph.device.launch import Launch, source
from graph.device.waiting import PATIENCE_S, Mark, wait
from graph.errors import GraphError

NOT_READY = 600  # cudaErrorNotReady


def import_cupy() -> Any:
    """CuPy, where it is installed and sees a GPU.

    Raises:
        GraphError: It is not, or does not; the message says which.
    """
    try:
        import cupy
    except ImportError as error:
        raise GraphError(f"the store on a GPU needs CuPy (pip install 'ringwatch[cuda]'): {error}") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise GraphError(f"CuPy finds no usable GPU: {error}") from error
    if not count:
        raise GraphError("CuPy finds no GPU")
    return cupy


class Reached:
    """A place in a stream's work, as an event tells of it; see `graph.device.waiting.Mark`.

    CuPy's own `Event.done` takes a device that has failed for one that is still at work.

    Args:
        runtime: `cupy.cuda.runtime`.
        event: A `cupy.cuda.Event` that is recorded.
    """

    def __init__(self, runtime: Any, event: Any) -> None:
        self.event, self._runtime = event, runtime

    @property
    def done(self) -> bool:
        """Whether it is reached; asks and returns at once.

        Raises:
            CUDARuntimeError: The work before it has failed.
        """
        status = self._runtime.eventQuery(self.event.ptr)
        if status not in (0, NOT_READY):
            raise self._runtime.CUDARuntimeError(status)
        return bool(status == 0)


class CudaDevice:
    """The first GPU that the process may see, and three streams on it: for work, and for copies up and down beside it.

    Args:
        limit: Bytes that this process may take of it, so that several replicas share a card; all of it by default.
        patience_s: How long its work may take before it counts as lost.

    Raises:
        GraphError: There is no GPU, or less than `limit` is free on it.
    """

    name = "cuda"

    def __init__(self, limit: int | None = None, patience_s: float = PATIENCE_S) -> None:
        self.xp, self.patience_s = import_cupy(), patience_s
        # They wait for the default stream, and it for them: what PyTorch does there is in order with what is done here.
        self._stream, self._ups, self._downs = (self.xp.cuda.Stream() for _ in range(3))
        self._pinned: list[Any] = []  # what the host arrays rest on
        self._limit = limit
        if limit is not None:
            if (free := int(self.xp.cuda.runtime.memGetInfo()[0])) < limit:
                raise GraphError(
                    f"the GPU has {free / 2**30:.1f} GiB free, less than the budget of {limit / 2**30:.1f} GiB "
                    "(RINGWATCH_CUDA_MEMORY): lower it, or give the card to fewer replicas"
                )
            self.xp.get_default_memory_pool().set_limit(size=limit)

    def load(self, path: Path, defines: Mapping[str, int | str]) -> Launch:
        """Compile a CUDA source with NVRTC (CuPy keeps what it compiled) and give what launches its kernels.

        Args:
            path: The source; headers that it includes are put in.
            defines: Macros by name.

        Returns:
            Takes a kernel's name, blocks, threads of a block and a structure on the device; returns before it has run.

        Raises:
            CompileException: The source does not compile (CuPy's).
        """
        options = ("--std=c++17", *(f"-D{name}={value}" for name, value in defines.items()))
        module = self.xp.RawModule(code=source(path), options=options)
        kernels: dict[str, Any] = {}

        def launch(name: str, blocks: int, threads: int, structure: Any) -> None:
            if blocks == 0:
                return
            kernel = kernels.get(name)
            if kernel is None:
                kernel = kernels[name] = module.get_function(name)
            with self._stream:
                kernel((blocks,), (threads,), (structure,))

        return launch

    def on(self) -> AbstractContextManager[Any]:
        """Inside, what CuPy does goes to the stream for work, in order with kernels and copies."""
        stream: AbstractContextManager[Any] = self._stream
        return stream

    def address(self, array: Any) -> int:
        """Where a CuPy array begins in the device's memory, in bytes."""
        return int(array.data.ptr)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Page-locked host memory, zeroed, uint8 [size]; it is held for as long as this object is."""
        memory = self.xp.cuda.alloc_pinned_memory(max(1, size))
        self._pinned.append(memory)
        array = np.frombuffer(memory, np.uint8, size)
        array[:] = 0
        return array

    def put(self, target: Any, source: NDArray[Any]) -> None:
        """Copy all bytes of pinned host memory to the device; returns at once, in order with the stream's other work.

        Args:
            target: A CuPy array of at least as many bytes.
            source: Pinned; not to be written to before the copy is done.
        """
        self._up(target, source, self._stream)

    def get(self, source: Any, target: NDArray[Any]) -> None:
        """Copy bytes of the device to pinned host memory, as many as that holds; returns at once.

        Args:
            source: A CuPy array of at least as many bytes.
            target: Pinned; holds them once a later `mark` is reached.
        """
        self._down(source, target, self._stream)

    def put_ahead(self, target: Any, source: NDArray[Any], after: Mark | None) -> None:
        """As `put` on the stream for copies up, beside the work; what is given to the work's stream later waits for it.

        Args:
            target: A CuPy array of at least as many bytes.
            source: Pinned.
            after: The copy begins once this mark of the same device is reached; None for at once.
        """
        if after is not None:
            assert isinstance(after, Reached)  # a mark of this device
            self._ups.wait_event(after.event)
        self._up(target, source, self._ups)
        self._stream.wait_event(self._ups.record())

    def get_behind(self, source: Any, target: NDArray[Any]) -> Mark:
        """As `get` on the stream for copies down, once all work given so far is done; the mark of the copy's end."""
        self._downs.wait_event(self.mark().event)
        self._down(source, target, self._downs)
        return self._mark(self._downs)

    # By the runtime's own call: CuPy's refuses while work is recorded, since it cannot know that the memory is pinned.
    def _up(self, target: Any, source: NDArray[Any], stream: Any) -> None:
        runtime = self.xp.cuda.runtime
        to, size = int(target.data.ptr), source.nbytes
        runtime.memcpyAsync(to, source.ctypes.data, size, runtime.memcpyHostToDevice, stream.ptr)

    def _down(self, source: Any, target: NDArray[Any], stream: Any) -> None:
        runtime = self.xp.cuda.runtime
        at, size = int(source.data.ptr), target.nbytes
        runtime.memcpyAsync(target.ctypes.data, at, size, runtime.memcpyDeviceToHost, stream.ptr)

    def mark(self) -> Reached:
        """A mark behind all work given to the stream so far."""
        return self._mark(self._stream)

    def _mark(self, stream: Any) -> Reached:
        return Reached(self.xp.cuda.runtime, stream.record(self.xp.cuda.Event(disable_timing=True)))

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record kernels and copies as a CUDA graph.

        Args:
            work: Gives kernels and copies to the stream. It runs once beforehand, since loading a kernel cannot be
                recorded; it may not allocate.

        Returns:
            Launches all of them at once, and returns before they have run.

        Raises:
            HungError: The first run was not done within `patience_s`.
        """
        with self._stream:
            work()
            wait(self.mark(), self.patience_s)
            self._stream.begin_capture()
            try:
                work()
            finally:
                graph = self._stream.end_capture()
            graph.upload(self._stream)
        return lambda: graph.device.launch(self._stream)

    def free_bytes(self) -> int:
        """Bytes that this process may still take: what is free on the card, or what is left of `limit` if less."""
        free = int(self.xp.cuda.runtime.memGetInfo()[0])
        return free if self._limit is None else min(free, self._limit - self.held_bytes())

    def held_bytes(self) -> int:
        """Bytes that CuPy's pool has taken of the card and not given back, freed arrays included."""
        return int(self.xp.get_default_memory_pool().total_bytes())
