"""The investigator over HTTP: the same answers as in the process, and a client that reads them back."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from data.journal.protocol import Kind
from graph.rings.records import RING_PAYMENTS, RingState
from serve.cases.book import CaseBook
from serve.cases.investigator import Investigator
from serve.cases.protocol import RingFilter
from serve.cases.remote import RemoteInvestigation
from serve.console.service import build_service
from serve.console.service_settings import InvestigatorSettings
from serve.http.client import RingwatchClient
from serve.keys import add_key
from tests.serve.cases.ringed import HONEST, PHONE, artifact, fraud_reports, in_time, ring_payments, write

RING = ring_payments()
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def investigator(tmp_path: Path) -> Investigator:
    write(tmp_path, (Kind.TRANSACTION, in_time(HONEST, RING)), (Kind.LABEL, fraud_reports(RING)))
    return Investigator(artifact(), settings(tmp_path))


def settings(folder: Path) -> InvestigatorSettings:
    return InvestigatorSettings(model=folder, journal=folder / "journal.sqlite", insecure=True, snapshot_every=0)


@pytest.fixture
def client(investigator: Investigator) -> Iterator[TestClient]:
    with TestClient(
        build_service(settings(investigator.journal.path.parent), investigator), base_url="http://127.0.0.1"
    ) as found:
        until = time.monotonic() + 120
        while found.get("/readyz").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        yield found


@pytest.fixture
def remote(client: TestClient) -> RemoteInvestigation:
    def forward(request: httpx.Request) -> httpx.Response:
        answer = client.request(
            request.method, str(request.url.raw_path, "ascii"), content=request.content, headers=dict(request.headers)
        )
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)

    return RemoteInvestigation(RingwatchClient("http://127.0.0.1", transport=httpx.MockTransport(forward)))


def test_a_client_reads_what_the_investigator_says(investigator: Investigator, remote: RemoteInvestigation) -> None:
    (ring,) = investigator.rings()
    assert remote.rings() == [ring]
    assert remote.ring(ring.id) == ring
    assert remote.ring("K-5555") is None
    assert (known := investigator.profile("a1")) is not None
    assert remote.profile("a1") == known
    assert known.payments > 0
    assert remote.guidance("a1") == investigator.guidance("a1")
    assert remote.profile("nobody") is None
    assert remote.versions(ring.id) == investigator.versions(ring.id)
    assert remote.rings(RingFilter((RingState.QUIET,))) == []
    assert remote.rings(RingFilter(entity=("device", PHONE), since=ring.last_seen, confidence=0.1)) == [ring]
    assert remote.rings(RingFilter(until=ring.first_seen)) == []
    assert remote.rings(as_of=ring.first_seen - 1) == []
    for neighbours in (False, True):
        expected = investigator.ring_payments(ring.id, neighbours)
        assert remote.ring_payments(ring.id, neighbours).to_pylist() == expected.to_pylist()
    assert remote.entity("device", "odd/name ?") is None
    mine, theirs = investigator.entity("device", PHONE), remote.entity("device", PHONE)
    assert theirs is not None
    assert mine is not None
    assert (theirs.tied, theirs.rings, theirs.first_seen) == (mine.tied, mine.rings, mine.first_seen)
    assert theirs.payments.schema == RING_PAYMENTS
    assert theirs.payments.to_pylist() == mine.payments.to_pylist()
    assert remote.payment("ring-3").to_pylist() == investigator.payment("ring-3").to_pylist()  # type: ignore[union-attr]
    assert (remote.clock, remote.position) == (investigator.clock, investigator.position)
    assert remote.comparison(ring.id).equals(investigation_comparison := investigator.comparison(ring.id))
    assert len(investigation_comparison) > 3
    assert remote.alike(ring.id) == investigator.alike(ring.id) == []  # there is no other
    for ask in (remote.ring_payments, remote.comparison, remote.alike):
        with pytest.raises(KeyError):
            ask("K-5555")


def test_a_verdict_over_http_is_journalled_and_read_back(
    investigator: Investigator, remote: RemoteInvestigation
) -> None:
    (ring,) = remote.rings()
    given = remote.give_verdict(ring.id, "fraud", ["ring-0", "ring-1"], "", "one phone", verdict_id="v-9")
    assert remote.give_verdict(ring.id, "fraud", ["ring-0", "ring-1"], "", verdict_id="v-9") == given
    assert list(investigator.verdicts()) == list(remote.verdicts()) == list(remote.verdicts(ring.id)) == [given]
    with pytest.raises(ValueError, match="no payment 'nope'"):
        remote.give_verdict(ring.id, "fraud", ["nope"], "")
    with pytest.raises(KeyError):
        remote.give_verdict("K-5555", "fraud", ["ring-0"], "")


def test_rings_come_in_pages(client: TestClient, investigator: Investigator) -> None:
    (ring,) = investigator.rings()
    page = client.get("/v1/rings?limit=1").json()
    assert ([r["id"] for r in page["rings"]], page["next"]) == ([ring.id], None)
    assert client.get(f"/v1/rings?after={ring.id}").json() == {"rings": [], "next": None}
    assert client.get("/v1/rings?after=K-5555").status_code == 404


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/rings?account=a1", "account"),
        ("/v1/rings?state=sleepy", "state"),
        ("/v1/rings?entity=device", "entity"),
        ("/v1/rings?entity=gadget:d-1", "entity"),
        ("/v1/rings?as_of=yesterday", "as_of"),
        ("/v1/rings?limit=0", "limit"),
        ("/v1/rings/K-1?full=true", "full"),
        ("/v1/entities/gadget/d-1", "role"),
        ("/v1/payments/t1?x=1", "x"),
    ],
)
def test_what_nobody_would_heed_is_refused_and_named(client: TestClient, path: str, field: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert field in answer.json()["errors"][0]["field"] or answer.json()["errors"][0]["field"] == "0"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"verdict": "guilty", "transaction_ids": ["ring-1"]}, "verdict"),
        ({"verdict": "fraud"}, "transaction_ids"),
        ({"verdict": "fraud", "transaction_ids": [""]}, "transaction_ids.0"),
        ({"verdict": "fraud", "transaction_ids": ["ring-1"], "by": "somebody else"}, "by"),
    ],
)
def test_a_bad_verdict_is_refused_and_nothing_is_recorded(
    client: TestClient, investigator: Investigator, body: dict[str, object], field: str
) -> None:
    (ring,) = investigator.rings()
    answer = client.post(f"/v1/rings/{ring.id}/verdict", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert not investigator.verdicts()


def test_payments_of_a_ring_come_as_arrow_where_that_is_accepted(
    client: TestClient, investigator: Investigator
) -> None:

    (ring,) = investigator.rings()
    answer = client.get(f"/v1/rings/{ring.id}/payments", headers={"accept": ARROW})
    assert answer.headers["content-type"] == ARROW
    assert pa.ipc.open_stream(answer.content).read_all().equals(investigator.ring_payments(ring.id))


def test_the_api_describes_itself(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/rings", "/v1/rings/{ring_id}", "/v1/rings/{ring_id}/verdict", "/v1/payments/{transaction_id}"} <= set(
        paths
    )


def test_routes_ask_for_a_key_that_may_investigate_and_keep_its_name(
    investigator: Investigator, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    ida, gateway = add_key(file, "ida", ["investigate"]), add_key(file, "gateway", ["score"])
    config = settings(tmp_path).model_copy(update={"insecure": False, "keys_file": file})
    with TestClient(build_service(config, investigator)) as client:
        while client.get("/readyz").status_code != 200:  # needs no key
            time.sleep(0.05)
        (ring,) = investigator.rings()
        for key, status in ((None, 401), ("rw_wrong", 401), (gateway, 403), (ida, 200)):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            assert client.get("/v1/rings", headers=headers).status_code == status
            path, body = f"/v1/rings/{ring.id}/verdict", {"verdict": "fraud", "transaction_ids": ["ring-0"]}
            assert client.post(path, json=body, headers=headers).status_code == status
    # the journal is closed with the service
    again = Investigator(artifact(), settings(tmp_path), journals=False)
    again.open()
    assert [verdict.by for verdict in again.verdicts()] == ["ida"]
    again.close()


def test_without_keys_no_page_from_elsewhere_reads_or_judges(client: TestClient, investigator: Investigator) -> None:
    assert client.get("/v1/rings", headers={"host": "rebound.example"}).status_code == 403
    (ring,) = investigator.rings()
    form = {"content-type": "text/plain"}
    said = client.post(
        f"/v1/rings/{ring.id}/verdict", content=b'{"verdict":"fraud","transaction_ids":[]}', headers=form
    )
    assert said.status_code == 415
    assert not investigator.verdicts()


def test_rings_become_cases_in_the_background(client: TestClient, investigator: Investigator, tmp_path: Path) -> None:
    book = CaseBook(settings(tmp_path).case_store)
    until = time.monotonic() + 60
    while not book.queue() and time.monotonic() < until:
        time.sleep(0.1)
    (case,) = book.queue()
    assert case.ring_ids == (investigator.rings()[0].id,)
    assert investigator.decisions(["ring-0", "nope"]) == {"ring-0": "approve"}
    book.close()
