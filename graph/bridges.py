"""The graph for research and notebooks: sampled neighbourhoods as PyG's `HeteroData`, entities as a NetworkX graph.

Nothing here scores a payment. What is exported is what the scorer reads: the walk, the features and the ties of
`graph.dag.sampler` and `graph.dag.features`, judged from each seed's own row, so that no later event can be in it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from graph.dag.protocol import NEVER_US, Store
from graph.errors import GraphError
from graph.state import GraphState

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


def to_hetero_data(
    store: Store,
    seeds: NDArray[np.int64],
    k: int = 16,
    hops: int = 2,
    x: NDArray[np.float32] | None = None,
    settle_us: int = NEVER_US,
) -> "HeteroData":
    """The causal neighbourhoods of payments, a tree for each seed.

    Trees share no node, entities included, so no message passes between seeds, whatever edges a model adds; one payment
    can be seen by two seeds at two times, with different labels known. A payment of hop h is sampled, and its label
    judged, from the payment of hop h - 1 that reads it, as in the scorer's cache. In a buffer that has wrapped, the
    features of payments near its old end count only what the buffer still holds; `whole` is False for these. A buffer
    of h + 1 windows is large enough for h hops from its newest rows to reach whole payments only.

    Args:
        store: The graph.
        seeds: Rows in the buffer, int64 [B].
        k: Past payments read for each role.
        hops: Depth of a tree.
        x: Features of all rows in the buffer, float32 [rows - oldest, F], where they are already computed.
        settle_us: Age, in microseconds, at which a payment without a label counts as legitimate.

    Returns:
        Nodes `payment`, seeds first: `x` float32 [N, F] features, `row` int64, `time` int64 (us), `amount` int64 (minor
        units), `category` int64 [N, 4] (hashed codes of `data.schema.CATEGORIES`, 0 where missing), `hop` int64,
        `seed` int64 (which seed's tree), `seed_mask` bool, `y` int64 (1 known as fraud by its reader, 0 known as
        legitimate, -1 nothing known; -1 for seeds), `known` bool and `whole` bool (the buffer holds all of the
        payment's window). Nodes `<entity type>`, one for each tree that has it: `node` int64, the number in the graph,
        and `seed` int64. Edges (payment, before_by_<role>, payment) from a
        past payment to its reader, with `edge_attr` float32 [E, 8] of `graph.dag.sampler.EDGE_FEATURES`, and
        (<entity type>, <role>_of, payment).

    Raises:
        GraphError: A seed is not in the buffer, or there is none; or `k` or `hops` is below 1.
    """
    import torch
    from torch_geometric.data import HeteroData

    if not len(seeds) or seeds.min() < store.oldest or seeds.max() >= store.rows:
        raise GraphError(f"seeds must be rows from {store.oldest} to {store.rows - 1}, at least one")
    if k < 1 or hops < 1:
        raise GraphError(f"k ({k}) and hops ({hops}) must be at least 1")
    trees = _walk_trees(store, seeds, k, hops, settle_us)
    data = HeteroData()
    _add_payments(
        data, store, trees, store.features(trees.row, settle_us) if x is None else x[trees.row - store.oldest]
    )
    for name, (source, target, tie) in zip(store.roles, trees.ties, strict=True):
        relation = data["payment", f"before_by_{name}", "payment"]
        relation.edge_index = torch.from_numpy(np.stack([source, target]))
        relation.edge_attr = torch.from_numpy(tie)
    _add_entities(data, store, trees)
    return data


class _Trees(NamedTuple):
    """The payments of all trees, N, and what ties them. Payments are numbered from 0, seeds first."""

    row: NDArray[np.int64]  # [N]
    hop: NDArray[np.int64]  # [N] 0 for seeds
    seed: NDArray[np.int64]  # [N] number of the seed whose tree it is in
    label: NDArray[np.int64]  # [N] as its reader knew it: 1 fraud, 0 legitimate, -1 nothing or a seed
    ties: list[tuple[NDArray[Any], ...]]  # by role: past payment [E], its reader [E], features of the tie [E, 8]


def _walk_trees(store: Store, seeds: NDArray[np.int64], k: int, hops: int, settle_us: int) -> _Trees:
    """Walk back from the seeds; see `to_hetero_data` for the arguments."""
    rows, hop, seed = [seeds], [np.zeros(len(seeds), np.int64)], [np.arange(len(seeds))]
    label = [np.full(len(seeds), -1)]
    ties: list[list[tuple[NDArray[Any], ...]]] = [[] for _ in store.roles]
    first, readers = 0, seeds
    for h in range(1, hops + 1):
        near = store.neighbours(readers, k)
        tie = store.edges(readers, near, settle_us)
        there = near >= 0
        after = first + len(readers)
        number = np.where(there, after + np.cumsum(there.reshape(-1)).reshape(near.shape) - 1, -1)
        for r, of_role in enumerate(ties):
            b, n = np.nonzero(there[:, r])
            of_role.append((number[b, r, n], first + b, tie[b, r, n]))
        rows.append(near[there])
        hop.append(np.full(int(there.sum()), h))
        seed.append(np.broadcast_to(seed[-1][:, None, None], near.shape)[there])
        label.append(np.where(tie[there][:, 1] > 0, tie[there][:, 2], -1).astype(np.int64))
        first, readers = after, near[there]
    joined = [tuple(np.concatenate(parts) for parts in zip(*of_role, strict=True)) for of_role in ties]
    return _Trees(np.concatenate(rows), np.concatenate(hop), np.concatenate(seed), np.concatenate(label), joined)


def _add_payments(data: "HeteroData", store: Store, trees: _Trees, x: NDArray[np.float32]) -> None:
    """Add the nodes `payment`, with features `x` [N, F]."""
    import torch

    payment, rows, time = data["payment"], trees.row, store.column("time", trees.row)
    payment.x, payment.row, payment.hop, payment.seed, payment.y = (
        torch.from_numpy(array) for array in (x, rows, trees.hop, trees.seed, trees.label)
    )
    payment.time, payment.amount = torch.from_numpy(time), torch.from_numpy(store.column("amount", rows))
    payment.category = torch.from_numpy(store.column("category", rows).astype(np.int64))
    first_time = store.column("time", np.array([store.oldest]))[0]
    whole = (rows - store.window.rows >= store.oldest) | (time - first_time > store.window.span_us)
    payment.whole = torch.from_numpy(whole | (store.oldest == 0))
    payment.known, payment.seed_mask = payment.y >= 0, payment.hop == 0


def _add_entities(data: "HeteroData", store: Store, trees: _Trees) -> None:
    """Add the nodes of each entity type, one for each tree that holds the entity, and their edges to payments."""
    import torch

    entity = store.column("entity", trees.row)
    present = entity >= 0
    # An entity of a tree is one number: the seed in the upper half, the node in the lower.
    in_tree = trees.seed[:, None] << 32 | entity
    for type_number, kind in enumerate(store.ids.types):
        of_type = np.flatnonzero(store.role_type == type_number)
        found = np.unique(in_tree[:, of_type][present[:, of_type]])
        data[kind].node, data[kind].seed = (torch.from_numpy(a) for a in (found & 0xFFFFFFFF, found >> 32))
        data[kind].num_nodes = len(found)
        for r in of_type.tolist():
            touched = np.flatnonzero(present[:, r])
            pairs = np.stack([np.searchsorted(found, in_tree[touched, r]), touched])
            data[kind, f"{store.roles[r]}_of", "payment"].edge_index = torch.from_numpy(pairs)


def to_networkx(
    state: GraphState, entities: Sequence[tuple[str, str]], hops: int = 1, max_payments: int = 2_000
) -> nx.Graph:
    """Who is tied to whom, through what and since when, around some entities: for investigators.

    Args:
        state: The graph.
        entities: (entity type, name) of those to begin with, such as ("account", "a17").
        hops: Payments away from them.
        max_payments: Payments taken in, newest first: nearer ones before farther ones.

    Returns:
        A bipartite graph of entities, "<type>:<name>" with `kind`, `name` and `frauds` (known among the payments taken
        in), and payments, the row number with `kind` "payment", `transaction_id`, `time` (us), `amount` (minor units)
        and `fraud` (True, False, or None where nothing is known). An edge has the `role`, both roles joined by "+"
        where an entity pays itself. `graph.graph["cut"]` tells whether `max_payments` left payments out.

    Raises:
        GraphError: An entity is not known, or its type.
    """
    store = state.store
    nodes: dict[int, None] = {}
    for kind, name in entities:
        if kind not in store.ids.types:
            raise GraphError(f"no entity type {kind!r}; there are {', '.join(store.ids.types)}")
        node = store.ids.get(store.ids.types.index(kind), name)
        if node < 0:
            raise GraphError(f"no {kind} {name!r} is in the graph")
        nodes[node] = None
    rows: dict[int, None] = {}
    ring, cut = list(nodes), False
    for _ in range(hops):
        fresh = {row for node in ring for row in store.history(node, max_payments + 1).tolist()} - rows.keys()
        cut |= len(fresh) > max_payments - len(rows)
        rows.update(dict.fromkeys(sorted(fresh, reverse=True)[: max_payments - len(rows)]))
        touched = store.column("entity", np.array(list(rows), np.int64)) if rows else np.empty((0, 1), np.int32)
        ring = [int(node) for node in np.unique(touched) if node >= 0 and int(node) not in nodes]
        nodes.update(dict.fromkeys(ring))
    graph = nx.Graph(cut=cut)
    numbers = np.array(list(nodes), np.int64)
    key = {}
    for node, name in zip(numbers.tolist(), state.names(numbers), strict=True):
        kind = store.ids.types[store.ids.kind(node)]
        key[node] = f"{kind}:{name}"
        graph.add_node(key[node], kind=kind, name=name, frauds=0)
    taken = np.array(list(rows), np.int64)
    columns: list[list[Any]] = [store.column(c, taken).tolist() for c in ("time", "amount", "entity")]
    columns += [state.transaction_ids(taken), store.believed(taken).tolist()]
    for row, time, amount, entity, name, known in zip(rows, *columns, strict=True):
        fraud = None if known < 0 else bool(known)
        graph.add_node(row, kind="payment", transaction_id=name, time=time, amount=amount, fraud=fraud)
        for node in dict.fromkeys(entity):
            if node in key:
                held = [role for role, other in zip(store.roles, entity, strict=True) if other == node]
                graph.add_edge(key[node], row, role="+".join(held))
                graph.nodes[key[node]]["frauds"] += int(fraud is True)
    return graph
