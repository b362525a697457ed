"""The graph's oracle: the same definitions by scanning a list of payments, slowly and without a single pointer."""

import math
from dataclasses import dataclass, field

import numpy as np

from graph.dag.features import BAND_US, BANDS, DEPTH, NEVER_S, SETTLED_FEATURES, WINDOWS_US, counterparts
from graph.dag.protocol import NEVER_US, Window


@dataclass
class PlainRow:
    entity: tuple[int, ...]  # one node for each role, -1 missing
    time: int
    raw_time: int
    amount: int
    offset: int
    labels: list[tuple[int, int, int]] = field(default_factory=list)  # (when reported, offset, fraud)


@dataclass
class PlainGraph:
    role_type: tuple[int, ...]
    window: Window
    rows: list[PlainRow] = field(default_factory=list)
    clock: int = 0
    offset: int = 0
    oldest: int = 0  # rows before this one have left the buffer
    settle_us: int = NEVER_US  # the reader's: age at which a payment without a label counts as legitimate

    def append(self, entity: tuple[int, ...], time: int, amount: int) -> None:
        self.clock = max(self.clock, time)
        self.rows.append(PlainRow(entity, self.clock, time, amount, self.offset))
        self.offset += 1

    def label(self, row: int, fraud: int, time: int) -> None:
        self.clock = max(self.clock, time)
        self.rows[row].labels.append((time, self.offset, fraud))
        self.offset += 1

    def believed(self, row: int, offset: int) -> int:
        """By the newest report among those that had come; of two at once, the one that came later."""
        return max((label for label in self.rows[row].labels if label[1] < offset), default=(0, 0, -1))[2]

    def chain(self, row: int, role: int, span_us: int) -> list[int]:
        """Earlier rows of the entity in any role of its type, newest first, inside the window and the span."""
        here = self.rows[row]
        node = here.entity[role]
        if node < 0:
            return []
        out = []
        for back in range(row - 1, max(self.oldest, row - self.window.rows) - 1, -1):
            there = self.rows[back]
            touches = any(
                there.entity[q] == node and self.role_type[q] == self.role_type[role] for q in range(len(there.entity))
            )
            if touches and here.time - there.time <= span_us:
                out.append(back)
        return out

    def edge(self, row: int, role: int, back: int) -> dict[str, float]:
        """What ties an earlier row to its reader, by the names of `EDGE_FEATURES`."""
        here, there = self.rows[row], self.rows[back]
        belief, age = self.believed(back, here.offset), (here.time - there.time) / 1e6
        return {
            "age": math.log1p(age) / 16,
            "labelled": float(belief >= 0),
            "fraud": float(belief == 1),
            "settled": float(belief >= 0 or here.time - there.time >= self.settle_us),
            "amount_gap": math.log1p(here.amount) - math.log1p(there.amount),
            "recent_day": math.exp(-age / 86_400),
            "recent_week": math.exp(-age / (7 * 86_400)),
            "shared_roles": float(
                sum(
                    a >= 0 and a == b
                    for r, (a, b) in enumerate(zip(here.entity, there.entity, strict=True))
                    if r != role
                )
            ),
        }

    def features(self, row: int) -> np.ndarray:
        here = self.rows[row]
        day = (here.raw_time % 86_400_000_000) / 86_400_000_000 * 2 * math.pi
        week = (here.raw_time % 604_800_000_000) / 604_800_000_000 * 2 * math.pi
        out = [math.log1p(here.amount), math.sin(day), math.cos(day), math.sin(week), math.cos(week)]
        out.append(math.log1p(round((here.time - here.raw_time) / 1e3) / 1e3))
        pairs = counterparts(["x"] * len(self.role_type))
        for role in range(len(self.role_type)):
            out += self._entity(row, role, [int(c) for c in pairs[role] if c >= 0])
        return np.array([*out, 0.0, 0.0, 0.0])

    def _entity(self, row: int, role: int, others: list[int]) -> list[float]:
        here = self.rows[row]
        nothing = [0.0] * (4 + 16 + len(SETTLED_FEATURES) + 5 * len(others))
        never = [math.log1p(NEVER_S)] * 2 + [0.0] * (len(SETTLED_FEATURES) - 2)
        if here.entity[role] < 0:
            return nothing
        seen = self.chain(row, role, self.window.span_us)
        if not seen:
            return [1.0, math.log1p(NEVER_S), *nothing[2:20], *never, *nothing[20 + len(SETTLED_FEATURES) :]]
        node = here.entity[role]

        def age(back: int) -> float:
            return here.time - self.rows[back].time

        out = [1.0, math.log1p(age(seen[0]) / 1e6), math.log1p(age(seen[-1]) / 1e6), 0.0]
        inside = [[b for b in seen if age(b) <= w] for w in WINDOWS_US]
        counts = [len(rows) for rows in inside]
        amounts = [sum(self.rows[b].amount for b in rows) for rows in inside]
        if counts[-1]:
            out[3] = math.log1p(here.amount) - math.log1p(amounts[-1] / counts[-1])
        # The newest row always counts for what comes from the walk, then those inside 30 days, at most DEPTH in all.
        walked = [seen[0], *(b for b in seen[1:] if age(b) <= WINDOWS_US[-1])][:DEPTH]
        beliefs = {b: self.believed(b, here.offset) for b in walked}
        frauds = [sum(beliefs[b] == 1 for b in walked if age(b) <= w) for w in WINDOWS_US]
        labelled = [sum(beliefs[b] >= 0 for b in walked if age(b) <= w) for w in WINDOWS_US]
        out += [math.log1p(v) for v in (*counts, *amounts, *frauds, *labelled)]
        out += self._settled(row, seen)
        for other in others:
            met = {}
            for b in walked:
                there = self.rows[b].entity
                # Where it stands in the counterpart's own role, the other end of the transfer is its counterpart.
                own = next(
                    q for q in range(len(there)) if there[q] == node and self.role_type[q] == self.role_type[role]
                )
                met[b] = there[role if own == other else other]
            for w in WINDOWS_US:
                out.append(math.log1p(len({met[b] for b in walked if met[b] >= 0 and age(b) <= w})))
            out.append(math.log1p(sum(met[b] >= 0 and met[b] == here.entity[other] for b in walked)))
        return out

    def _settled(self, row: int, seen: list[int]) -> list[float]:
        """By the names of `SETTLED_FEATURES`, from earlier rows of an entity, newest first."""
        here, settle = self.rows[row], self.settle_us
        begin = settle if settle < self.window.span_us else 0
        horizon = max(int(WINDOWS_US[-1]), begin + BANDS * BAND_US)

        def age(back: int) -> int:
            return here.time - self.rows[back].time

        walked = [seen[0], *(b for b in seen[1:] if age(b) <= horizon)][:DEPTH]
        settled = [b for b in walked if self.believed(b, here.offset) >= 0 or age(b) >= settle]
        fraud = [self.believed(b, here.offset) == 1 for b in settled]
        ages = [age(b) / 1e6 for b, is_fraud in zip(settled, fraud, strict=True) if is_fraud]
        out = [math.log1p(ages[0]), math.log1p(ages[-1])] if ages else [math.log1p(NEVER_S)] * 2
        out += [float(fraud[0]) if fraud else 0.0, math.log1p(fraud.index(True) + 1) if ages else 0.0]
        for band in range(BANDS):
            inside = [f for b, f in zip(settled, fraud, strict=True) if max(0, age(b) - begin) // BAND_US == band]
            out.append(sum(inside) / len(inside) if inside else 0.0)
        return [*out, math.log1p(len(settled))]
