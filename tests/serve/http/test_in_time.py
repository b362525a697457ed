"""An answer, always: inside its budget by the model or by rules, and what was not recorded says so and is made good."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from data.errors import JournalError
from data.journal.protocol import Kind
from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import Artifact, untrained
from serve.http.app import build_app
from serve.http.wire import ARROW, arrow_bytes
from serve.replica.replica import Replica
from tests.serve.http.test_service import PAYMENT, ROLES, end, opened, settings
from tests.world import payment_batch

STRICT = {"prefer": "handling=strict"}
SHORT = {"x-ringwatch-deadline-ms": "40"}
LONG = {"x-ringwatch-deadline-ms": "20000"}


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=4, window_rows=1 << 12)


@pytest.fixture
def client(artifact: Artifact, tmp_path: Path) -> Iterator[TestClient]:
    config = settings(tmp_path)
    with TestClient(build_app(config, opened(artifact, config)), raise_server_exceptions=False) as client:
        assert client.post("/v1/score", json={**PAYMENT, "transaction_id": "first"}).json()["recorded"]
        yield client


def replica_of(client: TestClient) -> Replica:
    replica: Replica = client.app.state.replica
    return replica


@contextmanager
def stalled_disk(client: TestClient) -> Iterator[threading.Event]:
    """Commits that wait, as on a disk that does not answer, until the block is left; the event says that one does."""
    journal = replica_of(client).journal
    begin, waits, go_on = journal.begin, threading.Event(), threading.Event()

    @contextmanager
    def stalls() -> Iterator[Any]:
        with begin() as commit:
            yield commit
            waits.set()
            assert go_on.wait(20)

    journal.begin = stalls  # type: ignore[method-assign]
    try:
        yield waits
    finally:
        journal.begin = begin  # type: ignore[method-assign]
        go_on.set()


def outcomes(client: TestClient) -> list[tuple[str, str]]:
    """The decisions in the journal that were given before their payments were recorded."""
    with SqliteJournal(replica_of(client).settings.journal, readonly=True) as journal:
        found = [e.batch for e in journal.replay() if e.kind is Kind.OUTCOME]
    return [(row["transaction_id"], row["outcome"]) for batch in found for row in batch.to_pylist()]


def eventually(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_disk_that_does_not_answer_keeps_no_caller_waiting_and_the_decision_given_stands(client: TestClient) -> None:
    large = {**PAYMENT, "transaction_id": "s1", "amount": 200_000}
    with stalled_disk(client):
        begin = time.monotonic()
        answer = client.post("/v1/score", json=large, headers=SHORT)
        assert time.monotonic() - begin < 5  # and not as long as the disk takes; figures are in docs/reliability.md
        body = answer.json()
        assert (answer.status_code, body["recorded"], body["journal_offset"]) == (200, False, None)
        assert (body["scored_by"], body["degraded"]) == ("rules", True)
        assert [r["code"] for r in body["reasons"]] == ["RULE_AMOUNT"]
        again = client.post("/v1/score", json=large, headers=SHORT).json()
        assert (again["recorded"], again["decision"]) == (False, body["decision"])
    # The commit goes through after all: the payment is there once, and with it the decision that was given.
    eventually(lambda: outcomes(client) == [("s1", body["decision"])])
    for _ in range(2):
        made_good = client.post("/v1/score", json={**large, "decision_given": body["decision"]}, headers=LONG).json()
        assert made_good["recorded"]
        assert made_good["scored_by"] == "cpu"
        assert (made_good["decision"], made_good["earlier_decision"]) == (body["decision"], body["decision"])
    assert outcomes(client) == [("s1", body["decision"])]
    assert end(client) == 3  # two payments and one outcome
    assert len(replica_of(client).given) == 0


def test_strict_callers_are_refused_in_place_of_an_answer_by_rules(client: TestClient) -> None:
    with stalled_disk(client) as waits, ThreadPoolExecutor(1) as pool:
        late = pool.submit(client.post, "/v1/score", json={**PAYMENT, "transaction_id": "s1"}, headers=STRICT | SHORT)
        assert waits.wait(20)
        assert late.result().status_code == 504
    eventually(lambda: end(client) == 2)


def test_a_journal_that_cannot_be_written_is_answered_by_rules_from_the_graph(client: TestClient) -> None:
    label = {"transaction_id": "first", "is_fraud": True, "reported_at": "2026-01-03T00:00:00Z"}
    assert client.post("/v1/labels", json=label).status_code == 200
    replica, begin = replica_of(client), replica_of(client).journal.begin

    def full() -> Any:
        raise JournalError("database or disk is full")

    replica.journal.begin = full  # type: ignore[method-assign]
    body = client.post("/v1/score", json={**PAYMENT, "transaction_id": "s1"}).json()
    assert (body["recorded"], body["scored_by"]) == (False, "rules")
    assert "RULE_KNOWN_FRAUD" in [r["code"] for r in body["reasons"]]
    strict = client.post("/v1/score", json={**PAYMENT, "transaction_id": "s1"}, headers=STRICT)
    assert strict.status_code == 503
    assert client.post("/v1/labels", json=label).status_code == 503
    replica.journal.begin = begin  # type: ignore[method-assign]
    body = client.post("/v1/score", json={**PAYMENT, "transaction_id": "s1"}).json()
    assert (body["recorded"], body["journal_offset"]) == (True, 2)


def test_a_decision_that_a_caller_carries_to_another_replica_is_recorded_there(
    client: TestClient, artifact: Artifact
) -> None:
    config = replica_of(client).settings
    carried = {**PAYMENT, "transaction_id": "s1", "decision_given": "decline"}
    with TestClient(build_app(config, opened(artifact, config))) as other:
        body = other.post("/v1/score", json=carried).json()
    assert (body["decision"], body["earlier_decision"], body["recorded"]) == ("decline", "decline", True)
    assert outcomes(client) == [("s1", "decline")]
    plain = client.post("/v1/score", json={**PAYMENT, "transaction_id": "s1"}).json()  # what was given stands
    assert plain == {**body, "timings": plain["timings"]}
    assert client.post("/v1/score", json={**carried, "decision_given": "perhaps"}).status_code == 422
    many = [{**PAYMENT, "transaction_id": f"m{i}", "decision_given": [None, "review"][i % 2]} for i in range(4)]
    assert [a["earlier_decision"] for a in client.post("/v1/scores", json=many).json()] == [None, "review"] * 2
    table = pa.Table.from_batches([payment_batch(3, seed=1)]).append_column(
        "decision_given", pa.array(["x", None, None])
    )
    refused = client.post("/v1/scores", content=arrow_bytes(table), headers={"content-type": ARROW})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "0.decision_given")
    assert outcomes(client) == [("s1", "decline"), ("m1", "review"), ("m3", "review")]


def test_while_the_journal_is_replayed_payments_are_answered_by_rules_and_strict_callers_refused(
    artifact: Artifact, tmp_path: Path
) -> None:
    config = settings(tmp_path)
    held, go_on = Replica(artifact, config), threading.Event()
    replay = held.open
    held.open = lambda *_: go_on.wait(20) and replay()  # type: ignore[method-assign]
    with TestClient(build_app(config, held)) as client:
        body = client.post("/v1/score", json=PAYMENT).json()
        assert (body["recorded"], body["scored_by"]) == (False, "rules")
        strict = client.post("/v1/score", json=PAYMENT, headers=STRICT)
        assert (strict.status_code, strict.headers["retry-after"]) == (503, "1")
        assert client.get("/readyz").status_code == client.head("/readyz").status_code == 503
        go_on.set()
        eventually(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/score", json=PAYMENT).json()["recorded"]


def test_more_than_can_be_done_in_time_is_told_so_at_once(client: TestClient) -> None:
    batcher = client.app.state.batcher
    for _ in range(50):
        batcher._pace.note(1, 0.010)  # as if a payment took 10 ms here
    with ThreadPoolExecutor(16) as pool, stalled_disk(client) as waits:
        first = pool.submit(client.post, "/v1/score", json={**PAYMENT, "transaction_id": "s0"}, headers=LONG)
        assert waits.wait(20)
        others = [
            pool.submit(client.post, "/v1/score", json={**PAYMENT, "transaction_id": f"s{i}"}, headers=STRICT | SHORT)
            for i in range(1, 12)
        ]
        refused = [other.result() for other in others]
        assert {answer.status_code for answer in refused} <= {429, 504}
        told = [answer for answer in refused if answer.status_code == 429]
        assert len(told) >= 7  # 40 ms have room for no more than four
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in told)
    assert first.result().json()["recorded"]
    assert client.post("/v1/score", json={**PAYMENT, "transaction_id": "s1"}, headers=LONG).json()["recorded"]


def test_single_payments_go_between_the_parts_of_a_large_call(client: TestClient) -> None:
    replica, sizes, seen = replica_of(client), [], threading.Event()
    process = replica.process

    def noting(calls: Any) -> Any:
        sizes.append([len(getattr(call, "batch", ())) for call in calls])
        if len(sizes) == 4:
            seen.set()
        return process(calls)

    client.app.state.batcher._process = noting
    payments = payment_batch(3000, seed=3, accounts=100)
    with ThreadPoolExecutor(1) as pool:
        body, head = arrow_bytes(pa.Table.from_batches([payments])), {"content-type": ARROW, "accept": ARROW}
        large = pool.submit(client.post, "/v1/scores", content=body, headers=head)
        assert seen.wait(20)
        assert client.post("/v1/score", json={**PAYMENT, "transaction_id": "between"}, headers=LONG).json()["recorded"]
        answer = large.result()
    at = next(i for i, batch in enumerate(sizes) if 1 in batch)
    assert at < len(sizes) - 1  # and not behind it
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table["transaction_id"].to_pylist() == payments["transaction_id"].to_pylist()
    assert all(table["recorded"].to_pylist())
    offsets = np.array(table["journal_offset"].to_pylist())
    assert (np.diff(offsets) > 0).all()
    assert end(client) == 3002


def test_a_large_call_that_contradicts_itself_or_the_journal_is_refused_before_any_of_it_is_recorded(
    client: TestClient,
) -> None:
    many = [{**PAYMENT, "transaction_id": f"b{i}"} for i in range(2500)]
    before = end(client)
    itself = client.post("/v1/scores", json=[*many, {**many[3], "amount": 1}])
    assert (itself.status_code, itself.json()["errors"][0]["field"]) == (409, "2500.amount")
    journal = client.post("/v1/scores", json=[*many, {**PAYMENT, "transaction_id": "first", "amount": 1}])
    assert journal.status_code == 409
    assert journal.json()["errors"][0]["field"].startswith("2500.")
    reported = {"is_fraud": False, "reported_at": "2026-01-09T00:00:00Z"}
    unknown = [{**reported, "transaction_id": "first"}] * 2000 + [{**reported, "transaction_id": "never"}]
    refused = client.post("/v1/labels", json=unknown)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "2000.transaction_id")
    assert end(client) == before


def test_what_a_large_call_has_no_time_for_is_answered_by_rules_or_refused(client: TestClient) -> None:
    many = [{**PAYMENT, "transaction_id": f"b{i}"} for i in range(200)]
    with stalled_disk(client):
        rules = client.post("/v1/scores", json=many, headers=SHORT).json()
        assert len(rules) == 200
        assert not any(answer["recorded"] for answer in rules)
        assert client.post("/v1/scores", json=many, headers=SHORT | STRICT).status_code in (429, 504)
    answers = client.post("/v1/scores", json=many, headers=LONG).json()
    assert all(answer["recorded"] for answer in answers)
    assert {a["earlier_decision"] for a in answers} == {"approve"}


def test_moments_that_are_still_to_come_are_refused_for_payments_and_labels(client: TestClient) -> None:
    now = int(time.time() * 1e6)
    for path, body, field in (
        ("/v1/score", {**PAYMENT, "transaction_id": "s1"}, "timestamp"),
        ("/v1/labels", {"transaction_id": "first", "is_fraud": True}, "reported_at"),
    ):
        far = client.post(path, json={**body, field: now + 600_000_000})
        assert (far.status_code, far.json()["errors"][0]["field"]) == (422, field)
        assert "in the future" in far.json()["detail"]
        assert client.post(path, json={**body, field: now + 120_000_000}).status_code == 200
    assert end(client) == 3


@pytest.mark.parametrize("path", ["/v1/ties?account=a1", "/v1/ties?limit=3&acount=a1", "/v1/ties/R-1?full=true"])
def test_what_a_query_asks_for_and_nobody_heeds_is_refused(client: TestClient, path: str) -> None:
    refused = client.get(path)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["reason"].startswith("is no parameter here")


def test_metrics_count_answers_by_rules_and_decisions_not_recorded(client: TestClient) -> None:
    with stalled_disk(client):
        for i in range(3):
            client.post("/v1/score", json={**PAYMENT, "transaction_id": f"s{i}"}, headers=SHORT)
        text = client.get("/metrics").text
    assert "ringwatch_unsettled_decisions 3.0" in text
    counted = [line for line in text.splitlines() if line.startswith("ringwatch_unrecorded_answers_total")]
    assert sum(float(line.split()[-1]) for line in counted) == 3
