"""Company: accounts that have made no risky payment, but use what is mostly a ring's own.

A device of a farm is used by accounts that have not struck yet. Where most of the accounts that an entity has seen
inside the window are a ring's, and few payments have it, the others are taken for members too. A popular merchant
or a family's tablet has too many, or too many others.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from graph.dag.protocol import Store
from graph.rings.risk.tables import Records

MOST_PAYMENTS: Final = 64
"""Payments inside the window of an entity that can bring company, at most: bounds the work of an event."""


def company_of(
    store: Store, entities: Records, node: int, ring: int, tail: int, upto: int, share: float
) -> NDArray[np.int64]:
    """Accounts in a ring's company at an entity, int64, in order of their first payment there.

    Args:
        store: The rows.
        entities: The engine's, by node.
        node: The entity, one of the ring's.
        ring: The ring's slot.
        tail: First row inside the window.
        upto: The row after the last that counts; the store may be ahead.
        share: Of the entity's accounts that must be the ring's.
    """
    seen = entities[node]
    if seen["ring"] != ring + 1 or seen["others"] > MOST_PAYMENTS:
        return np.empty(0, np.int64)
    rows = store.history(node, MOST_PAYMENTS + store.rows - upto, tail)
    rows = rows[rows < upto][::-1]
    account = store.column("entity", rows)[:, 0].astype(np.int64)
    _, first = np.unique(account, return_index=True)
    account = account[np.sort(first)]
    its = entities["ring"][account] == ring + 1
    if its.sum() < 2 or its.sum() < share * len(account):
        return np.empty(0, np.int64)
    return account[entities["ring"][account] == 0]
