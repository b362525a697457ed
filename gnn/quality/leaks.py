"""Leaks found by cutting the journal: what a row reads must not change when all that came after it is taken away.

Any input of a model can be checked so, whoever computes it: read it once on the whole history and once on the journal
cut right behind the row. Bits that differ came from the future. Two leaks are kept here to be planted, because a
detector that has never caught anything proves nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.journal.protocol import Events, Kind
from gnn.rivals.boosting import input_names, rival_inputs
from gnn.score.replay import capacity_for
from graph.dag.protocol import DAY_US, Window
from graph.dag.sampler import EDGE_FEATURES
from graph.state import GraphState


@dataclass(frozen=True)
class Inputs:
    """Columns that a model reads.

    Attributes:
        names: Of the columns, for a graph's roles.
        read: Their values for rows, float32 [n, C], from whatever the graph holds at the time.
    """

    names: Callable[[Sequence[str]], tuple[str, ...]]
    read: Callable[[GraphState, NDArray[np.int64]], NDArray[np.float32]]


def _whole_history(state: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Payments and mean amount of each entity over all that the graph holds, later payments included."""
    amount, columns = state.store.column("amount").astype(np.float64), []
    entity = state.store.column("entity")
    for r in range(len(state.store.roles)):
        mine = entity[rows - state.store.oldest, r]
        nodes = np.unique(mine)
        theirs = np.flatnonzero(np.isin(entity[:, r], nodes))  # a probe asks for one row: not all are worth sorting
        code = np.searchsorted(nodes, entity[theirs, r])
        count, total = np.bincount(code), np.bincount(code, amount[theirs])
        at = np.searchsorted(nodes, mine)
        for value in (count[at], total[at] / count[at]):
            columns.append(np.where(mine >= 0, np.log1p(value), np.nan))
    return np.stack(columns, 1).astype(np.float32)


def _next_gap(state: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """log1p of the seconds until the account's next payment; NaN where none has come.

    Where accounts hardly ever pay twice, until the next payment of anyone: a planted leak must show.
    """
    account, time = state.store.column("entity")[:, 0], state.store.column("time")
    if (state.store.column("prev")[:, 0] > 0).mean() < MIN_RETURNING:
        until = np.append(np.log1p(np.diff(time) * 1e-6), np.nan).astype(np.float32)
        return until[rows - state.store.oldest, None]
    theirs = np.flatnonzero(np.isin(account, np.unique(account[rows - state.store.oldest])))
    order = theirs[np.argsort(account[theirs], kind="stable")]
    gap = np.full(len(account), np.nan, np.float32)
    follows = account[order][1:] == account[order][:-1]
    first, second = order[:-1][follows], order[1:][follows]
    gap[first] = np.log1p((time[second] - time[first]) * 1e-6)
    return gap[rows - state.store.oldest, None]


def _own_label(state: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The newest label of the row itself: 1 fraud, 0 legitimate, -1 none."""
    return state.store.believed(rows).astype(np.float32)[:, None]


MIN_RETURNING = 0.1  # share of payments whose account has paid before: with fewer, 240 probes may meet none
SETTLED_AFTER_US = 7 * DAY_US  # so that what rests on missing labels is probed too
CAUSAL = Inputs(
    lambda roles: input_names(roles, "features", 0),
    lambda state, rows: rival_inputs(state, rows, "features", 0, SETTLED_AFTER_US),
)
WHOLE_HISTORY = Inputs(
    lambda roles: tuple(f"{role}.whole_history.{what}" for role in roles for what in ("count", "mean_amount")),
    _whole_history,
)
NEXT_GAP = Inputs(lambda roles: ("planted.account.next_gap",), _next_gap)
OWN_LABEL = Inputs(lambda roles: ("planted.payment.own_label",), _own_label)
PLANTED = {"a look at the future": NEXT_GAP, "the payment's own label": OWN_LABEL}


def build(
    history: Iterable[Events],
    roles: Sequence[str],
    total: int,
    probes: NDArray[np.int64] | None = None,
    inputs: Mapping[str, Inputs] | None = None,
) -> tuple[GraphState, dict[str, NDArray[np.float32]]]:
    """Build the graph of a history, stopping behind some rows to note what they read there.

    Args:
        history: Its events in journal order.
        roles: Of the graph.
        total: Payments in it: all stay in the buffer.
        probes: Rows to stop behind, ascending, int64 [n].
        inputs: What to read there, by name.

    Returns:
        The whole graph, and for each name float32 [n, C] as read when nothing later was in the graph.
    """
    probes = np.empty(0, np.int64) if probes is None else probes
    inputs = inputs or {}
    window = Window()
    state = GraphState(roles, capacity_for(total, window), window)
    noted: dict[str, list[NDArray[np.float32]]] = {name: [] for name in inputs}
    due = 0
    for events in history:
        done = 0
        while events.kind is Kind.TRANSACTION and due < len(probes):
            cut = int(probes[due]) + 1 - state.store.rows + done
            if cut > len(events.batch):
                break
            state.apply(type(events)(events.kind, events.offset + done, events.batch.slice(done, cut - done)))
            for name, columns in inputs.items():
                noted[name].append(columns.read(state, probes[due : due + 1]))
            done, due = cut, due + 1
        if done < len(events.batch):
            state.apply(type(events)(events.kind, events.offset + done, events.batch.slice(done)))
    width = {name: len(columns.names(roles)) for name, columns in inputs.items()}
    return state, {n: np.concatenate([np.empty((0, width[n]), np.float32), *parts]) for n, parts in noted.items()}


def leaking(whole: NDArray[np.float32], cut: NDArray[np.float32], names: Sequence[str]) -> tuple[str, ...]:
    """The columns of which any probe reads other bits on the whole history than on the cut one, float32 [n, C] each."""
    same = np.ascontiguousarray(whole).view(np.uint32) == np.ascontiguousarray(cut).view(np.uint32)
    return tuple(name for name, good in zip(names, same.all(0), strict=True) if good is np.False_)


def choose_probes(labelled: NDArray[np.bool_], fraud: NDArray[np.bool_], most: int, seed: int = 0) -> NDArray[np.int64]:
    """Rows to probe, ascending: a third each of any, of labelled and of fraudulent ones, where labels leak first."""
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(pool, min(len(pool), most // 3), replace=False)
        for pool in (np.arange(len(fraud)), np.flatnonzero(labelled), np.flatnonzero(fraud))
    ]
    return np.unique(np.concatenate(chosen)).astype(np.int64)


class LabelTimes:
    """When each label was journalled, worked out from the events alone and not from the graph.

    A label that came behind a newer report of its payment was never believed, and counts for nothing.

    Args:
        history: Its events in journal order.
        state: Its graph, for the rows of payments.
    """

    def __init__(self, history: Iterable[Events], state: GraphState) -> None:
        at: list[NDArray[np.int64]] = []
        rows, offsets, fraud, reported = ([np.empty(0, np.int64)] for _ in range(4))
        for events in history:
            places = events.offset + np.arange(len(events.batch))
            if events.kind is Kind.TRANSACTION:
                at.append(places)
            elif events.kind is Kind.LABEL:
                rows.append(state.transaction_rows(events.batch.column("transaction_id")))
                offsets.append(places)
                fraud.append(events.batch.column("is_fraud").to_numpy(zero_copy_only=False).astype(np.int64))
                reported.append(events.batch.column("reported_at").cast(pa.int64()).to_numpy())
        self.payment = np.concatenate(at)  # [N] journal offset of each row
        row, offset, verdict, when = (np.concatenate(parts) for parts in (rows, offsets, fraud, reported))
        self._span = int(max(self.payment[-1], offset.max(initial=0))) + 2
        order = _newest_so_far(row, offset, when)
        self._row, self._fraud = row[order], verdict[order]
        self._key = (row * self._span + offset)[order]

    def known(self, rows: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the journal said of rows before some offsets: 1 fraud, 0 legitimate, -1 nothing."""
        at = np.searchsorted(self._key, rows * self._span + before, "left") - 1
        found = (at >= 0) & (self._row[np.maximum(at, 0)] == rows) if len(self._row) else np.zeros(len(rows), bool)
        return np.where(found, self._fraud[np.maximum(at, 0)] if len(self._row) else 0, -1)

    def early(self, state: GraphState, seeds: NDArray[np.int64], k: int = 16) -> tuple[int, int]:
        """Compare what seeds see of their neighbours' labels with what the journal had said before each seed.

        Args:
            state: A graph of these payments, in the same order, whatever it believes of their labels.
            seeds: Rows, int64 [n].
            k: Neighbours of each entity.

        Returns:
            Neighbours whose label was seen otherwise than the journal had it then, and neighbours looked at.
        """
        near = state.store.neighbours(seeds, k)
        ties = state.store.edges(seeds, near)
        labelled, fraud = (ties[..., EDGE_FEATURES.index(name)] for name in ("labelled", "fraud"))
        seen = np.where(labelled > 0, fraud, -1).astype(np.int64)
        there = near >= 0
        before = np.broadcast_to(self.payment[seeds][:, None, None], near.shape)
        return int((seen[there] != self.known(near[there], before[there])).sum()), int(there.sum())


def _newest_so_far(row: NDArray[np.int64], offset: NDArray[np.int64], when: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels that were the newest report of their payment when they came, by payment and then by offset, int64 [m]."""
    order = np.lexsort((offset, row))
    _, age = np.unique(when[order], return_inverse=True)  # small numbers for moments
    _, payment = np.unique(row[order], return_inverse=True)
    key = payment * (len(order) + 1) + age
    found: NDArray[np.int64] = order[key == np.maximum.accumulate(key)]
    return found
