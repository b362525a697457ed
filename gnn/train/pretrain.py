"""Self-supervised pre-training: what an account does next teaches a layer before any label does.

Every payment of history, reported or not, tells what came before the account's next one, so scarce labels begin from
embeddings that already know habits. A layer predicts from a payment's embedding the next payment's merchant (one of
`MERCHANT_BUCKETS` by hashing), its amount and the time until it; the heads that do so are thrown away. After next-event
pre-training of payment sequences (Padhi et al., ICASSP 2021; Babaev et al., SIGMOD 2022).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from graph.dag.protocol import Store

MERCHANT_BUCKETS = 256
NO_MERCHANT = -100  # what `cross_entropy` leaves out


@dataclass(frozen=True)
class NextPayments:
    """Payments whose account pays again, and that next payment.

    Attributes:
        rows: Payments, int64 [n], ascending.
        merchant: Bucket of the next one's merchant, int64 [n]; `NO_MERCHANT` where it has none.
        numbers: Logarithms of its amount (minor units) and of the time to it (s), in standard deviations, float32
            [n, 2].
    """

    rows: NDArray[np.int64]
    merchant: NDArray[np.int64]
    numbers: NDArray[np.float32]


def next_payments(store: Store, end: int) -> NextPayments:
    """Pairs of an account's payments one after the other, of rows before `end` alone: later ones are not known yet."""
    rows = np.arange(end)
    before = rows - store.column("prev", rows)[:, 0]
    entity = store.column("entity", rows)
    # An account's row before this may be one in which it was paid: of those the network learns nothing here.
    pair = np.flatnonzero((before < rows) & (entity[before, 0] == entity[:, 0]) & (entity[:, 0] >= 0))
    first = before[pair]
    if not len(pair):  # every account pays once
        return NextPayments(first, np.zeros(0, np.int64), np.zeros((0, 2), np.float32))
    merchant = np.full(len(pair), -1, np.int64)
    if "merchant" in store.roles:
        merchant = entity[pair, store.roles.index("merchant")].astype(np.int64)
    time = store.column("time")
    numbers = np.log1p(np.stack([store.column("amount", pair), (time[pair] - time[first]) / 1e6], 1).astype(np.float64))
    order = np.argsort(first, kind="stable")
    return NextPayments(
        rows=first[order],
        merchant=np.where(merchant >= 0, merchant * 2654435761 % (1 << 32) % MERCHANT_BUCKETS, NO_MERCHANT)[order],
        numbers=((numbers - numbers.mean(0)) / np.maximum(numbers.std(0), 1e-3)).astype(np.float32)[order],
    )


class NextPaymentHeads(nn.Module):
    """Predicts the next payment from an embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.merchant = nn.Linear(width, MERCHANT_BUCKETS)
        self.numbers = nn.Linear(width, 2)

    def loss(self, h: Tensor, merchant: Tensor, numbers: Tensor) -> Tensor:
        """The mean loss of embeddings [B, D] for `NextPayments` of as many rows, merchants and numbers alike."""
        named = nn.functional.cross_entropy(self.merchant(h), merchant, reduction="sum") / np.log(MERCHANT_BUCKETS)
        known = (merchant != NO_MERCHANT).sum().clamp(min=1)
        return named / known + nn.functional.smooth_l1_loss(self.numbers(h), numbers)
