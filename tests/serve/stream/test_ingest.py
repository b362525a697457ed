"""Daily files through the command line into a service: payments of one day, and labels that come on others."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from starlette.testclient import TestClient
from typer.testing import CliRunner

from gnn.model.artifact import Artifact, untrained
from serve.cli.main import app
from serve.http.app import build_app
from serve.http.client import RingwatchClient
from tests.serve.http.test_service import ROLES, opened, settings
from tests.world import label_batch, payment_batch

PAYMENTS = payment_batch(60, seed=3, accounts=12)
DAY_US = 86_400_000_000
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=4, window_rows=1 << 12)


@pytest.fixture
def service(artifact: Artifact, tmp_path: Path) -> Iterator[TestClient]:
    config = settings(tmp_path)
    with TestClient(build_app(config, opened(artifact, config))) as client:
        yield client


@pytest.fixture
def ingest(service: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`ringwatch ingest`, in a folder of its own, into the service."""

    def ask(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        found = service.request(request.method, path, content=request.content, headers=dict(request.headers))
        return httpx.Response(
            found.status_code, headers={"content-type": found.headers["content-type"]}, content=found.content
        )

    def made(*_: Any) -> RingwatchClient:
        return RingwatchClient("http://service", transport=httpx.MockTransport(ask))

    monkeypatch.setattr(RingwatchClient, "from_environment", made)
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["ingest", *map(str, words)])


def write(name: str, *batches: pa.RecordBatch) -> str:
    pq.write_table(pa.Table.from_batches(list(batches)), name)
    return name


def said(found: Result) -> str:
    return " ".join(found.output.split())


def believed(service: TestClient) -> list[int]:
    state = service.app.state.replica.state  # type: ignore[attr-defined]
    return state.store.believed(np.arange(state.store.rows)).tolist()


def test_labels_of_yesterdays_payments_reach_the_service(service: TestClient, ingest: Run) -> None:
    first = ["--transactions", write("t1.parquet", PAYMENTS.slice(0, 30))]
    second = ["--transactions", write("t2.parquet", PAYMENTS.slice(30))]
    second += ["--labels", write("l2.parquet", label_batch(PAYMENTS, [3, 40, 5], [True, True, False]))]
    assert ingest(*first).exit_code == 0
    found = ingest(*second)
    assert found.exit_code == 0, found.output
    assert "30 payments and 3 labels" in said(found)
    assert "labels: 3 accepted, 0 repeated, 0 superseded, 0 of unknown payments" in said(found)
    assert [believed(service)[row] for row in (3, 5, 40, 41)] == [1, 0, 1, -1]
    end = service.app.state.replica.journal.end  # type: ignore[attr-defined]
    again = ingest(*second)
    assert "labels: 0 accepted, 3 repeated, 0 superseded, 0 of unknown payments" in said(again)
    assert service.app.state.replica.journal.end == end  # type: ignore[attr-defined]


def test_labels_come_alone(service: TestClient, ingest: Run) -> None:
    ingest("--transactions", write("t.parquet", PAYMENTS))
    newer = label_batch(PAYMENTS, [7], [False], 9 * DAY_US)
    labels = write("l.parquet", newer, label_batch(PAYMENTS, [7, 8], [True, True]), newer)
    found = ingest("--labels", labels)
    assert found.exit_code == 0, found.output
    assert "0 payments and 4 labels" in said(found)
    assert "labels: 3 accepted, 1 repeated, 0 superseded, 0 of unknown payments" in said(found)
    late = ingest("--labels", write("late.parquet", label_batch(PAYMENTS, [7], [True], 2 * DAY_US)))
    assert "labels: 0 accepted, 0 repeated, 1 superseded, 0 of unknown payments" in said(late)
    assert believed(service)[7:9] == [0, 1]


def test_labels_of_payments_that_the_service_does_not_know_are_named_and_the_others_recorded(
    service: TestClient, ingest: Run
) -> None:
    ingest("--transactions", write("t.parquet", PAYMENTS.slice(0, 30)))
    labels = write("l.parquet", label_batch(PAYMENTS, range(20, 32), [True] * 12))
    found = ingest("--labels", labels)
    assert found.exit_code == 2, found.output
    assert "labels: 10 accepted, 0 repeated, 0 superseded, 2 of unknown payments" in said(found)
    assert "'t3-30', 't3-31'" in said(found)
    assert "2 of 12 labels (16.7%), more than 1.0% (--max-refused)" in said(found)
    assert believed(service)[20:] == [1] * 10
    passed = ingest("--labels", labels, "--max-refused", 0.2)
    assert passed.exit_code == 0, passed.output
    assert "'t3-30', 't3-31'" in said(passed)
    strict = ingest("--labels", labels, "--max-refused", 0.2, "--strict")
    assert strict.exit_code == 2
    assert "the service knows no payment 't3-30'" in said(strict)


def test_a_label_that_comes_before_its_payment_is_the_services_to_judge(service: TestClient, ingest: Run) -> None:
    """Reported before the payment's own time: it is sent before it, and named; sent again it is known."""
    words = ["--transactions", write("t.parquet", PAYMENTS), "--max-refused", 1]
    words += ["--labels", write("l.parquet", label_batch(PAYMENTS, [9], [True], -DAY_US))]
    assert "1 of unknown payments" in said(ingest(*words))
    assert "labels: 1 accepted" in said(ingest(*words))
    assert believed(service)[9] == 1
