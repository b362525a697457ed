"""The service over HTTP in one process: durable, idempotent, all or nothing, and never without an answer."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from data.history import History
from data.journal.sqlite import SqliteJournal
from data.schema import TRANSACTION_SCHEMA
from gnn.model.artifact import Artifact, untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.protocol import Scorer
from gnn.score.replay import open_model, score_events
from graph.state import GraphState
from serve.http import wire
from serve.http.app import build_app
from serve.http.wire import ARROW, Payment, arrow_bytes
from serve.replica.admission import LabelCall, ScoreCall
from serve.replica.replica import Replica
from serve.settings import Settings
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device")
RINGS = "/v1/ties?as_of=2026-01-02"  # before the payments: of the newest one
PAYMENT = {
    "transaction_id": "p1",
    "timestamp": "2026-01-02T03:04:05Z",
    "account_id": "a1",
    "merchant_id": "m1",
    "device_id": "d1",
    "amount": 1234,
    "currency": "EUR",
}


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=4, window_rows=1 << 12)


def settings(folder: Path, **more: object) -> Settings:
    return Settings(model=folder, journal=folder / "journal.sqlite", insecure=True, capacity=1 << 13, **more)


def opened(artifact: Artifact, config: Settings, **more) -> Replica:
    replica = Replica(artifact, config, **more)
    replica.open()
    return replica


@pytest.fixture
def client(artifact, tmp_path) -> Iterator[TestClient]:
    config = settings(tmp_path)
    with TestClient(build_app(config, opened(artifact, config)), raise_server_exceptions=False) as client:
        yield client


def end(client: TestClient) -> int:
    return int(client.app.state.replica.journal.end)


def test_an_answer_has_all_its_parts(client):
    body = client.post("/v1/score", json=PAYMENT).json()
    assert set(body) == {
        "transaction_id", "fraud_probability", "risk_score", "decision", "baseline", "reasons", "ring", "model",
        "scored_by", "degraded", "journal_offset", "recorded", "earlier_decision", "timings",
            "action", "policy", "rules", "expected_loss", "fee_bps", "route", "mandate",
    }  # fmt: skip
    assert body["scored_by"] == "cpu"
    assert not body["degraded"]
    assert 1 <= len(body["reasons"]) <= 5
    assert body["journal_offset"] == 0
    assert end(client) == 1


def adds_up(body: dict[str, Any]) -> bool:
    """Whether baseline and contributions are the log-odds of the probability, to rounding."""
    odds = body["fraud_probability"] / (1 - body["fraud_probability"])
    return abs(body["baseline"] + sum(r["contribution"] for r in body["reasons"]) - np.log(odds)) < 1e-4


def test_reasons_add_up_to_the_log_odds_from_the_baseline(client):
    baselines = set()
    for i in range(12):
        at = f"2026-01-02T{4 + i:02}:00:00Z"
        payment = {**PAYMENT, "transaction_id": f"p{i}", "timestamp": at, "account_id": f"a{i % 3}", "amount": 9 * 2**i}
        body = client.post("/v1/score", json=payment).json()
        client.post("/v1/labels", json={"transaction_id": f"p{i}", "is_fraud": i % 4 == 0, "reported_at": at})
        assert adds_up(body)
        assert 1 <= len(body["reasons"]) <= 5
        baselines.add(body["baseline"])
    assert len(baselines) == 1


def test_a_repeat_gets_the_same_answer_and_changed_content_a_409(client):
    first = client.post("/v1/score", json=PAYMENT)
    again = client.post("/v1/score", json=PAYMENT)
    assert again.json() == first.json()
    changed = client.post("/v1/score", json={**PAYMENT, "amount": 1})
    assert changed.status_code == 409
    assert changed.headers["content-type"] == "application/problem+json"
    assert changed.json()["errors"] == [{"field": "amount", "reason": "recorded as 1234, sent 1"}]
    twice = client.post("/v1/scores", json=[{**PAYMENT, "transaction_id": "p2"}, {**PAYMENT, "amount": 2}])
    assert twice.status_code == 409
    assert twice.json()["errors"] == [{"field": "1.amount", "reason": "recorded as 1234, sent 2"}]
    assert end(client) == 1


def test_a_conflict_names_every_field_that_differs(client):
    client.post("/v1/score", json=PAYMENT)
    other = {
        **PAYMENT,
        "timestamp": "2026-01-02T03:04:06.5+01:00",
        "merchant_id": "Müller",
        "card_id": "c",
        "amount": 5,
    }
    del other["device_id"]
    problem = client.post("/v1/score", json=other).json()
    assert problem["errors"] == [
        {"field": "timestamp", "reason": "recorded as 2026-01-02T03:04:05Z, sent 2026-01-02T02:04:06.500000Z"},
        {"field": "merchant_id", "reason": 'recorded as "m1", sent "Müller"'},
        {"field": "device_id", "reason": 'recorded as "d1", sent null'},
        {"field": "amount", "reason": "recorded as 1234, sent 5"},
        {"field": "card_id", "reason": 'recorded as null, sent "c"'},
    ]
    assert problem["detail"].startswith("transaction 'p1' is recorded with other content: timestamp: recorded as")
    assert "transaction_id" not in str(problem["errors"])


def test_a_conflict_is_told_apart_within_a_call_and_a_micro_batch(client):
    twice = [{**PAYMENT, "transaction_id": "p2"}, {**PAYMENT, "amount": 1}, PAYMENT]
    problem = client.post("/v1/scores", json=twice).json()
    assert problem["errors"] == [{"field": "2.amount", "reason": "item 1 of this call says 1, sent 1234"}]
    assert end(client) == 0
    batches = [wire.batch_of(wire.parse(Payment, json.dumps([p]).encode(), 9), TRANSACTION_SCHEMA) for p in twice]
    replica = client.app.state.replica
    first, other, label, second = replica.process(
        [
            ScoreCall(batches[0]),
            ScoreCall(batches[1]),
            LabelCall(label_batch(batches[1], [0], [True])),
            ScoreCall(batches[2]),
        ]
    )
    assert len(first) == len(other) == label["accepted"] == 1
    assert second.errors == [("amount", "recorded as 1, sent 1234")]
    many = client.post("/v1/scores", json=[{**PAYMENT, "amount": 7, "transaction_id": "p1"}] * 2).json()
    assert [error["field"] for error in many["errors"]] == ["0.amount", "1.amount"]
    assert many["detail"].endswith("; so are 1 more of this call")


def test_a_conflict_in_a_large_call_names_its_place_in_the_call(client):
    """Large calls are looked at in parts of 1,024: a part of one item, too."""
    client.post("/v1/scores", json=[{**PAYMENT, "transaction_id": f"n{i}"} for i in (1024, 1030)])
    for n, wrong in ((1025, 1024), (1100, 1030)):
        many = [{**PAYMENT, "transaction_id": f"n{i}", "amount": 1234 + (i == wrong)} for i in range(n)]
        problem = client.post("/v1/scores?reasons=false", json=many).json()
        assert problem["errors"] == [{"field": f"{wrong}.amount", "reason": "recorded as 1234, sent 1235"}]
    twice = [{**PAYMENT, "transaction_id": f"n{i % 60}", "amount": 1234 + i // 60} for i in range(61)]
    problem = client.post("/v1/scores", json=twice).json()
    assert problem["errors"] == [{"field": "60.amount", "reason": "item 0 of this call says 1234, sent 1235"}]
    assert end(client) == 2


def test_labels_are_taken_once_and_only_of_known_payments(client):
    label = {"transaction_id": "p1", "is_fraud": True, "reported_at": "2026-01-09T00:00:00Z"}
    unknown = client.post("/v1/labels", json=label)
    assert unknown.status_code == 422
    assert end(client) == 0
    client.post("/v1/score", json=PAYMENT)
    assert client.post("/v1/labels", json=label).json() == counted(accepted=1)
    assert client.post("/v1/labels", json=[label]).json() == counted(repeated=1)
    assert end(client) == 2


def counted(accepted: int = 0, repeated: int = 0, superseded: int = 0) -> dict[str, int]:
    return {"accepted": accepted, "repeated": repeated, "superseded": superseded}


def label(fraud: bool, day: int, name: str = "p1") -> dict[str, Any]:
    return {"transaction_id": name, "is_fraud": fraud, "reported_at": f"2026-03-{day:02}T00:00:00Z"}


def believed(client: TestClient, name: str = "p1") -> int:
    state = client.app.state.replica.state
    return int(state.store.believed(np.array([state.row_of(name)]))[0])


def test_a_label_that_comes_again_or_late_does_not_overturn_the_newer_one(artifact, tmp_path):
    """Through a restart, which has only the journal to know from."""
    told = [
        (label(True, 21), counted(accepted=1), 1),
        (label(False, 25), counted(accepted=1), 0),
        (label(True, 21), counted(repeated=1), 0),  # the first once more, byte for byte
        (label(True, 23), counted(superseded=1), 0),  # late
        (label(False, 24), counted(superseded=1), 0),  # late, and says what is believed
        (label(False, 26), counted(accepted=1), 0),  # confirmed
        (label(False, 25), counted(repeated=1), 0),
        (label(True, 26), counted(accepted=1), 1),  # of two at once the one that comes later
        (label(False, 26), counted(repeated=1), 1),
    ]
    recorded = 1 + sum(said["repeated"] == 0 for _, said, _ in told)
    config = settings(tmp_path)
    for again in (False, True):
        with TestClient(build_app(config, opened(artifact, config))) as client:
            client.post("/v1/score", json=PAYMENT)
            for sent, said, belief in told:
                assert client.post("/v1/labels", json=sent).json() == (counted(repeated=1) if again else said)
                assert believed(client) == (1 if again else belief)
            assert end(client) == recorded


def test_labels_of_one_call_are_judged_among_each_other(client):
    client.post("/v1/scores", json=[PAYMENT, {**PAYMENT, "transaction_id": "p2"}])
    sent = [label(True, 5), label(True, 3), label(True, 5), label(False, 6), label(True, 4, "p2")]
    assert client.post("/v1/labels", json=sent).json() == counted(accepted=3, repeated=1, superseded=1)
    assert (believed(client), believed(client, "p2")) == (0, 1)
    assert client.post("/v1/labels", json=sent).json() == counted(repeated=5)
    batch = arrow_bytes(pa.Table.from_batches([label_batch(payment_batch(1), [0], [True])]))
    unknown = client.post("/v1/labels", content=batch, headers={"content-type": ARROW})
    assert unknown.json()["errors"] == [{"field": "0.transaction_id", "reason": "no such payment"}]


def test_training_and_re_scoring_believe_what_the_service_believes(artifact, tmp_path):
    """The same labels in any order: from files, from the journal, and as they came in over HTTP."""
    payments = payment_batch(60, seed=3, accounts=12)
    rng = np.random.default_rng(0)
    rows, fraud = rng.integers(0, 60, 150), rng.random(150) < 0.5
    labels = label_batch(payments, rows, fraud, 86_400_000_000 * rng.integers(1, 5, 150))
    labels = pa.concat_batches([labels, labels.slice(20, 60)])  # some come twice
    config = settings(tmp_path)
    head = {"content-type": ARROW}
    with TestClient(build_app(config, opened(artifact, config))) as client:
        for path, batch in (("/v1/scores", payments), ("/v1/labels", labels)):
            sent = client.post(path, content=arrow_bytes(pa.Table.from_batches([batch])), headers=head)
            assert sent.status_code == 200, sent.text
        state = client.app.state.replica.state
        expected = state.store.believed(np.arange(60))
    assert sent.json()["repeated"] >= 60
    assert sent.json()["superseded"] > 10
    from_files = History.from_arrow(*(pa.Table.from_batches([batch]) for batch in (payments, labels)))
    from_journal = History.read(config.journal)
    for history in (from_files, from_journal):
        replayed = GraphState(ROLES, 1 << 10)
        for events in history.events:
            replayed.apply(events)
        np.testing.assert_array_equal(replayed.store.believed(np.arange(60)), expected)
        np.testing.assert_array_equal(history.labelled().fraud, expected == 1)
        np.testing.assert_array_equal(history.labelled().labelled, expected >= 0)
    assert len(from_journal.labels) == len(from_files.labels) == len(labels) - sent.json()["repeated"]


@pytest.mark.parametrize("group", [1, 7, 64, 400])
def test_online_scores_equal_a_replay_of_the_journal(artifact, tmp_path, group):
    payments = payment_batch(400, seed=8, accounts=30)
    config = settings(tmp_path)
    with TestClient(build_app(config, opened(artifact, config))) as client:
        online, head = [], {"content-type": ARROW, "accept": ARROW}
        for i in range(0, 400, group):
            body = arrow_bytes(pa.Table.from_batches([payments.slice(i, group)]))
            answer = client.post("/v1/scores?reasons=false", content=body, headers=head)
            online.append(pa.ipc.open_stream(answer.content).read_all()["fraud_probability"].to_numpy())
            if i % 3 == 0:
                labels = label_batch(payments, [i, i // 2], [True, i % 2 == 0])
                sent = client.post("/v1/labels", content=arrow_bytes(pa.Table.from_batches([labels])), headers=head)
                assert sent.status_code == 200, sent.text
    state, scorer = open_model(artifact)
    with SqliteJournal(config.journal) as journal:
        replayed = np.concatenate([s.probability for s in score_events(state, scorer, journal.replay())])
    np.testing.assert_allclose(np.concatenate(online), replayed, atol=1e-5)


def test_rings_and_answers_survive_a_restart(artifact, tmp_path):
    config = settings(tmp_path)
    many = [{**PAYMENT, "transaction_id": f"p{i}", "account_id": f"a{i % 5}"} for i in range(20)]
    with TestClient(build_app(config, opened(artifact, config))) as client:
        answers, rings = client.post("/v1/scores", json=many).json(), client.get(RINGS).json()
        assert len(rings) == 1
        assert len(rings[0]["accounts"]) == 5
        by_id = client.get(f"/v1/ties/{rings[0]['id']}?as_of=2026-01-02")
        assert by_id.json() == rings[0]  # its risk too, which scores weigh in
        assert client.get("/v1/ties/R-999").status_code == 404
    with TestClient(build_app(config, opened(artifact, config))) as client:
        assert client.get(RINGS).json() == rings
        assert client.post("/v1/scores", json=many).json() == answers


def test_a_ring_expires_by_the_readers_clock(artifact, tmp_path, monkeypatch):
    """150 days without a payment: nothing of it is left, as nothing would be if somebody paid."""
    config = settings(tmp_path)
    many = [{**PAYMENT, "transaction_id": f"p{i}", "account_id": f"a{i % 5}"} for i in range(20)]
    now = datetime(2026, 1, 3, tzinfo=UTC)
    monkeypatch.setattr(wire.time, "time_ns", lambda: int(now.timestamp()) * 10**9)
    with TestClient(build_app(config, opened(artifact, config))) as client:
        client.post("/v1/scores", json=many)
        client.post(
            "/v1/labels", json=[{**label(True, 1, f"p{i}"), "reported_at": PAYMENT["timestamp"]} for i in range(4)]
        )
        (ring,) = client.get("/v1/ties").json()
        assert (len(ring["accounts"]), ring["known_frauds"], len(ring["transactions"])) == (5, 4, 20)
        now = datetime(2026, 2, 1, 3, tzinfo=UTC)  # an hour inside the 30 days
        assert client.get("/v1/ties").json()[0]["known_frauds"] == 4
        now = datetime(2026, 6, 2, tzinfo=UTC)
        assert client.get("/v1/ties").json() == []
        assert client.get(f"/v1/ties/{ring['id']}").status_code == 404
        assert client.get(RINGS).json() == [ring | {"risk": client.get(RINGS).json()[0]["risk"]}]
        now = datetime(2020, 1, 1, tzinfo=UTC)  # a clock that is wrong: never before the journal's
        assert len(client.get("/v1/ties").json()) == 1


class _Faulty(CpuScorer):
    """A device that fails on demand."""

    device_name = "cuda"
    fails = False

    def score(self, first: int, last: int) -> np.ndarray:
        if self.fails:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().score(first, last)


def test_cuda_then_cpu_then_rules_answer(artifact, tmp_path):
    made: list[_Faulty] = []

    def scorers(model: Artifact, state: GraphState) -> list[Scorer]:
        gpu = _Faulty(model, state)
        gpu.device_name = "cuda"
        cpu = _Faulty(model, state, cache=gpu.cache)
        cpu.device_name = "cpu"
        made.extend([gpu, cpu])
        return [gpu, cpu]

    config = settings(tmp_path)
    replica = opened(artifact, config, scorers=scorers)
    with TestClient(build_app(config, replica)) as client:

        def ask(i: int) -> tuple[str, bool]:
            body = client.post("/v1/score", json={**PAYMENT, "transaction_id": f"f{i}"}).json()
            assert adds_up(body)
            return body["scored_by"], body["degraded"]

        assert ask(0) == ("cuda", False)
        made[0].fails = True
        assert ask(1) == ("cpu", True)
        made[1].fails = True
        assert ask(2) == ("rules", True)
        made[1].fails = False
        replica.slot.breakers[1]._until = 0.0  # its pause is over: one call may try it again
        assert ask(3) == ("cpu", True)
        assert replica.slot.scored == replica.state.store.rows == 4  # the row that rules answered has been caught up
        made[0].fails = False
        replica.slot.breakers[0]._until = 0.0
        assert ask(4) == ("cuda", False)
        assert replica.journal.end == 5


GARBAGE = [
    b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"amount": NaN}', b'"text"', b"[1, 2]", b"{}",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/score", "/v1/scores", "/v1/labels"])
@pytest.mark.parametrize("kind", ["application/json", ARROW, "text/plain"])
def test_garbage_is_refused_with_a_problem(client, path, kind):
    for body in GARBAGE:
        answer = client.post(path, content=body, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500, (path, kind, body[:20], answer.text)
        assert answer.json()["status"] == answer.status_code
    assert end(client) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", -1), ("amount", "12.5"), ("amount", 1.5), ("amount", 10**16), ("amount", None), ("amount", True),
        ("currency", "eur"), ("currency", "EURO"), ("timestamp", "1900-01-01T00:00:00Z"),
        ("timestamp", "2300-01-01T00:00:00Z"), ("timestamp", "2026-13-01"), ("timestamp", 1.5), ("timestamp", 2**70),
        ("timestamp", "2090-01-01T00:00:00Z"), ("account_id", ""), ("account_id", "x" * 129), ("account_id", "a\x00b"),
        ("account_id", 7.5), ("transaction_id", "x" * 65), ("device_id", ""), ("surprise", 1),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(client, field, value):
    answer = client.post("/v1/score", json={**PAYMENT, field: value})
    assert answer.status_code == 422, answer.text
    assert field in answer.json()["errors"][0]["field"]
    listed = client.post("/v1/scores", json=[{**PAYMENT, "transaction_id": "ok"}, {**PAYMENT, field: value}])
    assert listed.status_code == 422
    assert end(client) == 0


def test_too_much_is_refused(client):
    many = client.post("/v1/scores", json=[{**PAYMENT, "transaction_id": f"x{i}"} for i in range(10_001)])
    assert many.status_code == 413
    assert client.post("/v1/score", content=b"x" * (17 << 20)).status_code == 413
    assert client.get("/v1/nothing").json()["status"] == 404
    assert client.get("/v1/score").json()["status"] == 405
    assert end(client) == 0


def test_keys(artifact, tmp_path, monkeypatch):
    monkeypatch.setenv("RINGWATCH_API_KEYS", "first-key,second-key")
    config = Settings.from_environment(model=tmp_path, journal=tmp_path / "j.sqlite", capacity=1 << 13)
    assert "-key" not in repr(config)
    with TestClient(build_app(config, opened(artifact, config))) as client:
        assert client.post("/v1/score", json=PAYMENT).status_code == 401
        assert client.get("/metrics").status_code == 401
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 200
        with_key = {"authorization": "Bearer second-key"}
        assert client.post("/v1/score", json=PAYMENT, headers=with_key).status_code == 200
        assert b"ringwatch_journal_offset 1.0" in client.get("/metrics", headers=with_key).content
        assert client.get("/openapi.json").json()["paths"]["/v1/score"]["post"]["requestBody"]


CHILD = """
    import sys
    from pathlib import Path
    from starlette.testclient import TestClient
    from tests.serve.http.test_service import PAYMENT, opened, settings, untrained, ROLES
    from serve.http.app import build_app
    config = settings(Path(sys.argv[1]))
    model = untrained(ROLES, neighbours=4, window_rows=1 << 12)
    with TestClient(build_app(config, opened(model, config))) as client:
        for i in range(100_000):
            answer = client.post("/v1/score", json={**PAYMENT, "transaction_id": f"k{i}"})
            assert answer.status_code == 200
            print(f"k{i}", flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(artifact, tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(25)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += child.stdout.read().split("\n")[:-1]
    child.wait()
    config = settings(tmp_path)
    replica = opened(artifact, config)
    assert all(replica.state.row_of(i) is not None for i in acknowledged)
    assert replica.slot.scored == replica.state.store.rows >= 25
    replica.close()
