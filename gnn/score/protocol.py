"""What a scorer is: one model over one graph, wherever it runs.

The service, replays, re-scoring and the quality checks are written against this protocol alone.
`gnn.score.cpu_scorer.CpuScorer` and `gnn.score.cuda_scorer.CudaScorer` keep it; `tests/gnn/score/test_protocol.py` runs
the same checks on both.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gnn.model.artifact import Artifact
from gnn.model.cache import KeyValueCache
from gnn.score.reasons import Explanation
from graph.state import GraphState


class Scorer(Protocol):
    """One model over one graph.

    A score is a pure function of the model and of the row's past, so all scorers of a model agree: those on one device
    to the bit, whatever the batch, and those on different devices within the bounds that the tests state.
    """

    @property
    def artifact(self) -> Artifact:
        """The model."""

    @property
    def state(self) -> GraphState:
        """The graph, which others feed with events; a scorer reads it, and writes to its own cache only."""

    @property
    def cache(self) -> KeyValueCache:
        """Keys and values of past rows in host memory, current after every call, so that another scorer can go on."""

    @property
    def device_name(self) -> str:
        """`cpu` or `cuda`, as answers and metrics name it."""

    @property
    def ready(self) -> bool:
        """Whether `score` may be called now."""

    @property
    def lost(self) -> bool:
        """Whether its device has failed for good: it is not asked again, and its process is to be replaced."""

    def warm(self) -> None:
        """Compile and allocate all that `score` and `reasons` need, so that the first payment does not wait."""

    def score(self, first: int, last: int) -> NDArray[np.float64]:
        """Score new rows and write their keys and values. To be called for every row once, in order.

        Args:
            first: First row.
            last: One past the last.

        Returns:
            Fraud probabilities, float64 [last - first].

        Raises:
            ModelError: It is not `ready`.
        """

    def rescore(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The probabilities of past rows once more, from the cache.

        Args:
            rows: Rows already scored and still in the buffer, int64 [n], in any order.

        Returns:
            Fraud probabilities, float64 [n].
        """

    def logits(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Uncalibrated log-odds of past rows, float64 [n]; `rows` as of `rescore`."""

    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of past rows, float32 [n, D]; `rows` as of `rescore`."""

    def reasons(self, rows: NDArray[np.int64], exact: bool = False) -> list[Explanation]:
        """Why rows got their scores: a baseline and at most five reasons each, which add up to the score's log-odds.

        Args:
            rows: As of `rescore`.
            exact: Exact Shapley values, for an investigation: 2^G evaluations of the score for G groups of evidence
                instead of 2 G.
        """

    def score_ablated(self, rows: NDArray[np.int64], masks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log-odds of past rows, as their probabilities have them, with parts of their evidence left out.

        Args:
            rows: As of `rescore`.
            masks: Bit masks over `gnn.model.groups.group_names` of what to leave out, int64 [M].

        Returns:
            float64 [n, M].
        """

    def fill(self, rows: int) -> bool:
        """Write the keys and values of some more rows that were there before this model, newest first.

        Args:
            rows: How many, at most.

        Returns:
            Whether any are left.
        """
