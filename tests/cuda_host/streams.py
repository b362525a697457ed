"""A device with streams that put their work off: what is given to them runs when the host asks, in any allowed order.

Within a stream the order is kept, and between streams only what events keep. So pinned memory that is written again too
soon, or a copy that does not wait for what it copies, gives wrong numbers here as it would on a GPU. A kernel may also
be made never to return: its stream then stands still for good.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph.device.launch import Launch
from graph.device.waiting import Mark
from tests.cuda_host.host import HostDevice


class Event:
    """A mark in a stream; asking after it lets the device go on a little."""

    def __init__(self, device: "StreamDevice") -> None:
        self._device, self.reached = device, False

    @property
    def done(self) -> bool:
        if not self.reached:
            self._device.step()
        return self.reached


class StreamDevice(HostDevice):
    """See `graph.device.launch.Device`.

    Args:
        seed: Of the order in which streams go on.
        last: Let copies between streams go on only when nothing else can: the latest that is allowed.
    """

    def __init__(self, seed: int = 0, last: bool = False) -> None:
        super().__init__()
        self._rng, self._last = np.random.default_rng(seed), last
        self._streams: dict[str, deque[Callable[[], bool]]] = {"work": deque(), "up": deque(), "down": deque()}
        self.stuck: Callable[[str], bool] = lambda name: False  # whether a kernel never returns
        self._recording: list[Callable[[], None]] | None = None

    def _give(self, stream: str, work: Callable[[], object], kernel: str = "") -> None:
        def done() -> bool:
            if self.stuck(kernel):
                return False
            work()
            return True

        if self._recording is not None:
            assert stream == "work"
            self._recording.append(lambda: self._streams["work"].append(done))
        else:
            self._streams[stream].append(done)

    def step(self) -> bool:
        """One piece of work of one stream that has some and need not wait; whether there was any."""
        waiting = [queue for queue in self._streams.values() if queue]
        if self._last and len(waiting) > 1:
            order: list[int] = list(range(len(waiting)))  # kernels first, then copies
        else:
            order = self._rng.permutation(len(waiting)).tolist()
        for i in order:
            if waiting[i][0]():
                waiting[i].popleft()
                return True
        return False

    def load(self, path: Path, defines: Mapping[str, int | str]) -> Launch:
        now = super().load(path, defines)

        def launch(name: str, blocks: int, threads: int, structure: Any) -> None:
            self._give("work", lambda: now(name, blocks, threads, structure), name)

        return launch

    @contextmanager
    def on(self) -> Iterator[None]:
        """NumPy does at once what is asked of it: all that was given before has to be done by then."""
        assert self._recording is None, "nothing may be allocated in recorded work"
        while self.step():
            pass
        yield

    def put(self, target: Any, source: NDArray[Any]) -> None:
        self._give("work", lambda: HostDevice.put(self, target, source))

    def get(self, source: Any, target: NDArray[Any]) -> None:
        self._give("work", lambda: HostDevice.get(self, source, target))

    def put_ahead(self, target: Any, source: NDArray[Any], after: Any) -> None:
        if after is not None:
            self._streams["up"].append(lambda: bool(after.reached))
        self._give("up", lambda: HostDevice.put(self, target, source))
        arrived = self._mark("up")
        self._streams["work"].append(lambda: arrived.reached)

    def get_behind(self, source: Any, target: NDArray[Any]) -> Mark:
        made = self._mark("work")
        self._streams["down"].append(lambda: made.reached)
        self._give("down", lambda: HostDevice.get(self, source, target))
        return self._mark("down")

    def mark(self) -> Mark:
        return self._mark("work")

    def _mark(self, stream: str) -> Event:
        event = Event(self)
        self._give(stream, lambda: setattr(event, "reached", True))
        return event

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        with self.on():
            pass
        self._recording = recorded = []
        work()
        self._recording = None

        def replay() -> None:
            for give in recorded:
                give()

        return replay
