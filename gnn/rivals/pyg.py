"""The network in PyG over the trees of `graph.bridges.to_hetero_data`, and PyG's explainers on it: an offline check.

PyG hides the edges of a relation by a mask on its messages, so the same network is written here once more as message
passing. Reasons leave evidence out and add up; GNNExplainer (Ying et al., NeurIPS 2019) learns a soft mask of edges
that keeps the score with few of them. Where both find the same roles weighty, neither is an artefact of its method. It
takes seconds for a payment.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

from gnn.model.groups import OWN_GROUPS, group_names
from gnn.model.network import EDGE_SCALE, AttentionLayer, RingwatchNet
from gnn.score.protocol import Scorer
from gnn.score.shapley import all_masks, exact_values
from graph.bridges import to_hetero_data
from graph.dag.protocol import Store

Relation = tuple[str, str, str]


def relation(role: str) -> Relation:
    """The edges by which a payment reads the past payments of an entity."""
    return ("payment", f"before_by_{role}", "payment")


class RoleAttention(MessagePassing):
    """What one layer reads by one role; the sum of its messages is what `AttentionLayer.attend` mixes."""

    def __init__(self, layer: AttentionLayer, role: int) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.role = role
        self.of = [layer]  # in a list: not a part of this module
        self.heads, self.size = layer.config.heads, layer.config.width // layer.config.heads

    def forward(self, h: Tensor, kv: Tensor, edge_index: Tensor, tie: Tensor) -> Tensor:
        """What payments read by this role.

        Args:
            h: Embeddings below the layer, float32 [N, D].
            kv: Keys and values, float32 [N, 2D].
            edge_index: From a past payment to its reader, int64 [2, E].
            tie: Edge features, float32 [E, EDGE].

        Returns:
            float32 [N, read].
        """
        layer = self.of[0]
        q = (h @ layer.q_w[self.role] + layer.q_b[self.role]).view(-1, self.heads, self.size)
        key, value = kv.view(len(kv), 2, self.heads, self.size).unbind(1)
        out: Tensor = self.propagate(edge_index, q=q, key=key, value=value, tie=tie, size=(len(h), len(h)))
        return out

    def message(self, q_i: Tensor, key_j: Tensor, value_j: Tensor, tie: Tensor, index: Tensor, size_i: int) -> Tensor:
        """What each edge adds to its reader, weighted by attention among the reader's edges, float32 [E, read]."""
        layer, r = self.of[0], self.role
        bias = torch.relu(tie @ layer.bias_w1[r] + layer.bias_b1[r]) @ layer.bias_w2[r] + layer.bias_b2[r]
        weight = softmax((q_i * key_j).sum(-1) / self.size**0.5 + bias, index, num_nodes=size_i)[..., None]
        share = torch.full((len(tie), 1), 1 / layer.config.neighbours)
        return torch.cat(
            [(weight * value_j).flatten(1), (weight * tie[:, None]).flatten(1), tie * EDGE_SCALE, share], 1
        )


class HeteroRingwatch(nn.Module):
    """A trained network over PyG's dictionaries; scores every payment of the trees, the seeds rightly.

    Args:
        net: The network, on the CPU.
    """

    def __init__(self, net: RingwatchNet) -> None:
        super().__init__()
        self.net = net.eval()
        roles = net.config.roles
        # PyG finds what to mask by the names of relations in module dictionaries.
        self.reads = nn.ModuleList(
            nn.ModuleDict({"__".join(relation(role)): RoleAttention(net.layer(i), r) for r, role in enumerate(roles)})
            for i in range(net.config.layers)
        )

    def forward(
        self,
        x_dict: dict[str, Tensor],
        edge_index_dict: dict[Relation, Tensor],
        category: Tensor,
        tie_dict: dict[Relation, Tensor],
    ) -> Tensor:
        """Uncalibrated log-odds of all payments, float32 [N]."""
        net = self.net
        h = net.encode(x_dict["payment"], category)
        logit = torch.zeros(len(h))
        for i, reads in enumerate(self.reads):
            assert isinstance(reads, nn.ModuleDict)
            layer = net.layer(i)
            kv = layer.rounded(layer.keys_values(h))
            read = [
                reads["__".join(e)](h, kv, edge_index_dict[e], tie_dict[e])
                if e in edge_index_dict
                else h.new_zeros(len(h), net.config.read)
                for e in map(relation, net.config.roles)
            ]
            mixed = torch.relu(torch.cat([h, *read], 1) @ layer.mix_w + layer.mix_b)
            logit = logit + torch.relu(mixed @ layer.head_w1 + layer.head_b1) @ layer.head_w2 + layer.head_b2
            h = h + mixed @ layer.out_w + layer.out_b
        return logit


def hetero_inputs(store: Store, net: RingwatchNet, rows: NDArray[np.int64]) -> dict[str, Any]:
    """The arguments of `HeteroRingwatch` for payments, whose scores are the first of its answer."""
    data = to_hetero_data(store, rows, net.config.neighbours, net.config.layers, settle_us=net.config.settle_us)
    relations = [relation(role) for role in net.config.roles]
    category = store.column("category", data["payment"].row.numpy()).astype(np.int64)
    return {
        "x_dict": {"payment": data["payment"].x},
        "edge_index_dict": {e: data[e].edge_index for e in relations},
        "category": torch.from_numpy(category),
        "tie_dict": {e: data[e].edge_attr for e in relations},
    }


def learnt_importance(
    net: RingwatchNet, store: Store, row: int, epochs: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """How much of what each role reads GNNExplainer keeps, so that the score stays.

    Args:
        net: The network, on the CPU.
        store: The graph.
        row: A payment.
        epochs: Steps of the explainer.
        seed: Of its masks.

    Returns:
        The sum of the mask over the edges by which the payment itself reads, by role, float64 [R].
    """
    torch.manual_seed(seed)
    inputs = hetero_inputs(store, net, np.array([row]))
    there = [e for e, pairs in inputs["edge_index_dict"].items() if pairs.shape[1]]
    explainer = Explainer(
        HeteroRingwatch(net),
        GNNExplainer(epochs=epochs, lr=0.05, edge_size=0.01, edge_ent=0.1),
        explanation_type="model",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    x = inputs.pop("x_dict")
    edges = {e: inputs["edge_index_dict"][e] for e in there}
    masks = explainer(
        x, edges, index=0, category=inputs["category"], tie_dict={e: inputs["tie_dict"][e] for e in there}
    ).edge_mask_dict
    kept = [float(masks[e][edges[e][1] == 0].sum()) if e in masks else 0.0 for e in map(relation, net.config.roles)]
    return np.array(kept)


@dataclass(frozen=True)
class Agreement:
    """How far GNNExplainer and the Shapley values order roles alike.

    Attributes:
        payments: Compared; those that read by two roles at least.
        by_payment: Mean rank correlation over payments (Spearman), over the roles by which each reads.
        overall: Rank correlation of the roles' means over payments.
    """

    payments: int
    by_payment: float
    overall: float


def agreement(scorer: Scorer, rows: NDArray[np.int64], epochs: int = 100, seed: int = 0) -> Agreement:
    """Compare what each role's history adds with what GNNExplainer keeps of it.

    Args:
        scorer: On the CPU.
        rows: Payments that it scored, int64 [n].
        epochs: Of GNNExplainer.
        seed: Of GNNExplainer's masks.
    """
    net, store = scorer.artifact.net, scorer.state.store
    worth = scorer.score_ablated(rows, all_masks(len(group_names(net.config.roles))))
    ours = np.abs(exact_values(worth)[:, len(OWN_GROUPS) :])
    reads = (store.neighbours(rows, 1) >= 0)[..., 0]
    some = np.flatnonzero(reads.sum(1) > 1)
    theirs = np.array([learnt_importance(net, store, int(row), epochs, seed) for row in rows[some]])
    ours, reads = ours[some], reads[some]
    each = [spearmanr(a[r], b[r]).statistic for a, b, r in zip(ours, theirs, reads, strict=True)]
    return Agreement(len(some), float(np.mean(each)), float(spearmanr(ours.mean(0), theirs.mean(0)).statistic))
