"""Snapshots: the graph as of one journal offset, on disk, so that a restart replays only what came after.

A snapshot is a folder of raw arrays and a manifest. It is written under another name, flushed to disk and then renamed,
so that a crash at any byte leaves the last good one; every block has a checksum. It is read by mapping the files into
memory copy-on-write: pages come from disk as they are touched, and what is written to them stays in memory. A file is
as long as its whole array, unused capacity included, which costs no disk: the file has a hole there.
"""

import fcntl
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.digests import digest
from data.journal.protocol import PaymentSource
from graph.dag.protocol import StoreMaker, Window
from graph.dag.store import GraphStore
from graph.errors import GraphError
from graph.memory import ArrayPart
from graph.rings.index import RingIndex
from graph.rings.protocol import RingMaker
from graph.state import GraphState

FORMAT = 2  # 2: with what rows remember of their entities
SNAPSHOTS_KEPT = 2  # the newest ones, the one just written included
BYTES_PER_CHECKSUM = 1 << 26
MANIFEST = "manifest.json"
_NAME = re.compile(r"\d{20}")


@dataclass(frozen=True)
class Restored:
    """A snapshot read back.

    Attributes:
        state: The graph; `state.applied` is the offset to go on from.
        extra: The arrays that were saved beside it.
        facts: The JSON that was saved beside them.
        path: The snapshot's own folder.
    """

    state: GraphState
    extra: dict[str, NDArray[Any]]
    facts: dict[str, Any]
    path: Path


def save(
    state: GraphState,
    folder: Path,
    extra: Mapping[str, ArrayPart] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a snapshot into a folder of snapshots, and remove all but the newest `SNAPSHOTS_KEPT`.

    Nothing may be applied to the state meanwhile.

    Args:
        state: The graph.
        folder: Of all snapshots of one journal.
        extra: Arrays to keep beside it, such as the caches of models.
        facts: JSON to keep with those.

    Returns:
        The snapshot's own folder, named by its journal offset.

    Raises:
        GraphError: It cannot be written.
    """
    target = folder / f"{state.applied:020d}"
    staging = folder / f".{target.name}.{os.getpid()}"
    arrays = {**state.parts(), **{f"extra.{name}": part for name, part in (extra or {}).items()}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        files = {name: _write(staging / f"{name}.bin", part) for name, part in arrays.items()}
        content = {
            "format": FORMAT,
            "applied": state.applied,
            "graph": state.facts(),
            "key": _key_check(state),
            "facts": dict(facts or {}),
            "files": files,
        }
        text = json.dumps(content).encode()
        with (staging / MANIFEST).open("wb") as out:
            out.write(json.dumps({"crc": zlib.crc32(text)}).encode() + b"\n" + text)
            out.flush()
            os.fsync(out.fileno())
        _sync(staging)
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise GraphError(f"cannot write the snapshot {target}: {error}") from error
    for old in list_snapshots(folder)[SNAPSHOTS_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_snapshots(folder: Path) -> list[Path]:
    """The snapshots in a folder, newest first; what a crash left half-written is not among them."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


def restore(
    path: Path,
    source: PaymentSource | None = None,
    *,
    verify: bool = True,
    make: StoreMaker = GraphStore,
    rings: RingMaker = RingIndex,
) -> Restored:
    """Map a snapshot into memory.

    Args:
        path: Its folder.
        source: Where names are looked up for people; without one they get pseudonyms.
        verify: Whether to compare every block with its checksum, which reads the whole snapshot once.
        make: Makes the store.
        rings: Makes the engine of rings.

    Returns:
        The graph and what was saved beside it.

    Raises:
        GraphError: It is damaged, of another format, or made with another key than the environment's.
    """
    content = _manifest(path)
    try:
        graph = content["graph"]
        window = Window(*graph["window"][:2])
        state = GraphState(tuple(graph["roles"]), graph["capacity"], window, source, make=make, rings=rings)
        if content["key"] != _key_check(state):
            raise GraphError(f"{path} was made with another RINGWATCH_ID_KEY")
        arrays = {name: _map(path / f"{name}.bin", entry, verify) for name, entry in content["files"].items()}
        for name, part in state.parts().items():
            if arrays[name].dtype != part.array.dtype or arrays[name].shape[1:] != part.array.shape[1:]:
                raise GraphError(f"{path}: {name} has the layout of another version")
        state.adopt(arrays, graph, content["applied"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise GraphError(f"{path} is damaged: {error!r}") from error
    extra = {name.removeprefix("extra."): a for name, a in arrays.items() if name.startswith("extra.")}
    return Restored(state, extra, content["facts"], path)


@contextmanager
def sole_writer(folder: Path) -> Iterator[bool]:
    """A lock on a folder of snapshots; gives True if this process now holds it, False if another is writing there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        for left in folder.glob(".[0-9]*"):  # half-written when a process crashed
            shutil.rmtree(left, ignore_errors=True)
        yield True


def _write(path: Path, part: ArrayPart) -> dict[str, Any]:
    array, blocks = part.array, []
    layers = [array[i] for i in range(len(array))] if part.axis else [array]
    with path.open("wb") as out:
        for i, layer in enumerate(layers):
            used = np.ascontiguousarray(layer[: part.used]).reshape(-1).view(np.uint8)
            start = i * layer.nbytes
            for at in range(0, len(used), BYTES_PER_CHECKSUM):
                block = used[at : at + BYTES_PER_CHECKSUM].data
                out.seek(start + at)
                out.write(block)
                blocks.append((start + at, len(block), zlib.crc32(block)))
        out.truncate(array.nbytes)
        out.flush()
        os.fsync(out.fileno())
    return {
        "dtype": np.lib.format.dtype_to_descr(array.dtype),
        "itemsize": array.dtype.itemsize,
        "shape": array.shape,
        "blocks": blocks,
    }


def _map(path: Path, entry: dict[str, Any], verify: bool) -> NDArray[Any]:
    dtype = np.lib.format.descr_to_dtype(_tuples(entry["dtype"]))
    shape = tuple(entry["shape"])
    size = int(np.prod(shape, dtype=np.int64)) * entry["itemsize"]
    if path.stat().st_size != size:
        raise GraphError(f"{path} has {path.stat().st_size:,} bytes and not {size:,}")
    if size == 0:
        return np.zeros(shape, dtype)
    raw = np.memmap(path, np.uint8, "c").view(np.ndarray)
    if verify:
        for start, length, crc in entry["blocks"]:
            if zlib.crc32(raw[start : start + length].data) != crc:
                raise GraphError(f"{path} is damaged: bytes {start:,} to {start + length:,} fail their checksum")
    return raw.view(dtype).reshape(shape)


def _tuples(description: Any) -> Any:
    """A dtype's description with the tuples that JSON turned into lists: fields, and the shapes in them."""
    if isinstance(description, list):
        return [tuple(tuple(x) if isinstance(x, list) else x for x in field) for field in description]
    return description


def _manifest(path: Path) -> dict[str, Any]:
    try:
        head, _, text = (path / MANIFEST).read_bytes().partition(b"\n")
        if json.loads(head)["crc"] != zlib.crc32(text):
            raise GraphError(f"{path / MANIFEST} is damaged: its checksum fails")
        content: dict[str, Any] = json.loads(text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraphError(f"no readable snapshot in {path}: {error}") from error
    if content.get("format") != FORMAT:
        raise GraphError(f"{path} has format {content.get('format')}, not {FORMAT}")
    return content


def _key_check(state: GraphState) -> str:
    """A digest that is equal for two graphs if they digest ids with the same key, and reveals nothing of the key."""
    return digest(state.payments.key, pa.array(["ringwatch"])).tobytes().hex()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
