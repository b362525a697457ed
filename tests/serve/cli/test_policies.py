"""The commands about policies: what a risk officer types, and what is then in the journal."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.journal.sqlite import SqliteJournal
from serve.cli.main import app
from serve.decide.policies.activation import policies_of

TEXT = (
    "policy: strict\nrules:\n- {id: new-device, when: {device.new: true}, then: decline}\n"
    "otherwise:\n  probability: {challenge: 5%, review: 20%, decline: 60%}\n"
)


def ringwatch(*words: object, status: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == status, done.output
    return done.stdout


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (file := tmp_path / "strict.yaml").write_text(TEXT)
    return file


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    SqliteJournal(tmp_path / "journal.sqlite").close()
    return tmp_path / "journal.sqlite"


def test_check_says_that_a_policy_is_good_or_where_it_is_not(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "strict@" in ringwatch("policy", "check", policy)
    policy.write_text(TEXT.replace("device.new", "devise.new").replace("5%", "500%"))
    found = json.loads(ringwatch("policy", "check", policy, "--json", status=2))
    assert [(m["line"], m["column"]) for m in found["mistakes"]] == [(3, 27), (5, 28)]


def test_a_policy_goes_through_its_life_in_a_journal(policy: Path, journal: Path) -> None:
    def listed() -> list[tuple[str, str, float]]:
        found = json.loads(ringwatch("policy", "list", "--journal", journal, "--json"))
        return [(one["name"], one["state"], one["share"]) for one in found]

    ringwatch("policy", "activate", policy, "--journal", journal, "--shadow")
    assert listed() == [("strict", "shadow", 1.0)]
    ringwatch("policy", "activate", policy, "--journal", journal, "--share", "0.1")
    assert listed() == [("strict", "rollout", 0.1)]
    ringwatch("policy", "activate", policy, "--journal", journal, "--by", "iris")
    assert "already" in ringwatch("policy", "activate", policy, "--journal", journal)
    policy.write_text(TEXT.replace("decline}", "review}"))
    ringwatch("policy", "activate", policy, "--journal", journal)
    assert [state for _, state, _ in listed()] == ["live", "replaced"]
    ringwatch("policy", "rollback", "--journal", journal)
    assert [state for _, state, _ in listed()] == ["rolled_back", "live"]
    held = SqliteJournal(journal, readonly=True)
    assert policies_of(held).roster.live == policies_of(held).records()[1].event.version
    assert held.end == 5
    held.close()


@pytest.mark.parametrize(
    "words",
    [
        ["activate", "POLICY"],
        ["activate", "POLICY", "--journal", "J", "--url", "http://x"],
        ["activate", "POLICY", "--journal", "J", "--shadow", "--share", "0.1"],
        ["activate", "POLICY", "--journal", "J", "--share", "10"],
        ["activate", "NONE", "--journal", "J"],
        ["rollback", "--journal", "J"],
        ["list", "--journal", "NONE"],
    ],
)
def test_what_cannot_be_done_ends_with_status_2_and_changes_nothing(
    words: list[str], policy: Path, journal: Path, tmp_path: Path
) -> None:
    places = {"POLICY": policy, "J": journal, "NONE": tmp_path / "none"}
    ringwatch("policy", *(places.get(word, word) for word in words), status=2)
    held = SqliteJournal(journal, readonly=True)
    assert held.end == 0
    held.close()
