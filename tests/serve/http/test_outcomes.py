"""What became of payments, over HTTP: durable, each once, never against what is recorded, and never read by a score."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import Artifact, untrained
from serve.http.app import build_app
from tests.serve.http.test_service import PAYMENT, ROLES, end, opened, settings

REFUND = {"transaction_id": "p1", "outcome": "refunded", "at": "2026-01-03T00:00:00Z", "amount": 500}


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=4, window_rows=1 << 12)


@pytest.fixture
def client(artifact: Artifact, tmp_path: Path) -> Iterator[TestClient]:
    config = settings(tmp_path)
    with TestClient(build_app(config, opened(artifact, config)), raise_server_exceptions=False) as client:
        client.post("/v1/score", json=PAYMENT)
        yield client


def report(client: TestClient, *found: dict[str, Any]) -> Any:
    return client.post("/v1/outcomes", json=list(found) if len(found) > 1 else found[0])


def recorded(client: TestClient) -> list[dict[str, Any]]:
    with SqliteJournal(client.app.state.replica.settings.journal, readonly=True) as journal:
        return [row for e in journal.replay() if e.kind is Kind.OUTCOME for row in e.batch.to_pylist()]


def test_an_outcome_is_recorded_once_with_its_payments_account(client: TestClient) -> None:
    assert report(client, REFUND).json() == {"accepted": 1, "repeated": 0}
    assert report(client, REFUND).json() == {"accepted": 0, "repeated": 1}
    assert report(client, REFUND, {**REFUND, "at": 1767400000000000}).json() == {"accepted": 1, "repeated": 1}
    rows = recorded(client)
    assert [(row["outcome"], row["amount"], row["account_id"], row["mandate_id"]) for row in rows] == [
        ("refunded", 500, "a1", None)
    ] * 2
    assert rows[0]["outcome_id"] != rows[1]["outcome_id"]


def test_an_id_that_stands_for_another_outcome_is_refused_with_every_field(client: TestClient) -> None:
    assert report(client, {**REFUND, "outcome_id": "r-1"}).status_code == 200
    problem = report(client, {**REFUND, "outcome_id": "r-1", "amount": 499, "by": "bank"})
    assert problem.status_code == 409
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["errors"] == [
        {"field": "amount", "reason": "recorded as 500, sent 499"},
        {"field": "by", "reason": "recorded as None, sent 'bank'"},
    ]
    twice = report(client, {**REFUND, "outcome_id": "r-2"}, {**REFUND, "outcome_id": "r-2", "amount": 1})
    assert (twice.status_code, twice.json()["errors"][0]["field"]) == (409, "1.amount")
    assert len(recorded(client)) == 1


@pytest.mark.parametrize(
    ("before", "sent", "field"),
    [
        ({"outcome": "approved"}, {"outcome": "declined"}, "outcome"),
        ({"outcome": "declined"}, {"outcome": "approved"}, "outcome"),
        ({"outcome": "refunded", "amount": 1000}, {"outcome": "refunded", "amount": 300}, "amount"),
        ({"outcome": "reversed"}, {"outcome": "refunded", "amount": 1}, "amount"),
        ({"outcome": "challenge_failed"}, {"outcome": "refunded", "amount": 1235}, "amount"),
    ],
)
def test_what_cannot_be_true_beside_what_is_recorded_is_refused(
    client: TestClient, before: dict[str, Any], sent: dict[str, Any], field: str
) -> None:
    common = {"transaction_id": "p1", "at": "2026-01-03T00:00:00Z"}
    assert report(client, common | before).status_code == 200
    problem = report(client, common | sent)
    assert (problem.status_code, problem.json()["errors"][0]["field"]) == (409, field)
    assert end(client) == 2


def test_outcomes_of_unknown_payments_and_bad_ones_are_refused_whole(client: TestClient) -> None:
    unknown = report(client, REFUND, {**REFUND, "transaction_id": "p9"})
    assert (unknown.status_code, unknown.json()["errors"]) == (
        422,
        [{"field": "1.transaction_id", "reason": "no such payment"}],
    )
    for wrong, field in (
        ({"outcome": "stolen"}, "outcome"),
        ({"amount": 0}, "amount"),
        ({"at": "2099-01-01T00:00:00Z"}, "at"),
        ({"outcome": "approved"}, "body"),
        ({"fraud": True}, "fraud"),
    ):
        problem = report(client, {**REFUND, **wrong})
        assert problem.status_code == 422
        assert problem.json()["errors"][0]["field"] == field, problem.json()
    assert end(client) == 1


def test_a_refund_or_a_reversal_is_no_label_no_score_and_no_feature_changes(artifact: Artifact, tmp_path: Path) -> None:
    scores = []
    for name, outcomes in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        config = settings(tmp_path / name)
        with TestClient(build_app(config, opened(artifact, config))) as client:
            client.post("/v1/score", json=PAYMENT)
            if outcomes:
                assert report(client, REFUND, {**REFUND, "outcome": "chargeback_opened"}).json()["accepted"] == 2
                assert report(client, {**REFUND, "outcome": "reversed", "amount": 1}).json()["accepted"] == 1
            body = client.post("/v1/score", json={**PAYMENT, "transaction_id": "p2", "amount": 77}).json()
            replica = client.app.state.replica
            scores.append(
                (body["fraud_probability"], body["reasons"], replica.state.store.features(np.arange(2)).tolist())
            )
            tally = replica.decider.outcomes.now("a1")
            assert (tally.refunds, tally.chargebacks, tally.reversed) == ((1, 1, 1) if outcomes else (0, 0, 0))
    assert scores[0] == scores[1]


def test_outcomes_reach_other_replicas_and_a_restart(artifact: Artifact, client: TestClient) -> None:
    report(client, {**REFUND, "outcome": "challenge_passed", "amount": None})
    again = opened(artifact, client.app.state.replica.settings)
    assert again.decider.outcomes.now("a1").challenge_pass_rate == 1.0
    assert [t.challenges_passed for t in again.decider.outcomes.of(["a1", "a1"], [1, 2])] == [0, 1]
    again.decider.outcomes.adopt(again.decider.outcomes.facts())
    assert [t.challenges_passed for t in again.decider.outcomes.of(["a1", "a1"], [1, 2])] == [0, 1]
    again.close()
