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

from gnn.train import Targets
from graph.bridges import to_hetero_data
from graph.sampler import EDGE_FEATURES
from graph.state import GraphState

WIDTH = 32
NEAR = 4  # past payments of each entity, in each of two hops
BATCH = 512
NEGATIVES = 5  # for each fraud, redrawn every epoch
MOST = 24_000  # payments an epoch
JUDGED = 6_000  # validation payments that choose the epoch


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
    *,
    epochs: int = 3,
    seed: int = 0,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Train on what the model was trained on, and score rows of a graph; log-odds, float64 [n]."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    fraud, train = targets.fraud, targets.train
    positive, negative = train[fraud[train] > 0], train[fraud[train] == 0]
    drawn = min(len(negative), NEGATIVES * len(positive), MOST)
    validation = targets.validation
    if len(validation) > JUDGED:
        known = validation[fraud[validation] > 0]
        rest = rng.choice(validation, JUDGED, replace=False)
        validation = np.unique(np.concatenate([known, rest]))
    sample = to_hetero_data(past.store, np.sort(rng.choice(train, min(len(train), 5_000), replace=False)), 1, 1)
    inputs = sample["payment"].x.shape[1]
    net = ResearchNet(inputs, past.store.roles)
    net.mean.copy_(sample["payment"].x.mean(0))
    net.scale.copy_(1 / sample["payment"].x.std(0).clamp(min=1e-3))
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    best, best_ap, history = net.state_dict(), -1.0, []
    for _ in range(epochs):
        net.train()
        chosen = np.concatenate(
            [rng.permutation(positive)[: MOST // NEGATIVES], rng.choice(negative, drawn, replace=False)]
        )
        rng.shuffle(chosen)
        for i in range(0, len(chosen), BATCH):
            seeds = chosen[i : i + BATCH]
            loss = nn.functional.binary_cross_entropy_with_logits(
                net(to_hetero_data(past.store, seeds, NEAR)), torch.from_numpy(fraud[seeds])
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        ap = float(average_precision_score(fraud[validation] > 0, _score(net, past, validation)))
        history.append(ap)
        if ap > best_ap:
            best, best_ap = {name: value.clone() for name, value in net.state_dict().items()}, ap
    net.load_state_dict(best)
    return _score(net, graph, rows), {"validation_ap": history, "near": NEAR, "width": WIDTH, "negatives": NEGATIVES}


@torch.no_grad()
def _score(net: ResearchNet, graph: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    net.eval()
    parts = [net(to_hetero_data(graph.store, rows[i : i + 2048], NEAR)) for i in range(0, len(rows), 2048)]
    return torch.cat(parts).numpy().astype(np.float64)
