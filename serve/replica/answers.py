"""What the payments of a call are answered, as one record, and how it is rendered: as JSON or as an Arrow table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

from gnn.score.reasons import Explanation
from serve.decide.decision import USUAL_ACTION, Decided, Decision
from serve.decide.standing import Standing

ANSWER_SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("fraud_probability", pa.float64()),
        ("risk_score", pa.int32()),
        ("decision", pa.string()),
        ("ring_id", pa.string()),
        ("ring_confidence", pa.float64()),
        ("scored_by", pa.string()),
        ("degraded", pa.bool_()),
        ("journal_offset", pa.int64()),
        ("model_version", pa.string()),
        ("recorded", pa.bool_()),
        ("action", pa.string()),
        ("policy_version", pa.string()),
        ("rules", pa.list_(pa.string())),
        ("expected_loss", pa.int64()),
        ("fee_bps", pa.float64()),
        ("route", pa.string()),
        ("route_propensity", pa.float64()),
        ("mandate_id", pa.string()),
        ("mandate_within", pa.bool_()),
        ("mandate_failed", pa.string()),
        ("mandate_remaining", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Answers:
    """The answers to the n payments of one call.

    Attributes:
        ids: Transaction ids, [n].
        probability: Of fraud, float64 [n].
        decided: What is to be done with each, [n]; the earlier decision where there is one.
        explanations: Why, [n]; None where no reasons are given.
        rings: The ring that each stands in, as the journal had it before the payment, [n]; None for most.
        scored_by: `cuda`, `cpu` or `rules`, [n].
        degraded: Whether that was not the preferred scorer, [n].
        offsets: In the journal, [n]; None where the payment is not known to be recorded.
        earlier: Decisions that were given before the payment was recorded, [n]; None for most.
        model_name: Of the model that scored.
        model_version: Of the model that scored.
        milliseconds: Time spent, by stage.
    """

    ids: Sequence[str]
    probability: NDArray[np.float64]
    decided: Sequence[Decided]
    explanations: Sequence[Explanation | None]
    rings: Sequence[Standing | None]
    scored_by: Sequence[str]
    degraded: Sequence[bool]
    offsets: Sequence[int | None]
    earlier: Sequence[Decision | None]
    model_name: str
    model_version: str
    milliseconds: dict[str, float]


def as_json(answers: Answers, i: int) -> bytes:
    """The answer to payment `i` as a JSON object, see `serve.http.answer.Answer`."""
    probability, why, ring = float(answers.probability[i]), answers.explanations[i], answers.rings[i]
    decided = answers.decided[i]
    return json_bytes(
        {
            "transaction_id": answers.ids[i],
            "fraud_probability": probability,
            "risk_score": round(100 * probability),
            "decision": decided.decision,
            "action": decided.action,
            "policy": decided.policy,
            "rules": [{"id": hit.id, "message": hit.message} for hit in decided.rules],
            "expected_loss": decided.expected_loss,
            "fee_bps": decided.fee_bps,
            "route": None
            if decided.route is None
            else {"rail": decided.route.rail, "propensity": decided.route.propensity},
            "mandate": None
            if (mandate := decided.mandate) is None
            else {
                "id": mandate.mandate_id,
                "within": mandate.within,
                "failed": mandate.failed,
                "message": mandate.message,
                "remaining": mandate.remaining,
            },
            "baseline": None if why is None else why.baseline,
            "reasons": [
                {"code": r.code, "message": r.message, "contribution": r.contribution}
                for r in (() if why is None else why.reasons)
            ],
            "ring": None
            if ring is None
            else {"id": ring.ring_id, "size": ring.size, "confidence": ring.confidence, "state": ring.state},
            "model": {"name": answers.model_name, "version": answers.model_version},
            "scored_by": answers.scored_by[i],
            "degraded": answers.degraded[i],
            "journal_offset": answers.offsets[i],
            "recorded": answers.offsets[i] is not None,
            "earlier_decision": answers.earlier[i],
            "timings": answers.milliseconds,
        }
    )


def earlier_decision(body: bytes) -> Decision | None:
    """The decision given before the payment of an answer of `as_json` was recorded, where there was one."""
    found: Decision | None = from_json(body).get("earlier_decision")
    return found


def with_earlier_decision(body: bytes, decision: Decision) -> bytes:
    """An answer of `as_json` whose payment turns out to have been decided before it was recorded."""
    answer = from_json(body)
    if answer["decision"] != decision and ((mandate := answer["mandate"]) is None or mandate["within"]):
        answer["decision"], answer["action"] = decision, USUAL_ACTION[decision]
    return json_bytes({**answer, "earlier_decision": decision})


def as_table(answers: Answers) -> pa.Table:
    """All answers as columns of `ANSWER_SCHEMA`; reasons and timings are left out."""
    routes = [one.route for one in answers.decided]
    mandates = [one.mandate for one in answers.decided]
    return pa.table(
        {
            "transaction_id": answers.ids,
            "fraud_probability": answers.probability,
            "risk_score": np.rint(100 * answers.probability).astype(np.int32),
            "decision": [one.decision for one in answers.decided],
            "ring_id": [None if ring is None else ring.ring_id for ring in answers.rings],
            "ring_confidence": [None if ring is None else ring.confidence for ring in answers.rings],
            "scored_by": answers.scored_by,
            "degraded": answers.degraded,
            "journal_offset": answers.offsets,
            "model_version": [answers.model_version] * len(answers.ids),
            "recorded": [offset is not None for offset in answers.offsets],
            "action": [one.action for one in answers.decided],
            "policy_version": [one.policy for one in answers.decided],
            "rules": [[hit.id for hit in one.rules] for one in answers.decided],
            "expected_loss": [one.expected_loss for one in answers.decided],
            "fee_bps": [one.fee_bps for one in answers.decided],
            "route": [None if route is None else route.rail for route in routes],
            "route_propensity": [None if route is None else route.propensity for route in routes],
            "mandate_id": [None if mandate is None else mandate.mandate_id for mandate in mandates],
            "mandate_within": [None if mandate is None else mandate.within for mandate in mandates],
            "mandate_failed": [None if mandate is None else mandate.failed for mandate in mandates],
            "mandate_remaining": [None if mandate is None else mandate.remaining for mandate in mandates],
        },
        schema=ANSWER_SCHEMA,
    )


def json_bytes(content: object) -> bytes:
    """Compact JSON."""
    return to_json(content)
