"""The estimate adds up to the layouts that the graph really has."""

import pytest

from graph.capacity import Deployment, estimate, row_bytes
from graph.dag.protocol import DAY_US, Window
from graph.errors import GraphError
from graph.state import GraphState

ENTITIES = {"account": 30, "merchant": 4, "device": 20}
ROLES = ("account", "merchant", "device")


def test_a_transaction_of_three_roles_has_64_bytes_and_96_with_windows():
    assert row_bytes(ROLES, velocity=False) == 64
    assert row_bytes(ROLES, velocity=True) == 96
    assert row_bytes((*ROLES, "payee"), velocity=False) == 72


def test_the_parts_add_up_to_the_live_layouts():
    lines = estimate(Deployment(1000, ENTITIES, ROLES, labels=7))
    state = GraphState(ROLES, 1000, Window(900, DAY_US))
    store = state.store
    of = {start: sum(line.total for line in lines if line.what.startswith(start)) for start in ("row:", "jumps")}
    assert of == {"row:": store.row_data.nbytes, "jumps": store.velocity.nbytes}
    per_entity = sum(line.size for line in lines if line.what in ("id index: heads", "id index: buckets"))
    assert per_entity <= 12
    assert {line.count for line in lines if line.per == "entity"} == {54}
    digests = next(line.size for line in lines if line.what == "id index: digests")
    assert digests == store.ids.digests[0].nbytes
    assert next(line.total for line in lines if line.what == "label events") == 7 * store.label_data.itemsize
    without = estimate(Deployment(1000, ENTITIES, ROLES, velocity=False, labels=7))
    assert sum(line.total for line in lines) - sum(line.total for line in without) == store.velocity.nbytes


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (Deployment(10, {"account": 1}, ROLES), "merchant"),
        (Deployment(-1, ENTITIES, ROLES), "negative"),
        (Deployment(1 << 31, ENTITIES, ROLES), "fewer than"),
        (Deployment(10, ENTITIES, ("account", "account")), "distinct"),
    ],
)
def test_what_no_graph_can_hold_is_refused(deployment, reason):
    with pytest.raises(GraphError, match=reason):
        estimate(deployment)
