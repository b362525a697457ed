"""Tolokers (Platonov et al., ICLR 2023): our attention layers alone, on a static graph that has no time.

Each worker reads its neighbours' embeddings through `gnn.model.network.AttentionLayer`, layer after layer on the
finished layer below, as payments do; there is one role, and a tie says what a payment's says of labels: whether the
neighbour's is known, and what it is. Known are the labels of the workers that train; who is being learnt from is hidden
meanwhile (masked label prediction: Shi et al., UniMP, IJCAI 2021). While it learns, a worker reads a fresh draw of its
neighbours every epoch, in the end several draws. It checks that the layers learn.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import QuantileTransformer
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from benchmarks.quality.histories import DATASETS
from gnn.model.network import EDGE, AttentionLayer, ModelConfig
from graph.dag.sampler import EDGE_FEATURES

SPLITS = 10
NEIGHBOURS_READ = 32  # neighbours drawn for each worker at a time
VALIDATION_DRAWS = 2  # draws that a validation score is the mean of
FINAL_DRAWS = 12  # draws that a final score is the mean of; each as large as in training, as attention depends on it
FOLDS = 5  # of the workers that train: each is learnt from with the labels of the others in sight
NETS = 5  # of which the mean is judged
WIDTH, LAYERS, EPOCHS, PATIENCE, BATCH = 32, 2, 36, 36, 512


class Graph(NamedTuple):
    """N workers, E undirected edges kept in both directions."""

    x: NDArray[np.float32]  # [N, 11] features and log1p of the degree
    y: NDArray[np.bool_]  # [N] banned
    first: NDArray[np.int64]  # [N + 1] where each worker's neighbours begin
    near: NDArray[np.int64]  # [2E] the neighbours
    train: NDArray[np.bool_]  # [10, N]
    validation: NDArray[np.bool_]  # [10, N]
    test: NDArray[np.bool_]  # [10, N]


def read() -> Graph:
    """The data set as published."""
    with np.load(DATASETS / "tolokers" / "tolokers.npz", allow_pickle=False) as raw:
        edges, features, y = raw["edges"], raw["node_features"], raw["node_labels"] == 1
        masks = [raw[f"{part}_masks"] for part in ("train", "val", "test")]
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    degree = np.bincount(both[:, 0], minlength=len(y))
    x = np.concatenate([features, np.log1p(degree)[:, None]], 1).astype(np.float32)
    return Graph(x, y, np.concatenate([[0], np.cumsum(degree)]), both[:, 1].astype(np.int64), *masks)


class StaticNet(nn.Module):
    """An encoder and attention layers that are trained one on the other."""

    def __init__(self, inputs: int, seed: int) -> None:
        super().__init__()
        config = ModelConfig(("account",), width=WIDTH, layers=LAYERS, hidden=WIDTH)
        self.encoder = nn.Sequential(nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(AttentionLayer(config, generator) for _ in range(LAYERS))

    def forward(self, number: int, h: Tensor, rows: Tensor, near: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Layer `number` of some workers: embeddings and its part of the log-odds.

        `near` [B, K] are neighbours, -1 for none; `known` [N] is 1 for banned, 0 for not, -1 for a label not in sight.
        """
        layer: Any = self.layers[number]
        kv = nn.functional.embedding(near.clamp(min=0), layer.keys_values(h))[:, None]
        label = torch.where(near >= 0, known[near.clamp(min=0)], -1)[:, None]
        ties = torch.zeros(*label.shape, EDGE)
        for name, there in (("labelled", label >= 0), ("fraud", label == 1), ("settled", label >= 0)):
            ties[..., EDGE_FEATURES.index(name)] = there.float()
        out: tuple[Tensor, Tensor] = layer.attend(h[rows], kv, (near >= 0)[:, None], ties)
        return out


def drawn(graph: Graph, rows: NDArray[np.int64], most: int, rng: np.random.Generator) -> Tensor:
    """Up to `most` neighbours of each worker, int64 [B, most], -1 where there are fewer."""
    degree = graph.first[rows + 1] - graph.first[rows]
    # A random start and a stride that no short cycle divides: distinct neighbours as long as there are enough.
    at = (rng.integers(0, 1 << 30, len(rows))[:, None] + np.arange(most)) % np.maximum(degree, 1)[:, None]
    near = graph.near[np.minimum(graph.first[rows][:, None] + at, len(graph.near) - 1)]
    return torch.from_numpy(np.where(np.arange(most) < degree[:, None], near, -1))


def ours(graph: Graph, split: int) -> NDArray[np.float64]:
    """Log-odds of all workers by our layers, trained on one split: the mean of a few nets.

    Shares that are nearly always 0 tell a network little as they are, so it reads every feature's normal score too (on
    the validation workers of the first split ROC AUC rose from .8405 to .8462).
    """
    normal = QuantileTransformer(n_quantiles=500, output_distribution="normal", random_state=0).fit_transform(graph.x)
    graph = graph._replace(x=np.concatenate([graph.x, normal.clip(-3, 3)], 1).astype(np.float32))
    return np.mean([_one(graph, split, NETS * split + net) for net in range(NETS)], 0)


def _one(graph: Graph, split: int, seed: int) -> NDArray[np.float64]:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    graph = shuffled(graph, rng)
    x = torch.from_numpy((graph.x - graph.x.mean(0)) / graph.x.std(0))
    y = torch.from_numpy(graph.y.astype(np.float32))
    train, validation = np.flatnonzero(graph.train[split]), np.flatnonzero(graph.validation[split])
    fold = rng.integers(0, FOLDS, len(x))
    # In sight: the labels that train, while learning without those of the fold that is being learnt from.
    known = [
        torch.from_numpy(np.where(graph.train[split] & (fold != f), graph.y, -1).astype(np.int8))
        for f in range(FOLDS + 1)
    ]
    net = StaticNet(x.shape[1], seed)
    below, logit = [x] * (FOLDS + 1), [torch.zeros(len(x))] * (FOLDS + 1)
    for number in range(LAYERS):
        parameters = [*(net.encoder.parameters() if number == 0 else ()), *net.layers[number].parameters()]
        if number:
            with torch.no_grad():
                net.layers[number].head_w2.zero_()  # begins with the layer below's score

        def encoded(f: int, number: int = number, below: list[Tensor] = below) -> Tensor:
            return net.encoder(below[f]) if number == 0 else below[f]

        def order() -> list[NDArray[np.int64]]:
            rows = rng.permutation(train)
            of_fold = [rows[fold[rows] == f] for f in range(FOLDS)]
            batches = [part for r in of_fold for part in np.array_split(r, -(-len(r) // BATCH))]
            return [batches[i] for i in rng.permutation(len(batches))]

        def step(rows: NDArray[np.int64], number: int = number, logit: list[Tensor] = logit, encoded=encoded) -> Tensor:
            f = int(fold[rows[0]])
            near = drawn(graph, rows, NEIGHBOURS_READ, rng)
            score = net(number, encoded(f), torch.from_numpy(rows), near, known[f])[1] + logit[f][rows]
            return nn.functional.binary_cross_entropy_with_logits(score, y[rows])

        def all_of(rows: NDArray[np.int64], f: int, draws: int, number: int = number, encoded=encoded) -> Any:
            return whole(net, number, encoded(f), graph, rows, known[f], draws, rng)

        def value(logit: list[Tensor] = logit, all_of=all_of) -> float:
            score = all_of(validation, FOLDS, VALIDATION_DRAWS)[1] + logit[FOLDS][validation]
            return float(roc_auc_score(graph.y[validation], score.numpy()))

        _fit(net, parameters, order, step, value)
        with torch.no_grad():
            # What the next layer learns from was read without the labels of its fold, too.
            draws = [FINAL_DRAWS if f == FOLDS else VALIDATION_DRAWS for f in range(FOLDS + 1)]
            found = [all_of(np.arange(len(x)), f, draws[f]) for f in range(FOLDS + 1)]
        below, logit = [h for h, _ in found], [a + part for a, (_, part) in zip(logit, found, strict=True)]
    return logit[FOLDS].numpy().astype(np.float64)


def shuffled(graph: Graph, rng: np.random.Generator) -> Graph:
    """The same graph, each worker's neighbours in random order, so that a run of them is a draw."""
    owner = np.repeat(np.arange(len(graph.y)), np.diff(graph.first))
    order = np.lexsort((rng.random(len(owner)), owner))
    return graph._replace(near=graph.near[order])


@torch.no_grad()
def whole(
    net: StaticNet,
    number: int,
    h: Tensor,
    graph: Graph,
    rows: NDArray[np.int64],
    known: Tensor,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """A layer of workers, the mean over some draws of their neighbours."""
    net.eval()
    total: list[Tensor] = []
    for _ in range(draws):
        parts = [
            net(number, h, torch.from_numpy(r), drawn(graph, r, NEIGHBOURS_READ, rng), known)
            for r in _batches(rows, 1024)
        ]
        one = [torch.cat(part) / draws for part in zip(*parts, strict=True)]
        total = [a + b for a, b in zip(total, one, strict=True)] if total else one
    return total[0], total[1]


def _fit(
    net: nn.Module,
    parameters: list[nn.Parameter],
    order: Callable[[], list[NDArray[np.int64]]],
    step: Callable[[NDArray[np.int64]], Tensor],
    value: Callable[[], float],
) -> None:
    """AdamW with one cycle; the epoch with the best validation value stays."""
    steps = EPOCHS * len(order())
    optimiser = torch.optim.AdamW(parameters, 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps + 1)
    best, best_value, since = copy.deepcopy(net.state_dict()), -1.0, 0
    for epoch in range(EPOCHS):
        net.train()
        for rows in order():
            loss = step(np.sort(rows))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        if epoch % 3 < 2:
            continue
        net.eval()
        with torch.no_grad():
            found = value()
        since = 0 if found > best_value else since + 3
        if found > best_value:
            best, best_value = copy.deepcopy(net.state_dict()), found
        if since >= PATIENCE:
            break
    net.load_state_dict(best)
    net.eval()


def trees(graph: Graph, split: int) -> dict[str, NDArray[np.float64]]:
    """Boosted trees on raw features, and on those with degree, means over one and two hops and labels one hop away.

    Labels are those that train, as our layers see them; two hops away would stand a worker's own.
    """
    owner = np.repeat(np.arange(len(graph.y)), np.diff(graph.first))

    def mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
        total = np.stack([np.bincount(owner, column[graph.near], minlength=len(x)) for column in x.T], 1)
        return (total / np.maximum(np.diff(graph.first), 1)[:, None]).astype(np.float32)

    train = graph.train[split]
    one = mean(graph.x)
    known = mean(np.stack([train, train & graph.y], 1))
    banned = known[:, 1] / np.maximum(known[:, 0], 1e-9)
    inputs = {
        "trees: own features": graph.x[:, :-1],
        "trees: means of 1 and 2 hops": np.column_stack([graph.x, one, mean(one), known, banned]),
    }
    found = {}
    with threadpool_limits(1, "openmp"):
        for name, x in inputs.items():
            model = HistGradientBoostingClassifier(
                learning_rate=0.05, max_leaf_nodes=15, max_iter=1, warm_start=True, random_state=split
            )
            best, best_value = None, -1.0
            for count in range(40, 401, 40):
                model.max_iter = count
                model.fit(x[train], graph.y[train])
                score = model.decision_function(x)
                value = roc_auc_score(graph.y[graph.validation[split]], score[graph.validation[split]])
                if value > best_value:
                    best, best_value = score, value
            assert best is not None
            found[name] = best
    return found


class _Sage(nn.Module):
    """Two rounds of PyG's SAGEConv over the whole graph."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first, self.second = SAGEConv(inputs, WIDTH), SAGEConv(WIDTH, WIDTH)
        self.last = nn.Linear(2 * WIDTH, 1)

    def forward(self, x: Tensor, edge: Tensor) -> Tensor:
        """Log-odds of every node."""
        one = torch.dropout(torch.relu(self.first(x, edge)), 0.2, self.training)
        two = torch.relu(self.second(one, edge))
        out: Tensor = self.last(torch.cat([one, two], 1))[:, 0]
        return out


def research(graph: Graph, split: int, epochs: int = 120) -> NDArray[np.float64]:
    """Log-odds by two SAGEConv layers of PyG, whole graph at once.

    It sees the labels that train as inputs, too, and learns in every epoch from those of a random half by the others.
    """
    torch.manual_seed(split)
    x = torch.from_numpy((graph.x - graph.x.mean(0)) / graph.x.std(0))
    y = torch.from_numpy(graph.y.astype(np.float32))
    owner = np.repeat(np.arange(len(graph.y)), np.diff(graph.first))
    edge = torch.from_numpy(np.stack([graph.near, owner]))
    train, validation = torch.from_numpy(graph.train[split]), graph.validation[split]

    def inputs(shown: Tensor) -> Tensor:
        return torch.cat([x, torch.stack([shown, shown * y], 1)], 1)

    net = _Sage(x.shape[1] + 2)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=1e-3)
    best, best_value = np.zeros(len(x)), -1.0
    for epoch in range(epochs):
        net.train()
        shown = train & (torch.rand(len(y)) < 0.5)
        learnt = train & ~shown
        loss = nn.functional.binary_cross_entropy_with_logits(net(inputs(shown.float()), edge)[learnt], y[learnt])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if epoch % 5 == 4:
            net.eval()
            with torch.no_grad():
                score = net(inputs(train.float()), edge).numpy()
            value = float(roc_auc_score(graph.y[validation], score[validation]))
            if value > best_value:
                best, best_value = score, value
    return best.astype(np.float64)


def _batches(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    return (rows[i : i + size] for i in range(0, len(rows), size))
