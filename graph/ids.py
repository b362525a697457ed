"""External identifiers to dense node numbers.

Every account, merchant, device, ... is a *node*. Nodes of all entity types are numbered together from 0 in order of
first appearance, so one array indexed by node serves every role; the same name under two entity types is two nodes.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class Ids:
    """A growing table (entity type, name) -> node.

    Args:
        types: Names of the entity types; a type's position is its number.
    """

    def __init__(self, types: Sequence[str]) -> None:
        self.types = tuple(types)
        self._tables: tuple[dict[str, int], ...] = tuple({} for _ in self.types)
        self._names: list[str] = []
        self._types: list[int] = []

    def __len__(self) -> int:
        return len(self._names)

    def encode(self, kind: int, column: pa.Array) -> NDArray[np.int32]:
        """Number a column of names, adding those not seen before.

        Args:
            kind: Number of the entity type.
            column: Strings, nullable, shape [n].

        Returns:
            Nodes, int32 [n]; -1 for null.
        """
        encoded = pc.dictionary_encode(column)
        table, names, types = self._tables[kind], self._names, self._types
        # One look-up for each distinct name of the batch; the rows themselves are mapped by Arrow and NumPy.
        nodes = np.empty(len(encoded.dictionary) + 1, np.int32)
        nodes[-1] = -1
        for i, name in enumerate(encoded.dictionary.to_pylist()):
            node = table.get(name)
            if node is None:
                node = table[name] = len(names)
                names.append(name)
                types.append(kind)
            nodes[i] = node
        indices = encoded.indices
        if indices.null_count:
            indices = indices.fill_null(len(encoded.dictionary))
        return nodes[indices.to_numpy(zero_copy_only=False)]

    def get(self, kind: int, name: str) -> int:
        """The node of one name, or -1 where it has never been seen."""
        return self._tables[kind].get(name, -1)

    def name(self, node: int) -> str:
        """The external name of a node."""
        return self._names[node]

    def kind(self, node: int) -> int:
        """The number of a node's entity type."""
        return self._types[node]
