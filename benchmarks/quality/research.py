"""The rival from research: two rounds of PyG's HeteroConv on the same sampled histories that the model reads.

GraphSAGE convolutions over past payments through every role, ties and labels as then known as inputs of the past
payment; trained on all known frauds and a fresh draw of the rest each epoch, calibration left out (only the
order of its scores is judged). The neighbourhoods come from `graph.bridges.to_hetero_data`: no later event is in them.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv

from gnn.train.targets import Targets, TrainConfig
from graph.bridges import to_hetero_data
from graph.dag.features import feature_names
from graph.dag.sampler import EDGE_FEATURES
from graph.state import GraphState

WIDTH = 32
NEIGHBOURS_READ = 8  # past payments of all entities of a payment together, in each of two hops; at least two of each
BATCH = 512
ROWS_PER_BLOCK = 1 << 16
NEGATIVES = 5  # for each fraud, redrawn every epoch
MAX_PAYMENTS_PER_EPOCH = 24_000  # payments an epoch
MAX_VALIDATION_ROWS = 6_000  # validation payments that choose the epoch


class ResearchNet(nn.Module):
    """Encoder, two rounds of HeteroConv over past payments, a score for each seed."""

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int, roles: tuple[str, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.relations = [("payment", f"before_by_{role}", "payment") for role in roles]
        # What is known of a past payment by its reader: its label and its ties, beside its features.
        self.first = nn.Linear(inputs + 2 + len(EDGE_FEATURES), WIDTH)
        self.rounds = nn.ModuleList(
            HeteroConv({relation: SAGEConv(WIDTH, WIDTH) for relation in self.relations}) for _ in range(2)
        )
        self.last = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def forward(self, data: HeteroData) -> Tensor:
        """Log-odds of the seeds."""
        payment = data["payment"]
        tie = torch.zeros(len(payment.x), len(EDGE_FEATURES))
        for relation in self.relations:
            tie[data[relation].edge_index[0]] = data[relation].edge_attr
        x = ((payment.x - self.mean) * self.scale).clamp(-8, 8)
        label = torch.stack([payment.y == 1, payment.y == 0], 1).to(x.dtype)
        h = torch.relu(self.first(torch.cat([x, label, tie], 1)))
        edges = {relation: data[relation].edge_index for relation in self.relations}
        for layer in self.rounds:
            h = h + torch.relu(layer({"payment": h}, edges)["payment"])
        out: Tensor = self.last(h[payment.seed_mask])[:, 0]
        return out


def score_research(
    past: GraphState,
    targets: Targets,
    graph: GraphState,
    rows: NDArray[np.int64],
    config: TrainConfig,
    *,
    epochs: int = 3,
    seed: int = 0,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Train on what the model was trained on, and score rows of a graph; log-odds, float64 [n]."""
    reader, later = (_Reader(of, config.without, targets.settle_us) for of in (past, graph))
    net, history = _trained(reader, targets, epochs, seed)
    if config.refit:
        net, _ = _trained(reader, targets.with_validation_in_training, int(np.argmax(history)) + 1, seed, choose=False)
    return _score(net, later, rows), {"validation_ap": history, "near": reader.near, "width": WIDTH}


def _trained(
    reader: "_Reader", targets: Targets, epochs: int, seed: int, choose: bool = True
) -> tuple[ResearchNet, list[float]]:
    """A network, and its validation AP after each epoch where that chooses."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    fraud, train = targets.fraud, targets.train
    positive, negative = train[fraud[train] > 0], train[fraud[train] == 0]
    drawn = min(len(negative), NEGATIVES * len(positive), MAX_PAYMENTS_PER_EPOCH)
    validation = targets.validation
    if len(validation) > MAX_VALIDATION_ROWS:
        known = validation[fraud[validation] > 0]
        rest = rng.choice(validation, MAX_VALIDATION_ROWS, replace=False)
        validation = np.unique(np.concatenate([known, rest]))
    net = ResearchNet(reader.x.shape[1], reader.store.roles)
    net.mean.copy_(torch.from_numpy(reader.x[train].mean(0)))
    net.scale.copy_(torch.from_numpy(1 / np.maximum(reader.x[train].std(0), 1e-3)))
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    best, best_ap = net.state_dict(), -1.0
    history: list[float] = []
    for _ in range(epochs):
        net.train()
        chosen = np.concatenate(
            [
                rng.permutation(positive)[: MAX_PAYMENTS_PER_EPOCH // NEGATIVES],
                rng.choice(negative, drawn, replace=False),
            ]
        )
        rng.shuffle(chosen)
        for i in range(0, len(chosen), BATCH):
            seeds = chosen[i : i + BATCH]
            loss = nn.functional.binary_cross_entropy_with_logits(
                net(reader.read(seeds)), torch.from_numpy(fraud[seeds])
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if not choose:
            continue
        ap = float(average_precision_score(fraud[validation] > 0, _score(net, reader, validation)))
        history.append(ap)
        if ap > best_ap:
            best, best_ap = {name: value.clone() for name, value in net.state_dict().items()}, ap
    if choose:
        net.load_state_dict(best)
    return net, history


class _Reader:
    """Sampled histories of a graph whose features are worked out once."""

    def __init__(self, state: GraphState, without: tuple[str, ...], settle_us: int) -> None:
        self.store, n = state.store, state.store.rows
        self.settle_us = settle_us
        self.near = max(2, NEIGHBOURS_READ // len(self.store.roles))
        blocks = (np.arange(i, min(n, i + ROWS_PER_BLOCK)) for i in range(0, n, ROWS_PER_BLOCK))
        self.x = np.concatenate([self.store.features(rows, settle_us) for rows in blocks])
        self.x[:, [name.startswith(without) for name in feature_names(self.store.roles)]] = 0

    def read(self, seeds: NDArray[np.int64]) -> HeteroData:
        return to_hetero_data(self.store, seeds, self.near, 2, self.x, self.settle_us)


@torch.no_grad()
def _score(net: ResearchNet, reader: _Reader, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    net.eval()
    parts = [net(reader.read(rows[i : i + 1024])) for i in range(0, len(rows), 1024)]
    return torch.cat(parts).numpy().astype(np.float64)
