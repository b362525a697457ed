"""One model over a graph: who can run it, what it said of each payment, and how far it has scored."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.model.artifact import Artifact
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.cuda_scorer import CudaScorer
from gnn.score.devices import choose_device
from gnn.score.protocol import Scorer
from gnn.score.reasons import Explanation
from graph.dag.features import feature_names
from graph.device.cuda_device import CudaDevice
from graph.errors import GraphError
from graph.memory import ArrayPart, reserve
from graph.state import GraphState
from serve.replica.breaker import Breaker
from serve.settings import Settings

log = logging.getLogger("ringwatch")

MakeScorers = Callable[[Artifact, GraphState], Sequence[Scorer]]


class ModelSlot:
    """A model in a replica. Several slots may share one graph: the live model and candidates for its place.

    Args:
        artifact: The model.
        state: The graph; its roles and window must be the model's.
        scorers: Who can run it, the preferred first and the CPU last. All share one key-value cache.
        named: Whether the preferred device was asked for by name, so that it is an error if it cannot be used.

    Attributes:
        artifact: The model.
        scored: Rows before this one are not scored again: they have been, or were there before the model.
    """

    def __init__(self, artifact: Artifact, state: GraphState, scorers: Sequence[Scorer], named: bool = False) -> None:
        self.artifact, self.state, self.scorers = artifact, state, tuple(scorers)
        self.breakers = tuple(Breaker() for _ in self.scorers)
        self.scored = 0
        self._named = named
        self._features = feature_names(artifact.roles)
        self._probability = reserve(state.store.capacity, np.float64)  # by slot

    @property
    def cpu(self) -> Scorer:
        """The scorer that always works; its cache is every other scorer's."""
        return self.scorers[-1]

    @property
    def lost(self) -> bool:
        """Whether a device failed for good: the CPU answers from now on."""
        return any(scorer.lost for scorer in self.scorers)

    @property
    def settle_us(self) -> int:
        """Age, in microseconds, at which this model takes a payment without a label for legitimate."""
        return self.artifact.config.settle_us

    def warm(self) -> None:
        """Make the scorers ready. A device that was not asked for by name, and cannot be used, leaves the CPU.

        Raises:
            Exception: The CPU, or the device that was asked for by name, cannot be used.
        """
        for scorer in self.scorers:
            try:
                scorer.warm()
            except Exception:
                if scorer is self.cpu or self._named:
                    raise
                log.exception("the GPU cannot be used; the CPU scores")

    def score_new(self) -> tuple[str, bool]:
        """Score the rows that have not been scored.

        Returns:
            Who scored them (`cuda`, `cpu`, or `rules` where nobody could), and whether it was not the preferred scorer.
        """
        store = self.state.store
        first, last = max(self.scored, store.oldest), store.rows
        for i, (scorer, breaker) in enumerate(zip(self.scorers, self.breakers, strict=True)):
            if not (scorer.ready and breaker.allows()):
                continue
            try:
                found = scorer.score(first, last)
                if not np.isfinite(found).all():
                    raise FloatingPointError("a score is not finite")
            except Exception:
                breaker.failed()
                log.exception("the %s scorer failed", scorer.device_name)
                continue
            breaker.succeeded()
            self._probability[store.slots(np.arange(first, last))] = found
            self.scored = last
            return scorer.device_name, i > 0
        return "rules", True

    def probabilities(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """What this model says of rows in the buffer, float64 [n].

        A payment that was there before the model, and has not been scored behind the service's back yet, is scored
        now: a probability is never a default.
        """
        store = self.state.store
        missing = np.unique(rows[rows < self._first_known])
        if len(missing):
            self._probability[store.slots(missing)] = self.cpu.rescore(missing)
        return self._probability[store.slots(rows)]

    def known_probabilities(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Those of `probabilities` that need no work, float64 [m] with m <= n; safe beside a thread that scores."""
        return self._probability[self.state.store.slots(rows[rows >= self._first_known])]

    def fill(self, rows: int) -> bool:
        """Score some more of the payments that were there before this model, newest first.

        Args:
            rows: How many, at most.

        Returns:
            Whether any are left.
        """
        store, before = self.state.store, self._first_known
        left = self.scorers[0].fill(rows)
        filled = np.arange(max(store.oldest, before - rows), before)
        self._probability[store.slots(filled)] = self.cpu.rescore(filled)
        return left

    def reasons(self, rows: NDArray[np.int64]) -> Sequence[Explanation | None]:
        """Why rows got their scores; None where nobody can say."""
        for scorer, breaker in zip(self.scorers, self.breakers, strict=True):
            if breaker.state == "closed":
                try:
                    return scorer.reasons(rows)
                except Exception:
                    breaker.failed()
                    log.exception("the %s scorer gave no reasons", scorer.device_name)
        return [None] * len(rows)

    def features(self, rows: NDArray[np.int64], held: NDArray[np.bool_]) -> Mapping[str, NDArray[np.float32]]:
        """What the model knows of payments from the graph as of each, by name, float32 [n]; NaN where not held.

        Args:
            rows: Of the payments, [n].
            held: Whether each row is in the buffer, [n].
        """
        if held.all():
            found = self.state.store.features(rows, self.settle_us)
        else:
            found = np.full((len(rows), len(self._features)), np.nan, np.float32)
            found[held] = self.state.store.features(rows[held], self.settle_us)
        return dict(zip(self._features, found.T, strict=True))

    def parts(self) -> dict[str, ArrayPart]:
        """What a snapshot keeps of this model, by name."""
        cache, store = self.cpu.cache, self.state.store
        slots = min(store.rows, store.capacity)
        return {
            "probability": ArrayPart(self._probability, slots),
            f"{self._name}.data": ArrayPart(cache.data, slots, axis=1),
            f"{self._name}.depth": ArrayPart(cache.depth, slots),
        }

    def facts(self) -> dict[str, Any]:
        """What goes with the arrays, as JSON."""
        cache = self.cpu.cache
        return {"scored": self.scored, self._name: {"upto": cache.upto, "complete_from": cache.complete_from}}

    def adopt(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Go on from what a snapshot of the same graph keeps of this model.

        Where it keeps another model's, the payments that were there count as before this model: what they read of each
        other is filled in behind the service's back (`fill`), and their scores are computed as they are asked for.

        Args:
            arrays: By the names of `parts`.
            facts: As `facts` gave them.
        """
        if self._name not in facts:
            self.scored = self.state.store.rows
            return
        self.cpu.cache.adopt(arrays[f"{self._name}.data"], arrays[f"{self._name}.depth"], **facts[self._name])
        self._probability, self.scored = arrays["probability"], facts["scored"]

    @property
    def _name(self) -> str:
        return f"model.{self.artifact.version}"

    @property
    def _first_known(self) -> int:
        """Probabilities of rows from here up to `scored` are there."""
        return self.cpu.cache.complete_from


def default_scorers(settings: Settings) -> MakeScorers:
    """A GPU's scorer where there is one, then the CPU's."""

    def make(artifact: Artifact, state: GraphState) -> Sequence[Scorer]:
        cpu = CpuScorer(artifact, state)
        if choose_device(settings.device) != "cuda":
            return [cpu]
        limit = settings.cuda_memory
        try:
            device = CudaDevice(int(limit * 2**30) if limit else None)
        except GraphError as error:
            if settings.device == "cuda":
                raise
            log.warning("scoring on the CPU: %s", error)
            return [cpu]
        return [CudaScorer(cpu, device, patience_s=settings.cuda_wait_ms / 1e3), cpu]

    return make
