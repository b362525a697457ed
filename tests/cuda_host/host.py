"""A device that is none: NumPy arrays, and the very CUDA sources compiled by g++ and run on the CPU."""

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph.device.launch import Launch, source
from graph.device.waiting import Mark

SHIM = Path(__file__).with_name("shim.hpp")
BUILT = Path(__file__).resolve().parents[2] / "var" / "cuda_host"
GXX = shutil.which("g++")


def compiled(path: Path, defines: Mapping[str, int | str]) -> ctypes.CDLL:
    """A CUDA source as a shared library, kept for as long as it does not change."""
    text = "\n".join(
        [f'#include "{SHIM}"', *(f"#define {name} {value}" for name, value in defines.items()), source(path)]
    )
    # A product and a sum stay two roundings, as NumPy and Numba do them.
    options = ["-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    options += [
        "-U_FORTIFY_SOURCE",
        "-Wno-unused-function",
        "-Wno-unknown-pragmas",
        "-Wno-unused-variable",
        "-Wno-clobbered",
        "-Wno-unused-parameter",
    ]
    key = hashlib.sha256("\n".join([*options, SHIM.read_text(), text]).encode()).hexdigest()[:16]
    built = BUILT / f"{path.stem}-{key}.so"
    if not built.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        part = built.with_suffix(f".{id(text)}")
        assert GXX is not None
        subprocess.run([GXX, *options, "-x", "c++", "-", "-o", str(part)], input=text, text=True, check=True)
        part.replace(built)
    return ctypes.CDLL(str(built))


class HostDevice:
    """See `graph.device.launch.Device`."""

    name = "cuda"
    xp = np
    patience_s = 60.0

    def __init__(self, backwards: bool = False) -> None:
        self._backwards = backwards  # blocks and threads run from the last to the first
        self.launched: list[str] = []
        self.fails: Callable[[str], None] = lambda name: None  # called before each launch and copy: may raise

    def load(self, path: Path, defines: Mapping[str, int | str]) -> Launch:
        library = compiled(path, defines)
        library.shim_launch.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_int,
        ]

        def launch(name: str, blocks: int, threads: int, structure: Any) -> None:
            self.fails(name)
            self.launched.append(name)
            kernel = ctypes.cast(getattr(library, name), ctypes.c_void_p)
            library.shim_launch(kernel, structure.ctypes.data, blocks, threads, self._backwards)

        return launch

    def on(self) -> nullcontext[None]:
        return nullcontext()

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        return np.zeros(size, np.uint8)

    def put(self, target: Any, source: NDArray[Any]) -> None:
        self.fails("put")
        target.reshape(-1).view(np.uint8)[: source.nbytes] = source.reshape(-1).view(np.uint8)

    def get(self, source: Any, target: NDArray[Any]) -> None:
        self.fails("get")
        target.reshape(-1).view(np.uint8)[:] = source.reshape(-1).view(np.uint8)[: target.nbytes]

    def put_ahead(self, target: Any, source: NDArray[Any], after: Any) -> None:
        self.put(target, source)

    def get_behind(self, source: Any, target: NDArray[Any]) -> Mark:
        self.get(source, target)
        return self.mark()

    def mark(self) -> Mark:
        return self

    @property
    def done(self) -> bool:
        self.fails("wait")
        return True

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        return work

    def free_bytes(self) -> int:
        return 1 << 40

    def held_bytes(self) -> int:
        return 0
