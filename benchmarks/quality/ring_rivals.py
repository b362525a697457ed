"""Other ways to find groups of accounts, on all payments of a window: what risk rings are judged beside.

None of them reads a score or a label. Each gives groups of at least three accounts as of a moment.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable

import networkx as nx
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph.dag.protocol import DAY_US

WINDOW_US = 30 * DAY_US
ROLES = ("device_id", "card_id", "ip", "merchant_id", "payee_id")
LEAST = 3  # accounts of a group
BLOCKS = 20  # that Fraudar gives, one after the other
Ties = dict[tuple[str, str], set[str]]  # accounts by entity
Finder = Callable[[Ties], list[set[str]]]


def ties(payments: pa.Table, time: NDArray[np.int64], at: int, roles: tuple[str, ...] = ROLES) -> Ties:
    """Which accounts paid at each entity within the window up to a moment, us."""
    rows = payments.take(pa.array(np.flatnonzero((time <= at) & (time > at - WINDOW_US))))
    accounts, found = rows["account_id"].to_pylist(), defaultdict(set)
    for role in roles:
        for account, name in zip(accounts, rows[role].to_pylist(), strict=True):
            if name is not None:
                found[role, name].add(account)
    return {entity: of for entity, of in found.items() if len(of) >= 2}


def shared_devices_and_cards(found: Ties, most: int = 40) -> list[set[str]]:
    """Accounts that devices and cards of at most 40 accounts connect, as the tie rings of a score do."""
    return components({e: of for e, of in found.items() if e[0] in ("device_id", "card_id") and len(of) <= most})


def components(found: Ties) -> list[set[str]]:
    """Connected components of all accounts and entities."""
    return _accounts(nx.connected_components(_graph(found)))


def louvain(found: Ties) -> list[set[str]]:
    """Communities by Louvain (Blondel et al., J. Stat. Mech. 2008) of all accounts and entities."""
    return _accounts(nx.community.louvain_communities(_graph(found), seed=1))


def fraudar(found: Ties) -> list[set[str]]:
    """Densest blocks by the greedy peel of Fraudar (Hooi et al., KDD 2016), one after the other.

    A tie weighs 1 / log(degree of the entity + 5), so that popular entities count little.
    """
    left, blocks = {entity: set(of) for entity, of in found.items()}, []
    for _ in range(BLOCKS):
        accounts, entities = _densest(left)
        if len(accounts) < LEAST:
            break
        blocks.append(accounts)
        for entity in entities:
            left[entity] = left[entity] - accounts
        left = {entity: of for entity, of in left.items() if of}
    return blocks


def _graph(found: Ties) -> nx.Graph:
    graph = nx.Graph()
    for entity, of in found.items():
        graph.add_edges_from((entity, account) for account in sorted(of))
    return graph


def _accounts(groups: object) -> list[set[str]]:
    only = ({n for n in group if not isinstance(n, tuple)} for group in groups)  # type: ignore[attr-defined]
    return [group for group in only if len(group) >= LEAST]


def _densest(found: Ties) -> tuple[set[str], set[tuple[str, str]]]:
    """The accounts and entities of the densest block that peeling comes by."""
    near: dict[object, dict[object, float]] = defaultdict(dict)
    for entity, of in found.items():
        for account in of:
            near[entity][account] = near[account][entity] = 1 / np.log(len(of) + 5)
    degree = {node: sum(edges.values()) for node, edges in near.items()}
    heap = [(d, i, node) for i, (node, d) in enumerate(sorted(degree.items(), key=lambda item: str(item[0])))]
    number = {node: i for _, i, node in heap}
    heapq.heapify(heap)
    total, left, order = sum(degree.values()) / 2, len(degree), []
    best, cut = (total / left if left else 0.0), 0
    gone: set[object] = set()
    while heap:
        d, _, node = heapq.heappop(heap)
        if node in gone or d > degree[node] + 1e-9:
            continue
        gone.add(node)
        order.append(node)
        total, left = total - degree[node], left - 1
        for other, weight in near[node].items():
            if other not in gone:
                degree[other] -= weight
                heapq.heappush(heap, (degree[other], number[other], other))
        if left and total / left > best:
            best, cut = total / left, len(order)
    block = set(degree) - set(order[:cut])
    return {n for n in block if isinstance(n, str)}, {n for n in block if isinstance(n, tuple)}
