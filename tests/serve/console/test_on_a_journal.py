"""The console over a real investigator and its journal: every page, a verdict, and a database made again from it."""

import re
from pathlib import Path

from starlette.testclient import TestClient

from serve.cases.book import CaseBook
from serve.cases.investigator import Investigator
from serve.cases.records import CaseFilter
from serve.console.app import build_console
from serve.console.settings import ConsoleSettings
from serve.keys import KeyRing
from tests.serve.cases.test_investigator import folder, investigator  # noqa: F401 (fixtures)
from tests.serve.console.conftest import SECRET, picture, token
from tests.serve.console.test_pages import Links

ANY = CaseFilter(state=None, snoozed=None)


def test_pages_and_a_verdict_over_a_journal(investigator: Investigator, tmp_path: Path) -> None:  # noqa: F811
    book = CaseBook(tmp_path / "cases.sqlite", decisions=investigator.decisions)
    book.sync(investigator)
    (case,) = book.queue()
    app = build_console(investigator, book, KeyRing(), ConsoleSettings(SECRET, insecure=True), picture)
    client, seen, waiting = TestClient(app, base_url="http://localhost"), set[str](), ["/queue"]
    while waiting and len(seen) < 80:
        path = waiting.pop(0)
        if path not in seen and path.startswith("/"):
            seen.add(path)
            answer = client.get(path)
            assert answer.status_code in (200, 405), path
            waiting += [link.partition("#")[0] for link in Links(answer.text).found]
    assert {part.split("/")[1] for part in seen} >= {"queue", "cases", "entities", "payments", "rings", "alerts"}
    page = client.get(f"/cases/{case.id}").text
    ticked = re.findall(r'name="payment" value="([^"]+)"[^>]* checked', page)
    form = {"csrf": token(page), "verdict": "fraud", "payment": ticked}
    assert "is confirmed" in client.post(f"/cases/{case.id}/verdict", data=form).text
    (given,) = investigator.verdicts()
    assert (list(given.transaction_ids), given.by) == (ticked, "investigator")
    again = CaseBook(tmp_path / "again.sqlite", decisions=investigator.decisions)
    again.sync(investigator)
    assert [one.state for one in again.queue(ANY)] == ["confirmed"]
    assert {a.transaction_id for a in again.alerts()} == {a.transaction_id for a in book.alerts()}
    for one in (book, again):
        one.close()
