"""How likely a community is a ring: a few features of it, and the logistic function of their weighted sum."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from graph.rings.risk.tables import QUANTUM, Rules, Tables
from graph.rings.risk.touched import Touched

FEATURES: Final = (
    "accounts",  # log2
    "frauds",  # log2 of 1 + known frauds among the evidence
    "risk",  # log2 of 1 + the sum of the evidence's risk
    "mean_risk",  # of the evidence
    "share",  # mean share of risky payments at what ties, over ties
    "density",  # ties of those possible
    "new_accounts",  # share of accounts first seen within NEW_US
    "rare",  # share of ties through entities that few payments have
    "busy",  # share of its accounts' payments that are evidence
    "span",  # log2 of 1 + days from its oldest to its newest evidence
    "burst",  # share of the evidence within BURST_US of the newest
    "others",  # log2 of 1 + entities that tie
)
NEW_US: Final = 21 * 86_400_000_000
BURST_US: Final = 2 * 86_400_000_000
RARE: Final = 40
DAY: Final = 86_400_000_000


@jit()
def features_of(
    t: Tables, part: Touched, community: NDArray[np.int64], communities: int, ring: NDArray[np.int64], clock: int
) -> NDArray[np.float64]:
    """Features of each community that is a ring, float64 [communities, F]; `ring` holds -1 for those that are none.

    Args:
        t: The tables; each payment's `ring` says whether it is evidence.
        part: What was touched.
        community: Of each node.
        communities: How many.
        ring: Ring of each community, or -1.
        clock: Journal time, us.
    """
    x = np.zeros((communities, len(FEATURES)), np.float64)
    accounts, others = np.zeros(communities), np.zeros(communities)
    own, paid, evidence = np.zeros(communities), np.zeros(communities), np.zeros(communities)
    newest = np.zeros(communities, np.int64)
    oldest = np.full(communities, np.int64(1) << 62)
    frauds, risk, burst, ties = (
        np.zeros(communities),
        np.zeros(communities),
        np.zeros(communities),
        np.zeros(communities),
    )
    for i in range(len(part.node)):
        c = community[i]
        e = t.entities[part.node[i]]
        if ring[c] < 0:
            continue
        if part.is_account[i]:
            accounts[c] += 1
            own[c] += e.own
            if clock - e.since < NEW_US:
                x[c, 6] += 1
        if part.meets[i] >= 2:
            others[c] += 1
    for i in range(len(part.a)):
        c = community[part.a[i]]
        if ring[c] < 0 or community[part.b[i]] != c:
            continue
        e = t.entities[part.node[part.b[i]]]
        ties[c] += 1
        x[c, 4] += min(1.0, e.risk / (QUANTUM * max(1.0, np.float64(e.others))))
        if e.others <= RARE:
            x[c, 7] += 1
    for pass_ in range(2):
        for place in part.place:
            k = t.ring[place] - 1
            if k < 0:
                continue
            c = np.int64(t.rings[k].local - 1)
            if pass_ == 0:
                evidence[c] += 1
                risk[c] += t.quanta[place]
                frauds[c] += t.fraud[place]
                paid[c] += 1
                newest[c] = max(newest[c], t.time[place])
                oldest[c] = min(oldest[c], t.time[place])
            elif newest[c] - t.time[place] <= BURST_US:
                burst[c] += 1
    for c in range(communities):
        if ring[c] < 0:
            continue
        n, some = evidence[c], max(1.0, evidence[c])
        x[c, 0] = np.log2(accounts[c])
        x[c, 1] = np.log2(1 + frauds[c])
        x[c, 2] = np.log2(1 + risk[c] / QUANTUM)
        x[c, 3] = risk[c] / QUANTUM / some
        x[c, 4] /= max(1.0, ties[c])
        x[c, 5] = min(1.0, ties[c] / max(1.0, accounts[c] * others[c]))
        x[c, 6] /= max(1.0, accounts[c])
        x[c, 7] /= max(1.0, ties[c])
        x[c, 8] = min(1.0, n / max(1.0, own[c]))
        x[c, 9] = np.log2(1 + max(0, newest[c] - oldest[c]) / DAY)
        x[c, 10] = burst[c] / some
        x[c, 11] = np.log2(1 + others[c])
    return x


@jit()
def confidence_of(rules: Rules, x: NDArray[np.float64]) -> float:
    """Calibrated probability that a community with these features is a ring."""
    total = rules.weights[len(x)]
    for i in range(len(x)):
        total += rules.weights[i] * x[i]
    return 1.0 / (1.0 + np.exp(-total))
