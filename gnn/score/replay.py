"""Build the graph from a history and score it: one path for training, evaluation and the service."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.history import History
from data.journal.protocol import Events, PaymentSource
from data.report import Report, silent
from gnn.model.artifact import Artifact
from gnn.score.cpu_scorer import ROWS_PER_BATCH, CpuScorer
from gnn.score.cuda_scorer import CudaScorer
from gnn.score.protocol import Scorer
from graph.dag.protocol import ROWS_PER_APPEND, Window
from graph.device.cuda_device import CudaDevice
from graph.state import GraphState


def capacity_for(rows: int, window: Window) -> int:
    """A buffer that holds `rows`, and the window of every row of a batch that waits for its scores."""
    return max(rows, window.rows) + 2 * ROWS_PER_APPEND


def late_capacity(window_rows: int, layers: int) -> int:
    """A buffer on which a model that joins late scores as if it had always been there.

    Each of its layers reads a window back from what the layer above reads, and the features of the last one more.

    Args:
        window_rows: Rows back that a payment sees.
        layers: Of the model.
    """
    return (layers + 1) * window_rows + 2 * ROWS_PER_APPEND


@dataclass(frozen=True)
class Scored:
    """Payments and their scores, in order.

    Attributes:
        rows: Row numbers.
        probability: Fraud probabilities, float64, one for each row.
    """

    rows: range
    probability: NDArray[np.float64]


def score_events(state: GraphState, scorer: Scorer, events: Iterable[Events]) -> Iterator[Scored]:
    """Apply events and score their payments in batches, labels between them in their place.

    A batch may be scored after later events were applied: a row reads only its own past, and labels by their offset.
    """
    first = state.store.rows
    for event in events:
        state.apply(event)
        if state.store.rows - first >= ROWS_PER_BATCH:
            yield Scored(range(first, state.store.rows), scorer.score(first, state.store.rows))
            first = state.store.rows
    if state.store.rows > first:
        yield Scored(range(first, state.store.rows), scorer.score(first, state.store.rows))


def score_history(
    artifact: Artifact, history: History, device: str = "cpu", report: Report = silent
) -> NDArray[np.float64]:
    """Score every payment of a history as the service would have, labels in their place.

    Args:
        artifact: The model.
        history: Payments and labels; a score sees what came before its payment, and nothing else.
        device: `cpu` or `cuda`.
        report: Told of progress.

    Returns:
        Fraud probabilities in the order of `history.payments`, float64 [n].

    Raises:
        GraphError: `cuda` is asked for and CuPy or a GPU is missing.
    """
    total = len(history.payments)
    state, scorer = open_model(artifact, device, total)
    parts = [np.empty(0)]
    for scored in score_events(state, scorer, history.events):
        parts.append(scored.probability)
        report("scoring", scored.rows.stop / total)
    return np.concatenate(parts)


def open_model(
    artifact: Artifact, device: str = "cpu", rows: int = 0, source: PaymentSource | None = None
) -> tuple[GraphState, Scorer]:
    """An empty graph for a model, and its scorer.

    Args:
        artifact: The model.
        device: `cpu` or `cuda`.
        rows: Payments expected, if all of them must stay in the buffer.
        source: Where names are looked up for people.

    Raises:
        GraphError: `cuda` is asked for and CuPy or a GPU is missing.
        ModelError: The graph and the model's cache do not fit into its memory.
    """
    window = artifact.config.window
    state = GraphState(artifact.roles, capacity_for(rows, window), window, source)
    scorer = CpuScorer(artifact, state)
    if device != "cuda":
        return state, scorer
    there = CudaScorer(scorer, CudaDevice())
    there.warm()
    return state, there
