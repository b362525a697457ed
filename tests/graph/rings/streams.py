"""Small random streams in which rings merge, split, expire and end all the time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from data.journal.protocol import Events, Kind
from graph.dag.protocol import DAY_US, Window
from graph.rings.index import RingIndex
from graph.rings.protocol import RingMaker
from graph.state import GraphState
from tests.graph.history import payments
from tests.graph.rings.plain import PlainRings
from tests.world import START_US, reports

TYPES = {"device": "device", "card": "card", "payee": "account"}


@dataclass(frozen=True)
class Rule:
    """How rings are kept; small enough that everything happens within a hundred payments."""

    last: str = "card"  # the other linking role beside devices
    window_rows: int = 24
    window_days: int = 5
    limit: int = 3
    min_accounts: int = 3
    stride: int = 3
    rest: int = 2
    spare: int = 5  # slots beyond the window: entities give their numbers back soon

    def engine(self, *, listen: bool = False) -> RingMaker:
        limits = {"device": self.limit, self.last: self.limit}
        days = self.window_days * DAY_US
        return partial(
            RingIndex,
            window_us=days,
            max_accounts=limits,
            min_accounts=self.min_accounts,
            stride=self.stride,
            rest=self.rest,
            listen=listen,
        )

    def state(self, *, listen: bool = False) -> GraphState:
        roles = ("account", "merchant", "device", self.last)
        window = Window(self.window_rows, 90 * DAY_US)
        return GraphState(roles, self.window_rows + self.spare, window, rings=self.engine(listen=listen))

    def plain(self) -> PlainRings:
        types = {role: TYPES[role] for role in ("device", self.last)}
        limits = dict.fromkeys(types, self.limit)
        days = self.window_days * DAY_US
        return PlainRings(types, limits, days, self.window_rows, self.min_accounts, self.stride, self.rest)


@dataclass(frozen=True)
class Step:
    """A payment (its entities by role), or a label of an earlier one."""

    time: int
    entities: dict[str, int] | None
    row: int = -1
    account: int = -1
    fraud: int = 0

    def names(self) -> dict[str, str | None]:
        letter = {"account": "a", "merchant": "m", "device": "d", "card": "c", "payee": "a"}
        return {role: f"{letter[role]}{i}" if i >= 0 else None for role, i in (self.entities or {}).items()}

    def events(self, rows: int, offset: int) -> Events:
        if self.entities is None:
            return Events(Kind.LABEL, offset, reports([f"t{self.row}"], [bool(self.fraud)], [self.time]))
        entities = {role: [i] for role, i in self.entities.items()}
        return Events(Kind.TRANSACTION, offset, payments(rows, entities, [self.time], [100 + rows]))


def steps(seed: int, n: int, last: str) -> Iterator[Step]:
    """Payments of accounts that share things for a while and are followed by others, and labels, some overturned.

    Some labels come long after they were reported, and behind later ones.
    """
    rng, late = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    fresh, spread = rng.choice([0.02, 0.1, 0.25]), int(rng.integers(5, 14))
    time, accounts = START_US, []
    for row in range(n):
        base = int(row * fresh)
        account = base + int(rng.integers(spread))
        device = (base + int(rng.integers(spread))) if rng.random() < 0.7 else -1
        other = (base + int(rng.integers(spread))) // 2 if rng.random() < 0.5 else -1
        time += int(rng.choice([0, 1, 6, 30], p=[0.2, 0.4, 0.35, 0.05])) * DAY_US // 24
        yield Step(time, {"account": account, "merchant": 0, "device": device, last: other})
        accounts.append(account)
        while rng.random() < 0.35:
            back = max(0, row - int(rng.integers(40)))
            reported = time - int(late.choice([0, 0, 2, 20])) * DAY_US
            yield Step(reported, None, back, accounts[back], int(rng.random() < 0.6))
