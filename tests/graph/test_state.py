"""What each kind of event changes in the graph, and what happens to a kind that nobody knows."""

from dataclasses import replace
from enum import IntEnum

import pytest

from data.journal.protocol import Events, Kind
from graph.dag.protocol import DAY_US, Window
from graph.errors import GraphError
from graph.state import UNCHANGING, GraphState
from tests.data.journal.conformance import rows as journal_rows
from tests.world import label_batch, payment_batch

PAYMENTS = payment_batch(20, seed=3)


def state() -> GraphState:
    built = GraphState(("account", "merchant", "device"), 256, Window(100, 90 * DAY_US))
    built.apply(Events(Kind.TRANSACTION, 0, PAYMENTS))
    built.apply(Events(Kind.LABEL, 20, label_batch(PAYMENTS, [2], [True])))
    return built


def content(of: GraphState) -> dict[str, bytes]:
    return {name: part.array[..., : part.used].tobytes() for name, part in of.parts().items()}


def of_kind(kind: Kind, offset: int) -> Events:
    return Events(kind, offset, journal_rows(kind, ["x"] * 3))


@pytest.mark.parametrize("kind", sorted(UNCHANGING), ids=lambda kind: kind.name)
def test_kinds_that_change_nothing_move_the_offset_alone(kind: Kind) -> None:
    graph = state()
    before = content(graph)
    assert graph.apply(of_kind(kind, 21)) == range(20, 20)
    assert graph.applied == 24
    assert content(graph) == before


def test_every_kind_of_the_journal_is_decided_upon() -> None:
    changing = set(Kind) - set(UNCHANGING)
    assert changing == {Kind.TRANSACTION, Kind.LABEL}
    for kind, batch in ((Kind.TRANSACTION, payment_batch(1, seed=9)), (Kind.LABEL, label_batch(PAYMENTS, [4], [True]))):
        graph = state()
        before = content(graph)
        graph.apply(Events(kind, 21, batch))
        assert content(graph) != before


def test_a_kind_that_is_not_known_is_refused_and_nothing_moves() -> None:
    class Later(IntEnum):
        LATER = 70

    graph = state()
    before = content(graph)
    for kind in (Later.LATER, 99):
        unknown = replace(of_kind(Kind.OUTCOME, 21), kind=kind)  # type: ignore[arg-type]
        with pytest.raises(GraphError, match=r"offset 21 are of kind .*(LATER|99).*; upgrade Ringwatch"):
            graph.apply(unknown)
    assert graph.applied == 21
    assert content(graph) == before
