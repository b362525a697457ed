"""The console's pages without a browser: who gets in, what forms do, and that nothing in a name can break a page."""

import re
import stat
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from data.errors import JournalError
from graph.errors import GraphError
from serve.cases.records import CaseFilter, CaseState
from serve.console.app import build_console
from serve.console.settings import ConsoleSettings, read_secret
from serve.errors import ServeError
from serve.keys import KeyRing, revoke_key
from tests.serve.cases.fake import START, paid
from tests.serve.console.conftest import NASTY, SECRET, Console, FakePolicies, picture, token

PAGES = (
    *("/queue", "/cases/1", "/alerts", "/help", "/search", "/search?q=d1", "/entities/account/anna", "/payments/e00"),
    *("/policies", f"/policies/{FakePolicies().version}"),
)


class Links(HTMLParser):
    """Addresses of a page, and what its elements are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in ("href", "src", "action") and value]
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"], (tag, attrs)


@pytest.mark.parametrize("path", [*PAGES, "/", "/rings/K-1", "/rings/K-1/picture", "/cases/1/comparison"])
def test_nobody_sees_a_page_without_signing_in(console: Console, path: str) -> None:
    answer = console.client().get(path)
    assert "Sign in" in answer.text
    assert answer.url.path == "/signin"
    assert "EUR" not in answer.text


def test_a_key_that_may_investigate_signs_in_and_others_do_not(console: Console) -> None:
    client = console.client()
    for key, said in (("wrong", "no key that is good"), (console.weak, "not the scope"), ("", "no key that is good")):
        page = client.get("/signin").text
        answer = client.post("/signin", data={"csrf": token(page), "key": key})
        assert answer.status_code == 403
        assert said in answer.text
    page = client.get("/signin?next=/alerts").text
    answer = client.post("/signin", data={"csrf": token(page), "key": console.key, "next": "/alerts"})
    assert answer.url.path == "/alerts"
    assert "iris" in answer.text
    cookie = answer.history[0].headers["set-cookie"]
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert console.key not in cookie


@pytest.mark.parametrize("after", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:1"])
def test_signing_in_leads_to_no_other_site(console: Console, after: str) -> None:
    client = console.client()
    page = client.get("/signin", params={"next": after}).text
    answer = client.post("/signin", data={"csrf": token(page), "key": console.key, "next": after})
    assert answer.url.host == "testserver"
    assert answer.url.path == "/queue"


def test_a_revoked_key_ends_its_sessions(console: Console) -> None:
    client = console.signed_in()
    assert client.get("/queue").url.path == "/queue"
    revoke_key(console.file, "iris")
    assert client.get("/queue").url.path == "/signin"


def test_signing_out_ends_a_session(console: Console) -> None:
    client = console.signed_in()
    client.post("/signout", data={"csrf": token(client.get("/queue").text)})
    assert client.get("/queue").url.path == "/signin"


def test_a_cookie_that_was_made_up_is_nobodys(console: Console) -> None:
    client = console.client()
    client.cookies.set("ringwatch", "eyJuYW1lIjogImlyaXMifQ==.aaaa.bbbb")
    assert client.get("/queue").url.path == "/signin"


@pytest.mark.parametrize(
    "path",
    ["/cases/1/verdict", "/cases/1/comment", "/cases/1/assign", "/cases/1/snooze", "/cases/1/merge", "/cases/1/split"],
)
@pytest.mark.parametrize("given", [{}, {"csrf": ""}, {"csrf": "made up"}])
def test_a_form_without_the_sessions_token_does_nothing(console: Console, path: str, given: dict[str, str]) -> None:
    client, before = console.signed_in(), console.book.case(1)
    more = {
        "verdict": "fraud",
        "payment": "e01",
        "text": "x",
        "to": "x",
        "days": "1",
        "into": "2",
        "member": "account:ben",
    }
    answer = client.post(path, data={**more, **given})
    assert answer.status_code == 403
    assert "try again" in answer.text
    assert console.book.case(1) == before
    assert not console.world.given


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_strict_about_what_may_run(console: Console, path: str) -> None:
    answer = console.signed_in().get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.findall(r"<script(?![^>]* src=)", answer.text) == []


def test_every_link_of_every_page_leads_somewhere(console: Console) -> None:
    client, seen, waiting = console.signed_in(), set[str](), ["/queue"]
    while waiting:
        path = waiting.pop()
        if path in seen or not path.startswith("/") or path == "/signout":
            continue
        seen.add(path)
        answer = client.get(path)
        if answer.status_code == 405:  # the address of a form
            continue
        assert answer.status_code == 200, path
        if "html" in answer.headers["content-type"]:
            page = Links(answer.text)
            waiting += [link.partition("#")[0] for link in page.found]
            if "body" in page.tags:
                assert "script" not in page.tags[page.tags.index("body") :]  # nothing that was in a name
    assert f"/entities/account/{quote(NASTY, safe='')}" in seen
    assert len(seen) > 40


def test_the_queue_shows_money_by_currency_and_confidence(console: Console) -> None:
    text = console.signed_in().get("/queue").text
    assert "900.00 EUR" in text
    assert "200.00 USD" in text
    assert "90 %" in text
    assert text.index("C-1") < text.index("C-2")


def test_the_queue_is_filtered(console: Console) -> None:
    client = console.signed_in()
    console.book.assign(2, "iris", "iris")
    mine = client.get("/queue?assignee=me").text
    assert ">C-2<" in mine
    assert ">C-1<" not in mine
    assert ">C-1<" in client.get("/queue", params={"q": "CLEO"}).text
    assert "No case matches" in client.get("/queue", params={"q": "nothing like it"}).text


def test_a_verdict_is_about_the_payments_that_are_ticked(console: Console) -> None:
    client = console.signed_in()
    page = client.get("/cases/1").text
    ticked = set(re.findall(r'name="payment" value="(\w+)"[^>]* checked', page))
    assert ticked == {"e01", "e11", "e21"}  # evidence that nobody has judged
    form = {
        "csrf": token(page),
        "verdict": "fraud",
        "payment": ["e01", "e11"],
        "note": "two devices",
        "request_id": "r",
    }
    answer = client.post("/cases/1/verdict", data=form)
    assert answer.url.path == "/queue"
    assert "C-1 is confirmed: 2 payments are fraud" in answer.text
    assert [(v.transaction_ids, v.by, v.note) for v in console.world.given] == [(("e01", "e11"), "iris", "two devices")]
    assert console.book.case(1).summary.state is CaseState.CONFIRMED
    alerts = client.get("/alerts").text
    assert "h0" in alerts


def test_dismissing_does_not_overturn_reports_unless_that_is_said(console: Console) -> None:
    client = console.signed_in()
    form = {"csrf": token(client.get("/cases/1").text), "verdict": "legitimate", "payment": ["e00", "e01"]}
    answer = client.post("/cases/1/verdict", data=form)
    assert answer.status_code == 409
    assert "1 of the payments that you ticked are reported as fraud" in answer.text
    assert not console.world.given
    client.post("/cases/1/verdict", data={**form, "overturn": "yes"})
    assert console.book.case(1).summary.state is CaseState.DISMISSED


def test_every_act_can_be_done_by_a_form(console: Console) -> None:
    client = console.signed_in()
    csrf = token(client.get("/cases/1").text)

    def send(path: str, **given: str) -> str:
        answer = client.post(path, data={"csrf": csrf, **given})
        assert answer.status_code == 200, answer.text
        return answer.text

    assert "looks &lt;b&gt;bad&lt;/b&gt;" in send("/cases/1/comment", text="looks <b>bad</b>")
    assert "assigned to otto" in send("/cases/1/assign", to="otto")
    assert "comes back in 3 days" in send("/cases/1/snooze", days="3")
    assert [case.id for case in console.book.queue(CaseFilter(snoozed=True))] == [1]
    assert "is open again" in send("/cases/1/reopen")
    assert "members went into this new case" in send("/cases/1/split", member="account:cleo", note="another hand")
    assert "went into C-1" in send("/cases/2/merge", into="c-1")
    alert = console.book.alerts()[0].transaction_id
    assert "is done" in send(f"/alerts/{alert}/done")
    assert client.post("/cases/1/merge", data={"csrf": csrf, "into": "77"}).status_code == 404
    assert client.post("/cases/1/dance", data={"csrf": csrf}).status_code == 409


def test_a_verdict_that_cannot_be_recorded_says_so(console: Console) -> None:
    client = console.signed_in()
    console.world.fails = JournalError("disk full")
    form = {"csrf": token(client.get("/cases/1").text), "verdict": "fraud", "payment": "e01"}
    answer = client.post("/cases/1/verdict", data=form)
    assert (answer.status_code, "nothing was recorded" in answer.text) == (503, True)
    assert console.book.case(1).summary.state is CaseState.OPEN


@pytest.mark.parametrize(
    ("q", "path"),
    [
        ("C-2", "/cases/2"),
        ("c-1", "/cases/1"),
        ("K-1", "/cases/1"),
        ("e00", "/payments/e00"),
        ("anna", "/entities/account/anna"),
        (" d1 ", "/entities/device/d1"),
    ],
)
def test_search_leads_straight_to_an_id(console: Console, q: str, path: str) -> None:
    assert console.signed_in().get("/search", params={"q": q}).url.path == path


def test_search_shows_all_that_has_an_id_in_more_than_one_role(console: Console) -> None:
    text = console.signed_in().get("/search", params={"q": NASTY}).text
    for role in ("account", "merchant", "device"):
        assert f"<li>{role} " in text
    assert "Nothing has this id" in console.signed_in().get("/search", params={"q": "nobody"}).text


def test_a_ring_is_compared_with_accounts_that_are_in_none(console: Console) -> None:
    answer = console.signed_in().get("/cases/1/comparison", headers={"hx-request": "true"})
    assert "payments in the busiest hour" in answer.text
    assert "1 to 3.50" in answer.text
    assert 'href="/rings/K-2"' in answer.text  # looks like it
    assert "<html" not in answer.text
    assert "nothing to compare with" in console.signed_in().get("/cases/3/comparison").text


def test_a_picture_that_was_not_built_says_so(console: Console) -> None:
    def broken(record: object, payments: object) -> str:
        raise GraphError("run make picture")

    app = build_console(console.world, console.book, KeyRing(), ConsoleSettings(SECRET, insecure=True), broken)
    answer = TestClient(app, base_url="http://localhost").get("/rings/K-1/picture")
    assert (answer.status_code, answer.text) == (503, "There is no picture: run make picture")


def test_a_picture_runs_as_a_page_of_nobody(console: Console) -> None:
    answer = console.signed_in().get("/rings/K-1/picture")
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts allow-downloads;")
    assert "K-1" in answer.text


@pytest.mark.parametrize(
    "path", ["/cases/99", "/rings/K-99", "/entities/account/nobody", "/entities/cat/anna", "/payments/none", "/none"]
)
def test_what_is_not_there_is_a_page_that_says_so(console: Console, path: str) -> None:
    answer = console.signed_in().get(path)
    assert answer.status_code == 404
    assert "To the queue" in answer.text


def test_endless_forms_are_refused(console: Console) -> None:
    client = console.signed_in()
    assert client.post("/cases/1/comment", data={"text": "x" * (1 << 22)}).status_code == 413


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "var" / "secret"
    first = read_secret(file)
    assert read_secret(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert first not in repr(ConsoleSettings(first))
    file.write_text("short")
    with pytest.raises(ServeError, match="at least 32"):
        ConsoleSettings(read_secret(file))


def test_the_library_comes_from_its_package(console: Console) -> None:
    answer = TestClient(console.app).get("/static/htmx.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "htmx" in answer.text


def test_where_nobody_signs_in_only_this_machine_is_answered(console: Console) -> None:
    app = build_console(console.world, console.book, KeyRing(), ConsoleSettings(SECRET, insecure=True), picture)
    client = TestClient(app, base_url="http://127.0.0.1")
    page = client.get("/cases/1").text
    client.post("/cases/1/comment", data={"csrf": token(page), "text": "x"})
    assert (console.book.case(1).events[-1].by, "Sign out" in page) == ("investigator", False)
    assert client.post("/cases/1/comment", data={"text": "x"}).status_code == 403
    assert client.get("/v1/cases").status_code == 200
    assert TestClient(app, base_url="http://evil.example").get("/v1/cases").status_code == 400


def test_plain_text_is_no_act(console: Console) -> None:
    headers = {"authorization": f"Bearer {console.key}", "content-type": "text/plain"}
    answer = TestClient(console.app).post("/v1/cases/1/comment", content='{"note": "x"}', headers=headers)
    assert answer.status_code == 422
    assert console.book.case(1).events[-1].kind != "comment"


def test_the_page_of_an_account_shows_what_it_pays_again_and_again_and_what_to_tell_its_owner(console: Console) -> None:
    for k, days in enumerate((0, 31, 61, 92, 122, 153)):  # the fourth of each month
        price = 1_299 if k < 5 else 1_499
        console.world.payments.append(paid(f"films {k}", NASTY, 24 * days, amount=price, merchant="films"))
    console.world.now = START + timedelta(days=155)
    page = console.signed_in().get(f"/entities/account/{quote(NASTY, safe='')}").text
    assert NASTY not in page
    for words in ("To tell its owner", "Price rise", "Next payment", "monthly", "14.99 EUR", "4 Sep 2026"):
        assert words in page, words
