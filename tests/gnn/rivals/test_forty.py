"""The rival of forty columns: every column is what a slow search through all earlier payments finds."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from data.journal.protocol import Events
from gnn.rivals.forty import RIVAL_NAME, WINDOWS_US, fit_forty, forty_columns, forty_inputs
from gnn.train.boosted_trees import BoostingConfig
from gnn.train.targets import TrainConfig, make_targets
from graph.dag.protocol import Window
from graph.state import GraphState
from tests.gnn.train.test_train import built, history
from tests.graph.history import sharing

ROLES = ("account", "merchant", "device", "payee")
Payment = tuple[int, int, list[int]]  # time, amount, entities


def grown(events: list[Events]) -> GraphState:
    state = GraphState(ROLES, 1 << 12, Window(1 << 11))
    for part in events:
        state.apply(part)
    return state


def searched(state: GraphState, row: int) -> dict[str, float]:
    """The columns of one row, by going through all payments before it one by one."""
    store = state.store
    time, amount, entity = (store.column(name).tolist() for name in ("time", "amount", "entity"))
    before, mine = range(row), entity[row]
    believed = dict[int, int]()
    reported = list[tuple[int, int, int]]()  # row, moment, place among the events
    events = store.label_events()
    for of, seen_from, fraud in zip(*(part.tolist() for part in events), strict=True):
        if seen_from <= row:
            if believed.get(of, 0) != fraud:
                reported.append((of, time[seen_from], seen_from))
            believed[of] = fraud
    found: dict[str, float] = {}
    for r, name in enumerate(ROLES):
        for s, other in enumerate(ROLES):
            if store.role_type[r] != store.role_type[s]:
                continue
            scope, node = (name if r == s else f"{name}.as_{other}"), mine[r]
            past = [i for i in before if entity[i][s] == node] if node >= 0 else []
            ages = [(time[row] - time[i]) * 1e-6 for i in past]
            found[f"{scope}.gap"], found[f"{scope}.age"] = (ages[-1], ages[0]) if ages else (math.nan, math.nan)
            found[f"{scope}.count"] = len(past) if node >= 0 else math.nan
            for window, span in WINDOWS_US.items():
                inside = [i for i in past if time[row] - time[i] <= span]
                found[f"{scope}.count.{window}"] = len(inside) if node >= 0 else math.nan
                found[f"{scope}.sum.{window}"] = sum(amount[i] for i in inside) if node >= 0 else math.nan
            logs = [math.log1p(amount[i]) for i in past]
            found[f"{scope}.deviation"] = math.log1p(amount[row]) - sum(logs) / len(logs) if logs else math.nan
            frauds = sum(believed.get(i, 0) for i in past)
            found[f"{scope}.frauds"] = frauds if node >= 0 else math.nan
            moments = [(seen, moment) for of, moment, seen in reported if of in past]
            found[f"{scope}.reported"] = (time[row] - max(moments)[1]) * 1e-6 if moments else math.nan
    for a in range(len(ROLES)):
        for b in range(a + 1, len(ROLES)):
            pair = f"{ROLES[a]}-{ROLES[b]}"
            there = mine[a] >= 0 and mine[b] >= 0
            same = store.role_type[a] == store.role_type[b]
            for scope, one, two in ((pair, a, b), *(((f"{pair}.back", b, a),) if same else ())):
                met = [i for i in before if (entity[i][a], entity[i][b]) == (mine[one], mine[two])] if there else []
                found[f"{scope}.met"] = len(met) if there else math.nan
                found[f"{scope}.last_met"] = (time[row] - time[met[-1]]) * 1e-6 if met else math.nan
            for one, two in ((a, b), (b, a)):
                partners = {entity[i][two] for i in before if entity[i][one] == mine[one] and entity[i][two] >= 0}
                found[f"{ROLES[one]}.partners.{ROLES[two]}"] = len(partners) if there else math.nan
    return found


def test_every_column_is_what_a_search_through_all_earlier_payments_finds() -> None:
    state = grown(list(sharing(3, 900, labels=0.6, fresh=0.05, overdue=0.2)))
    names, columns = forty_columns(state.store)
    assert len(set(names)) == len(names) == columns.shape[1]
    some: NDArray[np.bool_] = np.zeros(len(names), bool)
    for row in range(0, 900, 29):
        expected = searched(state, row)
        assert set(expected) == set(names)
        np.testing.assert_allclose(columns[row], [expected[name] for name in names], rtol=1e-5, atol=1e-5)
        some |= columns[row] > 0
    assert [name for name, seen in zip(names, some, strict=True) if not seen] == []


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_no_later_event_changes_a_column_by_a_bit(share: float) -> None:
    events = list(sharing(4, 1200, labels=0.6, overdue=0.2))
    early, late = grown(events[: int(share * len(events))]), grown(events)
    rows = np.arange(early.store.rows)
    np.testing.assert_array_equal(forty_inputs(late, rows), forty_inputs(early, rows))
    early.apply(events[int(share * len(events))])  # a graph that has grown is read anew
    assert len(forty_inputs(early, np.arange(early.store.rows))) == early.store.rows


def test_it_learns_and_leaves_out_what_it_is_told_to() -> None:
    state = built(history()[0])
    targets = make_targets(state, TrainConfig(test=0.25))
    rival, blind = (fit_forty(state, targets, BoostingConfig(without=w)) for w in ((), ("payment.", "category.")))
    assert rival.name == RIVAL_NAME
    fraud = targets.fraud[targets.test] > 0
    score = rival.probability(state, targets.test)
    assert score[fraud].mean() > 2 * score[~fraud].mean()
    assert (score != blind.probability(state, targets.test)).any()
