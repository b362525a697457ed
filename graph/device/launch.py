"""What a store and a network on a device need of it: arrays, kernels, copies that do not wait, and recorded work.

Kernels take one argument, the address of a structure on the device. Structures are read from the CUDA headers, which so
stay the only place that lays them out.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graph.device.waiting import Mark
from graph.errors import GraphError

Launch = Callable[[str, int, int, Any], None]  # a kernel's name, blocks, threads of a block, the structure's array
CUDA = Path(__file__).parent / "cuda"
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
_MEMBER = re.compile(r"(?:const )?(\w+)(\*?) ([\w, ]+);")


class Device(Protocol):
    """A device, or what stands for one in tests."""

    name: str
    xp: Any  # the array module: CuPy, or NumPy
    patience_s: float  # how long its work may take before it counts as lost

    def load(self, path: Path, defines: Mapping[str, int | str]) -> Launch:
        """Compile a CUDA source and give what launches its kernels, on the device's own stream."""

    def on(self) -> AbstractContextManager[Any]:
        """Inside, what `xp` does goes to the device's own stream."""

    def address(self, array: Any) -> int:
        """Where an array lies in the device's memory."""

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Host memory that the device copies from and to without waiting."""

    def put(self, target: Any, source: NDArray[Any]) -> None:
        """Copy bytes of pinned host memory to the device; returns at once, in order with the stream's other work."""

    def get(self, source: Any, target: NDArray[Any]) -> None:
        """Copy bytes of the device to pinned host memory; returns at once."""

    def put_ahead(self, target: Any, source: NDArray[Any], after: Mark | None) -> None:
        """The same on a second stream, once `after` is reached; what is given to the first from now on waits for it."""

    def get_behind(self, source: Any, target: NDArray[Any]) -> Mark:
        """As `get` on a third stream, once all that was given to the first so far is done; the mark of its end."""

    def mark(self) -> Mark:
        """The place that the stream has come to."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record kernels and copies once; the call that comes back runs them as one."""

    def free_bytes(self) -> int:
        """Memory of the device that this process may still take."""

    def held_bytes(self) -> int:
        """Memory that this process's arrays have ever asked the device for: it must not grow while payments come."""


def source(path: Path) -> str:
    """A CUDA source with its headers put in: a compiler's cache that looks at one text then sees every change."""
    seen: set[str] = set()

    def put_in(text: str) -> str:
        def header(match: re.Match[str]) -> str:
            name = match[1]
            if name in seen:
                return ""
            seen.add(name)
            found = next(p for p in (path.parent / name, CUDA / name) if p.exists())
            return put_in(found.read_text().replace("#pragma once", ""))

        return _INCLUDE.sub(header, text)

    return put_in(path.read_text())


def structure(path: Path, name: str) -> np.dtype[np.void]:
    """A structure of a CUDA header as NumPy sees it: pointers as u8, numbers as i8, each of 8 bytes.

    Raises:
        GraphError: A member is of another size.
    """
    text = re.sub(r"//.*", "", path.read_text())
    found = re.search(rf"struct {name} {{(.*?)}};", text, re.DOTALL)
    if found is None:
        raise GraphError(f"{path} has no structure {name}")
    fields = []
    for kind, pointer, names in _MEMBER.findall(found[1]):
        if not pointer and kind != "i64":
            raise GraphError(f"{path}: {name}: {names} is neither a pointer nor an i64")
        fields += [(member.strip(), "u8" if pointer else "i8") for member in names.split(",")]
    return np.dtype(fields)


def filled(device: Device, dtype: np.dtype[np.void], members: Mapping[str, Any], last: Any = None) -> Any:
    """A structure on the device: arrays become their addresses, None a null.

    Args:
        device: Where.
        dtype: From `structure`.
        members: By name; what is not given is 0.
        last: An array of the same structure to overwrite in place of a new one.
    """
    record = np.zeros((), dtype)
    for name, value in members.items():
        if value is None:
            continue
        record[name] = int(value) if isinstance(value, int | np.integer) else device.address(value)
    raw = record.reshape(1).view(np.uint8)
    with device.on():
        made = device.xp.asarray(raw)
        if last is None:
            return made
        last[...] = made
        return last
