"""What is left of rings once time has passed without payments.

Ties leave the forest of `graph.rings.components` as payments come in, so that scores are a function of the journal.
Readers have a clock of their own: for them a tie ends when its window has passed, whether or not anybody paid since.
"""

import networkx as nx
import numpy as np
from numpy.typing import NDArray

ROOT, ACCOUNTS, SHARED, FRAUDS, MOST = range(5)  # columns of a ring table


def at_most(
    rings: NDArray[np.int64],
    of: NDArray[np.int64],
    account: NDArray[np.bool_],
    tied: NDArray[np.int32],
    seen: NDArray[np.bool_],
    frauds: NDArray[np.int64],
) -> NDArray[np.int64]:
    """A ring table as of a later moment, as far as that can be told without looking at payments: never too low.

    Args:
        rings: The table, int64 [K, 5].
        of: The ring of each node in it, int64 [M].
        account: Whether the node is an account, bool [M].
        tied: Accounts united through it, int32 [M].
        seen: Whether it has a payment inside the window, bool [M].
        frauds: Known frauds inside the window of each ring, int64 [K].
    """
    later, k = rings.copy(), len(rings)
    later[:, ACCOUNTS] = np.bincount(of[seen & account], minlength=k)
    later[:, SHARED] = np.bincount(of[seen & (tied >= 2)], minlength=k)
    later[:, FRAUDS] = frauds
    later[:, MOST] = 0
    np.maximum.at(later[:, MOST], of[seen], tied[seen])
    return later


def largest_part(
    account: NDArray[np.int32], entity: NDArray[np.int32], accounts: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The part of a ring with most accounts, of those that payments still tie together: it keeps the ring's id.

    Args:
        account: The account of each payment through what ties the ring, int32 [n].
        entity: What it was through, int32 [n].
        accounts: All accounts of the ring.

    Returns:
        Its nodes, ascending, int32 [m], and accounts united through each, int32 [m].
    """
    pairs = np.unique(np.stack([account, entity], 1), axis=0)
    graph = nx.Graph()
    graph.add_edges_from(pairs.tolist())
    members = set(accounts.tolist())
    parts = sorted(nx.connected_components(graph), key=lambda part: (-len(part & members), min(part)))
    nodes = np.array(sorted(parts[0]) if parts else [], np.int32)
    entities, users = np.unique(pairs[:, 1], return_counts=True)
    inside = np.isin(entities, nodes)
    tied = np.zeros(len(nodes), np.int32)
    tied[np.searchsorted(nodes, entities[inside])] = users[inside]
    return nodes, tied
