"""Tie rings, slowly: what `graph.rings` documents, with dicts, sets and lists of names, and without a union-find.

Entities go by their names, for ever: numbers that are given back and reused cannot matter here. A forest keeps each
component as a list that is rebuilt at every union.

Ties of a vote: where several components hold equally many of a ring's accounts, the one met first on the way round the
old component wins. That way is a matter of history alone: where two components unite, the larger (the account's, if
they are equally large) goes first: its head, the other's tail, the other's head, its own tail.
"""

from dataclasses import dataclass, field

import networkx as nx

Name = tuple[str, str]  # (entity type, name)
REST, SCAN, CLAIM, READY = "rest", "scan", "claim", "ready"
COUNT_LIMIT, REACH = (1 << 16) - 1, (1 << 32) - 1


@dataclass(eq=False)
class PlainTie:
    """An account and an entity that it uses, or a payment of it that is a known fraud (`entity` None)."""

    key: tuple
    account: Name
    entity: Name | None
    role: str
    last: float
    entered: int = -1  # newest generation that holds it
    counted: bool = False


@dataclass
class PlainForest:
    """The ties of one generation that are in force."""

    edges: set[tuple[Name, Name]] = field(default_factory=set)  # (account, entity)
    component: dict[Name, list[Name]] = field(default_factory=dict)  # of each node met; members of one share the list
    frauds: dict[Name, int] = field(default_factory=dict)
    anchor: dict[int, Name] = field(default_factory=dict)  # living rings, in order of their claims; a node of each
    born: dict[int, int] = field(default_factory=dict)

    def meet(self, node: Name) -> None:
        self.component.setdefault(node, [node])

    def ring_of(self, node: Name) -> int | None:
        inside = [ring for ring, anchor in self.anchor.items() if self.component[anchor] is self.component[node]]
        assert len(inside) <= 1
        return inside[0] if inside else None

    def users(self, entity: Name) -> int:
        return sum(e == entity for _, e in self.edges)

    def shared(self, node: Name) -> int:
        return sum(self.users(other) >= 2 for other in self.component[node])

    def known_frauds(self, node: Name) -> int:
        return sum(self.frauds.get(other, 0) for other in self.component[node])

    def unite(self, account: Name, entity: Name) -> tuple[int, int] | None:
        """Tie two; the ring that retires by it and the one that takes its place, if any."""
        self.edges.add((account, entity))
        one, two = self.component[account], self.component[entity]
        if one is two:
            return None
        rings = [ring for ring in (self.ring_of(account), self.ring_of(entity)) if ring is not None]
        if len(one) < len(two):
            one, two = two, one
        merged = [one[0], *two[1:], two[0], *one[1:]]
        for node in merged:
            self.component[node] = merged
        if len(rings) < 2:
            return None
        del self.anchor[max(rings)]  # the older id survives
        return max(rings), min(rings)

    def check(self) -> None:
        """The lists are the connected components."""
        graph = nx.Graph(self.edges)
        graph.add_nodes_from(self.component)
        found = {frozenset(part) for part in nx.connected_components(graph)}
        assert found == {frozenset(part) for part in self.component.values()}


class PlainRings:
    """The rings of payments taken in one by one.

    Args:
        types: Entity type of each linking role.
        limits: Accounts above which an entity of each linking role is a hub.
        window_us: How long a tie lasts after its newest payment,
        window_rows: and for how many payments.
        min_accounts: That make a ring.
        stride: Ties, or members of rings, that the builder moves on by for each payment, at least.
        rest: Payments between a takeover and the next builder's start, at least.
    """

    def __init__(
        self,
        types: dict[str, str],
        limits: dict[str, int],
        window_us: int,
        window_rows: int,
        min_accounts: int = 3,
        stride: int = 4,
        rest: int = 0,
    ) -> None:
        self.types, self.limits, self.window_us, self.window_rows = types, limits, window_us, window_rows
        self.min_accounts, self.stride, self.rest = min_accounts, stride, rest
        self.live, self.builder = PlainForest(), PlainForest()
        self.ties: list[PlainTie] = []  # one that is dropped is replaced by the last
        self.accounts: set[Name] = set()
        self.times: list[int] = []
        self.clock = 0
        self.cut = 0  # oldest row inside the window
        self.phase, self.at, self.age, self.generation = REST, 0, 0, 0
        self.claims: list[int] = []
        self.heir: dict[int, int] = {}
        self.labels: dict[int, tuple[int, int]] = {}  # the newest report of each payment: when, and fraud or not
        self.seen = dict.fromkeys(
            ("retired", "split", "ended", "hub", "expired", "withdrawn", "revived", "superseded"), 0
        )

    def pay(self, time: int, entities: dict[str, str | None]) -> tuple[int, int, int, int]:
        """Take in a payment.

        Returns:
            Accounts, tying entities and known frauds of its ring, and 1 + rows back to the ring's founder, or 0.
        """
        row = len(self.times)
        self.clock = max(self.clock, time)
        self.times.append(self.clock)
        begin = max(0, row - self.window_rows)
        while self.times[begin] < self.times[row] - self.window_us:
            begin += 1
        self.cut = max(self.cut, begin)
        account = ("account", entities["account"])
        self.accounts.add(account)
        self.live.meet(account)
        for role, kind in self.types.items():
            entity = (kind, entities.get(role))
            if entity[1] is None or entity == account:
                continue
            if role == "payee":
                self.accounts.add(entity)
            tie = self._tie((account, entity), account, entity, role, row)
            tie.last = row
            self._renew(tie)
        ring = self.live.ring_of(account)
        members = self._accounts(self.live, account)
        if ring is None and len(members) >= self.min_accounts:
            ring = row
            self.live.anchor[ring], self.live.born[ring] = account, self.times[row]
        out = (
            min(len(members), COUNT_LIMIT),
            min(self.live.shared(account), COUNT_LIMIT),
            min(self.live.known_frauds(account), COUNT_LIMIT),
            0 if ring is None else min(row - ring + 1, REACH),
        )
        self.age += 1
        if self.phase == REST and self.age > self.rest:
            self.phase = SCAN
        if self.phase != REST:
            self._advance()
        return out

    def label(self, row: int, account: str, fraud: int, time: int) -> None:
        """Take in a label of a payment."""
        self.clock = max(self.clock, time)
        reported, believed = self.labels.get(row, (time, 0))
        if time < reported:
            self.seen["superseded"] += 1
            return
        self.labels[row] = time, fraud
        change = fraud - believed
        if change == 0 or row < self.cut:
            return
        key, who = (row,), ("account", account)
        if change > 0:
            tie = self._tie(key, who, None, "", row)
            tie.last = row
            self._renew(tie)
            return
        for tie in [t for t in self.ties if t.key == key]:
            self.seen["withdrawn"] += 1
            if tie.entered >= self.generation:
                self.live.frauds[who] -= 1
            if tie.entered > self.generation:
                self.builder.frauds[who] -= 1
            tie.entered, tie.last = -1, float("-inf")

    def table(self) -> dict[int, set[str]]:
        """Names of every ring's accounts."""
        return {ring: {n for _, n in self._accounts(self.live, at)} for ring, at in self.live.anchor.items()}

    def known_frauds(self, ring: int) -> int:
        return self.live.known_frauds(self.live.anchor[ring])

    def leads_to(self, ring: int) -> int | None:
        """The living ring that an id stands for."""
        while ring not in self.live.anchor:
            if ring not in self.heir:
                return None
            ring = self.heir[ring]
        return ring

    def _tie(self, key: tuple, account: Name, entity: Name | None, role: str, row: int) -> PlainTie:
        for tie in self.ties:
            if tie.key == key:
                return tie
        self.ties.append(PlainTie(key, account, entity, role, row))
        return self.ties[-1]

    def _accounts(self, forest: PlainForest, node: Name) -> list[Name]:
        return [other for other in forest.component[node] if other in self.accounts]

    def _is_hub(self, tie: PlainTie) -> bool:
        """Too many accounts use the entity, or (by transfers) the account pays too many: counted over all ties."""
        counted = [t for t in self.ties if t.counted and t.entity is not None]
        users = sum(t.entity == tie.entity for t in counted)
        fan = sum(t.account == tie.account and t.role == "payee" for t in counted) if tie.role == "payee" else 0
        return users > self.limits[tie.role] or fan > self.limits[tie.role]

    def _enter(self, forest: PlainForest, tie: PlainTie) -> None:
        if tie.entity is None:
            forest.meet(tie.account)
            forest.frauds[tie.account] = forest.frauds.get(tie.account, 0) + 1
            return
        if self._is_hub(tie):
            self.seen["hub"] += 1
            return
        forest.meet(tie.account)
        forest.meet(tie.entity)
        if (retired := forest.unite(tie.account, tie.entity)) is not None:
            self.seen["retired"] += 1
            self.heir[retired[0]] = retired[1]

    def _renew(self, tie: PlainTie) -> None:
        tie.counted = True
        if tie.entered < self.generation:
            tie.entered = self.generation
            self._enter(self.live, tie)
        if tie.entered == self.generation and (self.phase == CLAIM or self.ties.index(tie) < self.at):
            tie.entered = self.generation + 1
            self._enter(self.builder, tie)

    def _advance(self) -> None:
        left = max(self.stride, 4 * len(self.ties) // self.window_rows)  # four scans, at least, to a window
        while left > 0 and self.phase != READY:
            if self.phase == SCAN and self.at < len(self.ties):
                left -= 1
                tie = self.ties[self.at]
                if tie.last >= self.cut:
                    tie.entered = self.generation + 1
                    self._enter(self.builder, tie)
                elif tie.entered < self.generation:  # it was left out by the scan before
                    self.seen["expired"] += 1
                    last = self.ties.pop()
                    if last is not tie:
                        self.ties[self.at] = last
                    continue
                else:
                    tie.counted = False
                self.at += 1
            elif self.phase == SCAN:
                self.phase, self.at = CLAIM, 0
                self.claims = []
            elif (ring := self._next_claim()) is not None:
                left -= self._claim(ring)
            else:
                self.phase = READY
        if self.phase == READY:
            self._take_over()

    def _next_claim(self) -> int | None:
        """The oldest ring that has not had its turn; one that has merged since the builder began has a turn, too."""
        waiting = [ring for ring in self.live.born if ring not in self.claims]
        return min(waiting) if waiting else None

    def _claim(self, ring: int) -> int:
        """Hand a ring's id to the component that holds most of its accounts; nodes looked at."""
        self.claims.append(ring)
        if ring not in self.live.anchor:
            return 1
        old = self.live.component[self.live.anchor[ring]]
        votes: dict[int, list[Name]] = {}  # of each component, in order of its first voter
        for node in old:
            if node in self.accounts and node in self.builder.component:
                votes.setdefault(id(self.builder.component[node]), []).append(node)
        if votes:
            voters = max(votes.values(), key=len)  # of equals the first
            taken = self.builder.ring_of(voters[0])
            if taken is not None:
                self.seen["retired"] += 1
                self.heir[ring] = taken
            elif len(self._accounts(self.builder, voters[0])) >= self.min_accounts:
                self.builder.anchor[ring], self.builder.born[ring] = voters[0], self.live.born[ring]
        return len(old)

    def _take_over(self) -> None:
        for ring, anchor in self.live.anchor.items():
            parts = {
                id(self.builder.component[n]) for n in self._accounts(self.live, anchor) if n in self.builder.component
            }
            self.seen["split"] += ring in self.builder.anchor and len(parts) > 1
            self.seen["ended"] += ring not in self.builder.anchor and self.heir.get(ring) not in self.builder.anchor
        self.seen["revived"] += len(self.builder.anchor.keys() - self.live.anchor.keys())
        self.live, self.builder = self.builder, PlainForest()
        self.phase, self.at, self.age, self.generation = REST, 0, 0, self.generation + 1
