"""What a run keeps to go on from: the graph now and then, and the keys and values of the last window.

Both lie in the run's own folder (`_state`). The graph is a snapshot (`graph.snapshot`). From there to where the run
stopped the graph is built again, which is cheap; keys and values are what costs, so each block's are kept as soon as
they are there, until a window has passed.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gnn.model.network import ModelConfig
from graph.dag.protocol import ROWS_PER_APPEND
from graph.errors import GraphError
from graph.snapshot import list_snapshots, restore, save
from graph.state import GraphState
from serve.batch.manifest import STATE, Block, Manifest, checksum
from serve.batch.workers import Kept
from serve.errors import ServeError

IN_FLIGHT: Final = 2  # blocks that wait for their scores while the graph is built on
_GRAPH, _KEYS = "graph", "keys-values"


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on.

    Attributes:
        state: The graph, as of then.
        decider: What the decider kept, as of then.
    """

    state: GraphState
    decider: dict[str, Any]


class RunState:
    """The state of a run, in its folder.

    Args:
        folder: Of the run.
        roles: Of the model.
        config: Of the model.
        block: Rows of the longest block.
    """

    def __init__(self, folder: Path, roles: tuple[str, ...], config: ModelConfig, block: int) -> None:
        self._graphs, self._keys = folder / STATE / _GRAPH, folder / STATE / _KEYS
        self._roles, self._config = roles, config
        # A window, and the blocks that are not decided yet: policies may ask for features of their rows.
        self._capacity = config.window.rows + (IN_FLIGHT + 2) * block + 2 * ROWS_PER_APPEND

    def resume(self, rows: int) -> Resumed:
        """The newest graph at or before a row; an empty one where there is none, or none can be read."""
        for path in list_snapshots(self._graphs):
            try:
                found = restore(path)
            except GraphError:
                shutil.rmtree(path, ignore_errors=True)
                continue
            if found.state.store.rows <= rows and found.state.store.capacity == self._capacity:
                return Resumed(found.state, found.facts["decider"])
        return Resumed(GraphState(self._roles, self._capacity, self._config.window), {})

    def save(self, state: GraphState, decider: dict[str, Any]) -> None:
        """Keep the graph as it is now."""
        save(state, self._graphs, facts={"decider": decider})

    def keep(self, block: tuple[int, int], kept: Sequence[Kept]) -> dict[str, int]:
        """Keep a block's keys and values; returns the size and checksum of their file."""
        self._keys.mkdir(parents=True, exist_ok=True)
        path = self._keys / f"{block[0]:012d}.bin"
        staged = path.with_suffix(".tmp")
        with staged.open("wb") as out:
            for part in kept:  # by layer, then by row
                out.write(np.ascontiguousarray(part.values).data)
        found = checksum(staged)
        staged.replace(path)
        return found

    def kept(self, manifest: Manifest) -> list[Kept]:
        """Keys and values of the last window of rows that are done.

        Raises:
            ServeError: A file is missing or damaged.
        """
        found = []
        for block in manifest.before + manifest.blocks:
            if block.last > manifest.rows - self._config.window.rows:
                found += self._read(block)
        return found

    def forget(self, manifest: Manifest) -> None:
        """Remove keys and values that are a window old."""
        for block in reversed(manifest.before + manifest.blocks):
            if block.last <= manifest.rows - self._config.window.rows:
                path = self._keys / f"{block.first:012d}.bin"
                if not path.exists():
                    return
                path.unlink()

    def adopt(self, former: Path, manifest: Manifest, events: int) -> list[Block]:
        """Take what another run kept, so that this one goes on where it ended, whatever becomes of its folder.

        Args:
            former: Folder of the other run, which is done.
            manifest: Its manifest.
            events: That it had read up to its last payment: a graph that knows later labels is of no use.

        Returns:
            Its blocks whose keys and values later rows read.

        Raises:
            ServeError: What it kept is gone.
        """
        kept = RunState(former, self._roles, self._config, 0)
        shutil.rmtree(self._keys.parent, ignore_errors=True)
        self._keys.mkdir(parents=True)
        self._graphs.mkdir()
        blocks = [b for b in manifest.before + manifest.blocks if b.last > manifest.rows - self._config.window.rows]
        for block in blocks:
            name = f"{block.first:012d}.bin"
            if not (kept._keys / name).is_file():
                raise ServeError(f"{kept._keys / name} is missing: nothing can go on from this run any more")
            _link(str(kept._keys / name), str(self._keys / name))
        for path in list_snapshots(kept._graphs):
            if int(path.name) <= events:
                shutil.copytree(path, self._graphs / path.name, copy_function=_link)
        return [Block(block.first, block.last, [], block.kept) for block in blocks]

    def _read(self, block: Block) -> list[Kept]:
        path, config = self._keys / f"{block.first:012d}.bin", self._config
        if not path.is_file() or checksum(path) != block.kept:
            raise ServeError(
                f"{path} is missing or damaged, and the run cannot go on from it: begin anew with --restart"
            )
        shape = (config.layers, block.last - block.first, 2 * config.width)
        values = np.fromfile(path, config.cache).reshape(shape)
        return [Kept(layer, block.first, values[layer]) for layer in range(config.layers)]


def _link(source: str, target: str) -> None:
    """Give a file a second name, which costs no disk; a copy where that cannot be. Neither is ever written to."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
