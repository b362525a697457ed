"""A rival on the forty or so columns that a fraud team computes first, none of them from this project's kernels.

For each entity of a payment: the gap to its last payment, counts and sums over windows, how far the amount is from its
mean, and the frauds reported of it. For each pair of roles: how often these two met before, ever, how long ago the last
time was, and how many partners each had. All of it is plain NumPy over sorted keys, with no window but those named:
what it knows and the model does not is a measure of the model's inputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from data.report import Report, silent
from gnn.model.calibration import PlattScaling
from gnn.rivals.boosting import Classifier, categories, input_names, rival_inputs
from gnn.train.boosted_trees import BoostingConfig, Setting, fit_trees, grow_trees, sample_training_rows
from gnn.train.targets import Targets
from graph.dag.protocol import DAY_US, Store
from graph.state import GraphState

RIVAL_NAME: Final = "trees: forty columns"
WINDOWS_US: Final = {"1d": DAY_US, "7d": 7 * DAY_US, "30d": 30 * DAY_US}
SETTINGS: Final = (Setting(), Setting(burn_in=0.25), Setting(leaves=15, rows=40, burn_in=0.15, l2=5.0, inputs=0.5))
LOG_STEPS: Final = 1 << 20  # of a logarithm, kept as an integer
Column = NDArray[np.float32]

_cached: WeakKeyDictionary[GraphState, tuple[int, NDArray[np.float32]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Past:
    """Events of many keys, so that those of one key before one row are found by two binary searches. N rows, E events.

    Attributes:
        place: key * (N + 2) + the first row that sees the event, ascending, int64 [E].
        rows: N.
        order: The events in the order of `place`, int64 [E].
    """

    place: NDArray[np.int64]
    rows: int
    order: NDArray[np.int64]

    @classmethod
    def of(cls, key: NDArray[np.int64], seen_from: NDArray[np.int64], rows: int) -> "_Past":
        """Events by their keys, int64 [E], -1 for none, and the first row that sees each, int64 [E]."""
        there = np.flatnonzero(key >= 0)
        place = key[there] * (rows + 2) + seen_from[there]
        order = np.argsort(place, kind="stable")
        return cls(place[order], rows, there[order])

    def upto(self, key: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
        """One past the last event of each key that each row sees, as a place in `order`, int64 [n]."""
        return np.searchsorted(self.place, key * (self.rows + 2) + row, "right")

    def since(self, key: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first event of each key that row `row - 1` or an earlier one did not see, int64 [n]."""
        return np.searchsorted(self.place, key * (self.rows + 2) + row, "left")


def forty_columns(store: Store) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The columns of every row that the buffer holds, each as of itself, from these rows alone.

    Args:
        store: The graph.

    Returns:
        Their names, and float32 [n, C], the oldest row first; NaN for what there is none of.
    """
    named = dict(_columns(store))
    if not named:
        return (), np.empty((store.rows - store.oldest, 0), np.float32)
    return tuple(named), np.stack(list(named.values()), 1)


def _columns(store: Store) -> Iterator[tuple[str, Column]]:
    roles, time = store.roles, store.column("time")
    entity = store.column("entity").astype(np.int64)
    amount = store.column("amount")
    n = len(time)
    row = np.arange(n)
    # The first row inside each window; an event seen from one row later on is the payment of that row.
    first = {name: np.searchsorted(time, time - span) for name, span in WINDOWS_US.items()}
    reported, seen_from, change = _reports(store)
    for r, name in enumerate(roles):
        for other, of in enumerate(roles):
            if store.role_type[other] != store.role_type[r]:
                continue
            scope = name if other == r else f"{name}.as_{of}"
            past = _Past.of(entity[:, other], row + 1, n)
            yield from _entity(scope, past, entity[:, r], row, time, amount, first)
            frauds = _Past.of(entity[reported, other], seen_from, n)
            yield from _frauds(scope, frauds, entity[:, r], row, time, seen_from, change)
    yield from _pairs(roles, store.role_type, entity, row, time)


def _entity(
    scope: str,
    past: _Past,
    key: NDArray[np.int64],
    row: NDArray[np.int64],
    time: NDArray[np.int64],
    amount: NDArray[np.int64],
    first: dict[str, NDArray[np.int64]],
) -> Iterator[tuple[str, Column]]:
    """What entities (`key` [n], -1 for none) did before each row: gap, age, counts, sums, deviation from the mean."""
    begin, end = past.since(key, np.zeros_like(row)), past.upto(key, row)
    missing = key < 0
    seen = (end > begin) & ~missing
    yield f"{scope}.gap", _where(seen, _age(time, past, end - 1))
    yield f"{scope}.age", _where(seen, _age(time, past, begin))
    # Sums of integers: those of floats would change by a rounding error when others' payments are added.
    own = np.rint(np.log1p(amount) * LOG_STEPS).astype(np.int64)
    total, logs = (np.concatenate([[0], np.cumsum(of[past.order])]) for of in (amount, own))
    yield f"{scope}.count", _where(~missing, end - begin)
    for name, since in first.items():
        at = np.minimum(past.since(key, since + 1), end)
        yield f"{scope}.count.{name}", _where(~missing, end - at)
        yield f"{scope}.sum.{name}", _where(~missing, total[end] - total[at])
    mean = (logs[end] - logs[begin]) / np.maximum(end - begin, 1)
    yield f"{scope}.deviation", _where(seen, (own - mean) / LOG_STEPS)


def _frauds(
    scope: str,
    past: _Past,
    key: NDArray[np.int64],
    row: NDArray[np.int64],
    time: NDArray[np.int64],
    seen_from: NDArray[np.int64],
    change: NDArray[np.int64],
) -> Iterator[tuple[str, Column]]:
    """Payments of entities (`key` [n]) known as fraud when each row arrived, and the time since the newest report."""
    begin, end = past.since(key, np.zeros_like(row)), past.upto(key, row)
    total = np.concatenate([[0], np.cumsum(change[past.order])])
    yield f"{scope}.frauds", _where(key >= 0, total[end] - total[begin])
    seen = (end > begin) & (key >= 0)
    if not len(past.order):
        yield f"{scope}.reported", np.full(len(row), np.nan, np.float32)
        return
    last = seen_from[past.order[np.maximum(end - 1, 0)]]
    yield f"{scope}.reported", _where(seen, (time - time[np.minimum(last, len(time) - 1)]) * 1e-6)


def _pairs(
    roles: Sequence[str],
    role_type: NDArray[np.int32],
    entity: NDArray[np.int64],
    row: NDArray[np.int64],
    time: NDArray[np.int64],
) -> Iterator[tuple[str, Column]]:
    """For each pair of roles: how often the two met before, how long ago, and how many partners each had."""
    n = len(row)
    for a, b in combinations(range(len(roles)), 2):
        name = f"{roles[a]}-{roles[b]}"
        both = (entity[:, a] >= 0) & (entity[:, b] >= 0)
        ways = permutations((a, b)) if role_type[a] == role_type[b] else [(a, b)]
        for way, (one, other) in enumerate(ways):  # a payee may have paid the account before
            mine, theirs = _pair_keys(entity[:, [a, b]], entity[:, [one, other]], both)
            past = _Past.of(mine, row + 1, n)
            begin, end = past.since(theirs, np.zeros_like(row)), past.upto(theirs, row)
            scope = f"{name}.back" if way else name
            yield f"{scope}.met", _where(both, end - begin)
            yield f"{scope}.last_met", _where(both & (end > begin), _age(time, past, end - 1))
            if way == 0:
                new = both & (end == begin)
        for one, other in ((a, b), (b, a)):
            partners = _Past.of(np.where(new, entity[:, one], -1), row + 1, n)
            key = entity[:, one]
            count = partners.upto(key, row) - partners.since(key, np.zeros_like(row))
            yield f"{roles[one]}.partners.{roles[other]}", _where(both, count)


def _pair_keys(
    pair: NDArray[np.int64], wanted: NDArray[np.int64], both: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of pairs of nodes, [n, 2] each, and of the pairs looked up among them; -1 for none, int64 [n] twice."""
    flat, asked = (of[:, 0] << 32 | of[:, 1] & 0xFFFFFFFF for of in (pair, wanted))
    known = np.unique(flat[both])
    if not len(known):
        return np.full(len(pair), -1), np.full(len(pair), -1)
    at = [np.minimum(np.searchsorted(known, of), len(known) - 1) for of in (flat, asked)]
    mine, theirs = (
        np.where(both & (known[found] == of), found, -1) for found, of in zip(at, (flat, asked), strict=True)
    )
    return mine, theirs


def _reports(store: Store) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Label events that changed what was believed, int64 [E] each: row, first row that sees it, frauds more (-1 or 1).

    Rows are counted from the oldest in the buffer.
    """
    events = store.label_events()
    order = np.argsort(events.row, kind="stable")
    row, fraud = events.row[order], events.fraud[order].astype(np.int64)
    again = np.concatenate([[False], row[1:] == row[:-1]]) if len(row) else np.zeros(0, bool)
    before = np.where(again, np.concatenate([[0], fraud[:-1]]), 0) if len(row) else fraud
    changed = fraud != before
    seen_from = np.maximum(events.seen_from[order] - store.oldest, 0)
    return (row - store.oldest)[changed], seen_from[changed], (fraud - before)[changed]


def _age(time: NDArray[np.int64], past: _Past, at: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds from the payments at places of `past.order` to each row, float64 [n]; anything where there is none."""
    if not len(past.order):
        return np.zeros(len(time))
    return np.asarray((time - time[past.order[np.clip(at, 0, len(past.order) - 1)]]) * 1e-6)


def _where(there: NDArray[np.bool_], value: NDArray[Any]) -> Column:
    return np.where(there, value, np.nan).astype(np.float32)


def forty_inputs(state: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """A payment's own columns, its categories and `forty_columns`, float32 [n, C]; computed once for a grown graph."""
    store = state.store
    if state not in _cached or _cached[state][0] != store.rows:
        _cached[state] = store.rows, forty_columns(store)[1]
    return np.concatenate([rival_inputs(state, rows, "columns", 0), _cached[state][1][rows - store.oldest]], 1)


@dataclass(frozen=True)
class FortyRival:
    """Boosted trees on `forty_inputs`.

    Attributes:
        model: Log-odds from inputs.
        calibration: From log-odds to probability.
        facts: How it was chosen: setting, trees, validation AP.
        name: In the table.
    """

    model: Classifier
    calibration: PlattScaling
    facts: dict[str, Any]
    name: str = RIVAL_NAME

    def probability(self, state: GraphState, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Fraud probabilities of rows, float64 [n]."""
        return self.calibration.probability(self.model.decision_function(forty_inputs(state, rows)))


def fit_forty(
    state: GraphState, targets: Targets, config: BoostingConfig | None = None, report: Report = silent
) -> FortyRival:
    """Train it on the payments and labels that the other rivals are trained on.

    Args:
        state: The graph; later events may already be in it, for rows read their own past only.
        targets: From `gnn.train.targets.make_targets` at the moment the network was trained.
        config: How to train.
        report: Called with progress.

    Returns:
        The trees, grown again with the validation payments where `config.refit` says so, and calibrated.
    """
    config = replace(config or BoostingConfig(), settings=SETTINGS)
    report("training rivals", 1.0)
    rows, validation = sample_training_rows(targets, config), targets.validation
    known, roles = targets.fraud[validation] > 0, state.store.roles
    own = np.array([not name.startswith(config.without) for name in input_names(roles, "columns", 0)])
    made = forty_inputs(state, rows)
    read = np.concatenate([own, np.ones(made.shape[1] - len(own), bool)])
    categorical = np.zeros(made.shape[1], np.bool_)
    categorical[: len(own)] = categories(roles, "columns", 0)

    def inputs(of: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.where(read, forty_inputs(state, of), np.float32(0))

    v = inputs(validation)
    trees, facts = fit_trees(inputs(rows), targets.fraud[rows] > 0, v, known, config, categorical)
    calibration = PlattScaling.fit(np.asarray(trees.decision_function(v), np.float64), known)
    if config.refit:
        final = sample_training_rows(targets.with_validation_in_training, config)
        setting, last = config.settings[facts["setting"]], replace(config, trees=facts["trees"])
        trees = grow_trees(inputs(final), targets.fraud[final] > 0, setting, last, categorical)
    return FortyRival(trees, calibration, facts)
