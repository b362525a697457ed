"""Answers in time where the model's answer is not: by rules, and said to be recorded nowhere.

They acknowledge nothing. Whoever was given one sends the payment again, with the decision that it was given, until the
answer says `recorded`; the payment is counted once, and that decision is journalled with it as its outcome.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.schema import content_hashes
from gnn.model.artifact import Artifact
from gnn.score.reasons import Explanation
from gnn.score.rules import LARGE_AMOUNT, prospect_score, request_score
from graph.state import GraphState
from serve.decide.decider import Decider
from serve.decide.decision import Decided, Decision
from serve.replica.admission import ScoreCall
from serve.replica.answers import Answers, as_json, as_table

MOST = 25_000  # decisions remembered; beyond them the oldest are forgotten, and counted
LOOKED_UP = 64  # payments of one call that the graph is asked about; a larger call is no payment in a hurry


Content = bytes | Callable[[], bytes]  # the content hash of a payment, or what computes it if it is ever needed


class GivenDecisions:
    """Decisions given for payments that are not known to be recorded, by transaction id. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: OrderedDict[str, tuple[Content, Decision]] = OrderedDict()
        self.forgotten = 0  # of which nobody said that they were recorded

    def __len__(self) -> int:
        """Payments answered that are not known to be recorded."""
        return len(self._given)

    def give(self, name: str, content: Content, decision: Decision) -> Decision:
        """The decision for a payment: the one given before, where its content was the same."""
        with self._lock:
            there = self._given.get(name)
            if there is not None and _hash(there[0]) == _hash(content):
                return there[1]
            self._given[name] = (content, decision)
            if len(self._given) > MOST:
                self._given.popitem(last=False)
                self.forgotten += 1
            return decision

    def of(self, name: str, content: bytes) -> Decision | None:
        """The decision given for a payment of this content."""
        there = self._given.get(name)
        return there[1] if there is not None and _hash(there[0]) == content else None

    def settle(self, names: Sequence[str]) -> None:
        """These payments are recorded."""
        if self._given:
            with self._lock:
                for name in names:
                    self._given.pop(name, None)


def _stands(decided: Decided, carried: Decision | None) -> Decision:
    """The decision to give: what the caller was given before, unless a mandate forbids the payment."""
    forbidden = decided.mandate is not None and not decided.mandate.within
    return decided.decision if forbidden or carried is None else carried


def _hash(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content()


class RuleAnswers:
    """Answers of `Replica.answer_unrecorded`.

    Args:
        artifact: The model that could not answer; it is named in the answers.
        decider: Decides.
    """

    def __init__(self, artifact: Artifact, decider: Decider) -> None:
        self._artifact, self.decider = artifact, decider
        self.given = GivenDecisions()
        self._small = request_score(np.array([0]), [""])  # what every payment gets to which no rule applies

    def answer(self, call: ScoreCall, state: GraphState | None) -> "list[bytes] | pa.Table":
        """Answers to a call: bodies, or a table, as it asks for.

        Args:
            call: The payments.
            state: The graph, which nobody may change meanwhile; without it the request speaks for itself.
        """
        batch = call.batch
        if state is not None and len(batch) <= LOOKED_UP:
            probability, why = prospect_score(state, batch)
        else:
            probability, why = request_score(batch.column("amount").to_numpy(), batch.column("currency").to_pylist())
        n, names = len(batch), batch.column("transaction_id").to_pylist()
        hashes = call.hashes or content_hashes(batch)
        carried = list(call.given) or [None] * n
        decided = [
            one.as_given(self.given.give(name, content, _stands(one, earlier)))
            for name, content, earlier, one in zip(
                names, hashes, carried, self.decider.decide_unrecorded(batch, probability), strict=True
            )
        ]
        answers = self._answers(names, probability, why if call.reasons else [None] * n, decided, carried)
        return as_table(answers) if call.table else [as_json(answers, i) for i in range(n)]

    def answer_request(
        self,
        name: str,
        amount: int,
        currency: str,
        carried: Decision | None,
        content: Callable[[], bytes],
        mandate_id: str | None = None,
    ) -> bytes:
        """The answer to one payment from its amount alone, at the least cost: for when there are too many.

        Args:
            name: Its transaction id.
            amount: In minor units.
            currency: ISO 4217.
            carried: The decision that its caller was given before, if any.
            content: Computes its content hash.
            mandate_id: The mandate that it names, if any.
        """
        small = amount < LARGE_AMOUNT
        probability, why = self._small if small else request_score(np.array([amount]), [currency])
        decided = self.decider.decide_at_once(float(probability[0]), mandate_id)
        decided = decided.as_given(self.given.give(name, content, _stands(decided, carried)))
        return as_json(self._answers([name], probability, why, [decided], [carried]), 0)

    def _answers(
        self,
        names: list[str],
        probability: NDArray[np.float64],
        why: Sequence[Explanation | None],
        decided: list[Decided],
        carried: Sequence[Decision | None],
    ) -> Answers:
        n = len(names)
        return Answers(
            ids=names,
            probability=probability,
            decided=decided,
            explanations=why,
            rings=[None] * n,
            scored_by=["rules"] * n,
            degraded=[True] * n,
            offsets=[None] * n,
            earlier=carried,
            model_name=self._artifact.name,
            model_version=self._artifact.version,
            milliseconds={},
        )
