"""A console over an investigation made by hand, and who may use it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from graph.rings.records import RingRecord
from serve import keys as keys_module
from serve.cases.book import CaseBook
from serve.cases.policy_watch import PolicyDetail, WatchedPolicy, WatchedRule
from serve.console.app import build_console
from serve.console.settings import ConsoleSettings
from serve.decide.policies.book import PolicyRecord
from serve.decide.policies.life import PolicyEvent, PolicyState
from serve.decide.policies.parsing import parse
from serve.keys import KeyRing, add_key
from tests.serve.cases.fake import FakeInvestigation, busy, paid, ring

NASTY = "<script>alert('x')</script>&\"/é 50%"  # with %2F in it, this test client (not a server) would read it twice
SECRET = "s" * 40
LIMITS = "{challenge: 5%, review: 20%, decline: 60%}"


def picture(record: RingRecord, payments: pa.Table) -> str:
    """A page that stands for a picture."""
    return f"<!doctype html><title>Ring</title><p>{record.id}: {len(payments)} payments</p>"


@dataclass
class Console:
    """The parts of a console that runs.

    Attributes:
        key: Of iris, who may investigate.
        weak: Of somebody who may only score.
    """

    app: FastAPI
    world: FakeInvestigation
    book: CaseBook
    file: Path
    key: str
    weak: str
    policies: "FakePolicies"

    def client(self) -> TestClient:
        """A browser without JavaScript that nobody has signed in."""
        return TestClient(self.app, base_url="http://testserver", follow_redirects=True)

    def signed_in(self) -> TestClient:
        """One of iris."""
        client = self.client()
        page = client.get("/signin").text
        client.post("/signin", data={"csrf": token(page), "key": self.key})
        return client


def token(page: str) -> str:
    """The CSRF token of a page."""
    return page.split('name="csrf" value="', 1)[1].split('"', 1)[0]


def world() -> FakeInvestigation:
    """Two rings that share a device, and one whose names are meant to break pages."""
    found = busy()
    found.payments.append(paid(f"p{NASTY}", NASTY, 5, merchant=NASTY, device=NASTY, evidence=True, probability=0.9))
    found.put(ring("K-3", (NASTY,), (f"p{NASTY}",), devices=(NASTY,), confidence=0.55))
    return found


class FakePolicies:
    """Policies made by hand: one that is live, whose rule and people have names that are meant to break pages."""

    def __init__(self) -> None:
        self.fault: str | None = None
        file = parse(f"policy: strict\nnote: hands off <b>x</b>\nrules: []\notherwise: {{probability: {LIMITS}}}\n")
        events = [PolicyEvent.of(file, state, 0.25, NASTY) for state in (PolicyState.LIVE, PolicyState.ROLLOUT)]
        self.version = file.version
        counts = {"approve": 1_234, "challenge": 0, "review": 5, "decline": 7}
        rules = (
            WatchedRule("new-device", f"device is {NASTY}", "decline", NASTY, hits=40, labelled=8, frauds=6),
            WatchedRule("quiet", "country is NO", "at least review", ""),
        )
        self.line = WatchedPolicy(PolicyRecord(events[0], 9, "live"), counts, 3)
        self.detail = PolicyDetail(self.line, file.text, rules, tuple(events), ((1_772_582_400_000_000, counts),))

    def all(self) -> list[WatchedPolicy]:
        return [self.line]

    def one(self, version: str) -> PolicyDetail | None:
        return self.detail if version == self.version else None


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    """A console; the file of keys is looked at with every request."""
    monkeypatch.setattr(keys_module, "EVERY_S", 0.0)
    file, made = tmp_path / "keys.json", world()
    key, weak = add_key(file, "iris", ["investigate"]), add_key(file, "gateway", ["score"])
    book = CaseBook(tmp_path / "cases.sqlite")
    book.sync(made)
    app = build_console(made, book, KeyRing(file=file), ConsoleSettings(SECRET), picture, policies := FakePolicies())
    yield Console(app, made, book, file, key, weak, policies)
    book.close()
