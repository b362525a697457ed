"""The pages of policies: what they show, and that they show nothing where no policies are followed."""

import re

from starlette.testclient import TestClient

from serve.console.app import build_console
from serve.console.settings import ConsoleSettings
from serve.keys import KeyRing
from tests.serve.console.conftest import SECRET, Console, picture


def cells(page: str, row: str) -> list[str]:
    """The texts of the cells of the table's row in which something stands."""
    (found,) = [one for one in re.findall(r"<tr>.*?</tr>", page, re.S) if row in one]
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<t[dh].*?</t[dh]>", found, re.S)]


def test_the_list_names_version_state_who_and_what_was_decided(console: Console) -> None:
    page = console.signed_in().get("/policies").text
    shown = cells(page, console.policies.version)
    assert shown[:2] == [console.policies.version, "live"]
    assert "script" in shown[3]
    assert shown[4:] == ["1,234", "0", "5", "7", "3"]


def test_a_policy_shows_its_rules_with_hits_and_precision_its_days_and_its_life(console: Console) -> None:
    page = console.signed_in().get(f"/policies/{console.policies.version}").text
    assert cells(page, "new-device")[2:] == ["decline", "40", "8", "6", "75 %"]
    assert cells(page, "quiet")[1:] == ["country is NO", "at least review", "0", "0", "0", "–"]
    assert cells(page, "4 Mar 2026")[1:] == ["1,234", "0", "5", "7"]
    assert "share of 25 % of the accounts" in page
    assert "hands off &lt;b&gt;x&lt;/b&gt;" in page


def test_programs_get_the_same_as_json_with_a_key_that_may_investigate(console: Console) -> None:
    client, path = console.client(), f"/v1/policies/{console.policies.version}"
    given = {"Authorization": f"Bearer {console.key}"}
    for one in ("/v1/policies", path):
        assert client.get(one).status_code == 401
        assert client.get(one, headers={"Authorization": f"Bearer {console.weak}"}).status_code == 403
    found = client.get("/v1/policies", headers=given).json()
    assert found["fault"] is None
    assert [(line["version"], line["state"], line["differing"]) for line in found["policies"]] == [
        (console.policies.version, "live", 3)
    ]
    detail = client.get(path, headers=given).json()
    assert detail.items() >= found["policies"][0].items()
    assert [(rule["id"], rule["hits"], rule["precision"]) for rule in detail["rules"]] == [
        ("new-device", 40, 0.75),
        ("quiet", 0, None),
    ]
    assert [event["state"] for event in detail["events"]] == ["live", "rollout"]
    assert detail["days"][0]["decisions"]["approve"] == 1_234
    assert client.get("/v1/policies?state=live", headers=given).status_code == 422
    missing = client.get("/v1/policies/other@1", headers=given)
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.status_code == 404


def test_a_policy_that_the_journal_does_not_hold_is_not_found(console: Console) -> None:
    answer = console.signed_in().get("/policies/other@123")
    assert answer.status_code == 404
    assert "no policy" in answer.text


def test_a_fault_is_told_on_both_pages(console: Console) -> None:
    console.policies.fault = "OSError: full"
    client = console.signed_in()
    for path in ("/policies", f"/policies/{console.policies.version}"):
        assert "no longer counted: OSError: full" in client.get(path).text


def test_a_console_that_follows_no_policies_has_no_page_of_them(console: Console) -> None:
    settings = ConsoleSettings(SECRET, insecure=True)
    app = build_console(console.world, console.book, KeyRing(), settings, picture)
    client = TestClient(app, base_url="http://localhost")
    assert "/policies" not in client.get("/queue").text
    assert client.get("/policies").status_code == 404
