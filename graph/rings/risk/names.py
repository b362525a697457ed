"""Names of the entities of some payments, read from the payments themselves."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.schema import role as role_named
from graph.dag.protocol import Store


class Names:
    """Names of the entities of some payments."""

    def __init__(self, store: Store, table: pa.Table | None, entity: NDArray[np.int32]) -> None:
        self.store, self.entity = store, entity
        self.columns = None if table is None else [table[role_named(name).column].to_pylist() for name in store.roles]

    def of(self, i: int) -> tuple[str | None, ...]:
        """By role; None where the payment has none."""
        if self.columns is not None:
            return tuple(column[i] for column in self.columns)
        return tuple(self.store.ids.pseudonym(n) if n >= 0 else None for n in self.entity[i].tolist())

    def name(self, i: int, node: int) -> str:
        """Of a node that payment `i` holds, a pseudonym without one."""
        if self.columns is not None and i >= 0:
            for r, held in enumerate(self.entity[i].tolist()):
                if held == node:
                    return str(self.columns[r][i])
        return self.store.ids.pseudonym(node)
