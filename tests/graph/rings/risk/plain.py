"""Communities of risky payments, computed anew from nothing but lists and dictionaries: the oracle of the engine."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from graph.rings.risk.settings import RiskSettings

QUANTUM = 255


@dataclass
class PlainPayment:
    """A payment as the oracle sees it; `entities` by role, the account first, None where there is none."""

    row: int
    time: int
    entities: tuple[int | None, ...]
    probability: float
    known: int = -1  # 1 fraud, 0 legitimate, -1 nothing

    def quanta(self, tau: float) -> int:
        """Its risk, 0 where it is not risky."""
        if self.known == 1:
            return QUANTUM
        if self.known == 0 or self.probability < tau:
            return 0
        return max(1, min(QUANTUM, math.floor(self.probability * QUANTUM + 0.5)))


def levels(payments: Sequence[PlainPayment], s: RiskSettings) -> dict[int, int]:
    """How strongly each entity ties, by all payments inside the window."""
    others: dict[int, int] = defaultdict(int)
    risk: dict[int, int] = defaultdict(int)
    spends = {p.entities[0] for p in payments if p.quanta(s.tau)}
    for p in payments:
        for node in p.entities[1:]:
            if node is not None:
                others[node] += 1
                risk[node] += p.quanta(s.tau)
    found = {}
    for node, quanta in risk.items():
        k, expected = quanta / QUANTUM, s.base * others[node]
        if not quanta or k < s.share * others[node]:
            continue
        surprise = k * math.log(k / expected) - (k - expected) + (s.passing if node in spends else 0.0)
        level = sum(surprise >= least for least in s.surprises)
        if level:
            found[node] = level
    return found


def rings(payments: Sequence[PlainPayment], payee: int, s: RiskSettings) -> list[set[int]]:
    """Accounts of each community that is large enough; `payee` is the column of the payee, -1 for none."""
    level = levels(payments, s)
    number: dict[int, int] = {}
    accounts: set[int] = set()
    count: dict[tuple[int, int], int] = defaultdict(int)
    for p in sorted((p for p in payments if p.quanta(s.tau)), key=lambda p: p.row):
        for r, node in enumerate(p.entities):
            if node is None or (r and node not in level):
                continue
            number.setdefault(node, len(number))
            if r in (0, payee):
                accounts.add(node)
            if r and node != p.entities[0]:
                count[p.entities[0], node] += 1  # type: ignore[index]
    meets: dict[int, int] = defaultdict(int)
    for _, node in count:
        meets[node] += 1
    for node in meets:
        meets[node] += node in accounts
    ties = [
        (number[a], number[b], max(1, 12 * level[b] * min(n, 3) // meets[b].bit_length()))
        for (a, b), n in count.items()
        if meets[b] >= 2
    ]
    names = {n: node for node, n in number.items()}
    found: dict[int, set[int]] = defaultdict(set)
    for n, community in enumerate(louvain(len(number), ties, s.resolution)):
        if names[n] in accounts:
            found[community].add(names[n])
    return [members for members in found.values() if len(members) >= s.min_accounts]


def louvain(nodes: int, ties: Sequence[tuple[int, int, int]], resolution: int) -> list[int]:
    """Communities by number, as `graph.rings.risk.communities.louvain` says; dictionaries all the way."""
    component = list(range(nodes))
    for _ in range(nodes):
        for a, b, _w in ties:
            component[a] = component[b] = min(component[a], component[b])
        if all(component[a] == component[b] for a, b, _w in ties):
            break
    whole: dict[int, int] = defaultdict(int)
    for a, _b, w in ties:
        whole[component[a]] += 2 * w
    groups = [[n] for n in range(nodes)]  # of original nodes
    while True:
        of = {n: g for g, members in enumerate(groups) for n in members}
        weight: dict[tuple[int, int], int] = defaultdict(int)
        inner: dict[int, int] = defaultdict(int)
        for a, b, w in ties:
            if of[a] == of[b]:
                inner[of[a]] += 2 * w
            else:
                weight[of[a], of[b]] += w
                weight[of[b], of[a]] += w
        degree = {g: inner[g] + sum(w for (x, _), w in weight.items() if x == g) for g in range(len(groups))}
        to, ever, n = list(range(len(groups))), False, len(groups)
        for _ in range(32):
            moved = False
            for g, members in enumerate(groups):
                near: dict[int, int] = defaultdict(int)
                for (x, y), w in weight.items():
                    if x == g:
                        near[to[y]] += w
                if not near:
                    continue
                m = whole[component[members[0]]]
                total = {c: sum(degree[x] for x in range(n) if to[x] == c and x != g) for c in {*near, to[g]}}
                gain = {c: 100 * near.get(c, 0) * m - resolution * total[c] * degree[g] for c in total}
                best = max(gain.values())
                if best > gain[to[g]]:
                    to[g] = min(c for c in near if gain[c] == best)
                    moved = ever = True
            if not moved:
                break
        merged: dict[int, list[int]] = {}
        for g, members in enumerate(groups):
            merged.setdefault(to[g], []).extend(members)
        groups = list(merged.values())
        if not ever:
            break
    found = [0] * nodes
    for g, members in enumerate(groups):
        for n in members:
            found[n] = g
    return found
