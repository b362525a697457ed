"""Profiles and guidance over HTTP."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from serve.cases.remote import RemoteInvestigation
from serve.console.account_routes import account_routes
from serve.http.client import RingwatchClient
from serve.http.failures import answer_failures
from tests.serve.cases.fake import START, FakeInvestigation, paid

NAME = "anna / 1?"  # has to survive a path


def world() -> FakeInvestigation:
    """Anna pays for films on the 12th of each month, dearer of late, and is paid at the end of each."""
    found = FakeInvestigation()
    for month in range(1, 7):
        films = datetime(2026, month, 12, 9, tzinfo=UTC)
        price = 1_299 if month < 6 else 1_499
        found.payments.append(paid(f"f{month}", NAME, _hours(films), amount=price, merchant="films"))
        pay = datetime(2026, month, 28, 9, tzinfo=UTC)
        found.payments.append(paid(f"p{month}", "employer", _hours(pay), amount=250_000, payee=NAME))
    found.now = datetime(2026, 6, 29, tzinfo=UTC)
    return found


def _hours(moment: datetime) -> float:
    return (moment - START) / timedelta(hours=1)


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    answer_failures(app)

    def who(_: Request) -> str:
        return "iris"

    app.include_router(account_routes(world(), who))
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.fixture
def remote(client: TestClient) -> RemoteInvestigation:
    def forward(request: httpx.Request) -> httpx.Response:
        answer = client.request(request.method, str(request.url.raw_path, "ascii"), headers=dict(request.headers))
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)

    return RemoteInvestigation(RingwatchClient("http://127.0.0.1", transport=httpx.MockTransport(forward)))


def test_a_client_reads_the_profile_and_the_guidance_of_an_account(remote: RemoteInvestigation) -> None:
    here = world()
    known = here.profile(NAME)
    assert known is not None
    assert [(one.name, one.period) for one in (*known.recurring, *known.income)] == [
        ("films", "monthly"),
        ("employer", "monthly"),
    ]
    assert known.forecast is not None
    assert remote.profile(NAME) == known
    assert remote.profile("nobody") is None
    advice = here.guidance(NAME, {"EUR": 100})
    assert advice is not None
    assert {one.kind for one in advice} == {"upcoming_bills", "price_rise", "shortfall"}
    assert remote.guidance(NAME, {"EUR": 100}) == advice
    assert remote.guidance("nobody") is None


def test_a_profile_as_of_an_earlier_moment_knows_nothing_later(remote: RemoteInvestigation) -> None:
    early = remote.profile(NAME, as_of=int(datetime(2026, 4, 20, tzinfo=UTC).timestamp() * 1e6))
    assert early is not None
    assert [len(one.transaction_ids) for one in early.recurring] == [4]
    assert early.recurring[0].rises == ()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("balance=12", "balance"),
        ("balance=EUR:1&balance=EUR:2", "balance"),
        ("balance=EUR:9999999999999999", "balance"),
        ("as_of=soon", "as_of"),
        ("days=3", "days"),
    ],
)
def test_a_bad_query_is_refused_with_its_field(client: TestClient, query: str, field: str) -> None:
    answer = client.get(f"/v1/accounts/anna/guidance?{query}")
    assert answer.status_code == 422
    assert field in answer.text


def test_an_account_that_nobody_knows_is_not_found(client: TestClient) -> None:
    for part in ("profile", "guidance"):
        answer = client.get(f"/v1/accounts/nobody/{part}")
        assert (answer.status_code, "nobody" in answer.json()["detail"]) == (404, True)
