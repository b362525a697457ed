"""An auxiliary task: from its embedding a payment tells what becomes of the entities that it touches.

A score teaches an embedding about its own payment alone, while later payments read it to learn about the account, the
device and the merchant. So while a layer learns, heads on its embedding predict, besides the payment's own label, the
share of fraud among the next payments of each of its entities; a ring's first payments teach what their own label,
"legitimate", does not. The heads are thrown away. Deep supervision after Lee et al. (AISTATS 2015).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graph.dag.protocol import Store

PAYMENTS_AHEAD = 8  # later payments of an entity whose share of fraud is predicted


def prospects(store: Store, fraud: NDArray[np.float32], known: NDArray[np.int64]) -> NDArray[np.float32]:
    """The share of fraud among the next payments of each entity.

    Args:
        store: The graph.
        fraud: Of every row, float32 [N].
        known: Rows whose label may teach, int64, ascending; only these are counted, and only these have a share.

    Returns:
        Shares of at most `PAYMENTS_AHEAD` later payments, NaN where there is none, float32 [N, R].
    """
    out = np.full((store.rows, len(store.roles)), np.nan, np.float32)
    entity = store.column("entity", known)
    for role in range(len(store.roles)):
        there = entity[:, role] >= 0
        order = np.argsort(entity[there, role], kind="stable")
        rows, node = known[there][order], entity[there, role][order]
        before = np.concatenate([[0.0], np.cumsum(fraud[rows])])
        first = np.arange(len(rows)) + 1
        last = np.minimum(first + PAYMENTS_AHEAD, np.searchsorted(node, node, "right"))
        more = last > first
        out[rows[more], role] = ((before[last] - before[first]) / np.maximum(last - first, 1))[more]
    return out


class ProspectHeads(nn.Module):
    """Predicts from an embedding whether the payment is fraud, and what becomes of its entities."""

    def __init__(self, width: int, roles: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, 1 + roles)

    def loss(self, h: Tensor, fraud: Tensor, share: Tensor) -> Tensor:
        """The mean loss of embeddings [B, D] for labels [B] and shares [B, R]; those that are NaN do not count."""
        target = torch.cat([fraud[:, None], share], 1)
        there = ~target.isnan()
        return nn.functional.binary_cross_entropy_with_logits(self.out(h)[there], target[there])
