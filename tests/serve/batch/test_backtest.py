"""Backtests: what a candidate would have decided is what it decides when it is live, and figures add up."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data.history import History
from gnn.model.artifact import Artifact, untrained
from serve.batch.backtest import SIDES, backtest, summary
from serve.batch.backtest_report import backtest_page
from serve.cli.main import app
from serve.decide.costs import ACTIONS
from serve.decide.policies.life import PolicyEvent, PolicyState
from serve.decide.policies.parsing import parse
from serve.replica.admission import LabelCall, PolicyCall, ScoreCall
from serve.replica.replica import Replica
from serve.settings import Settings
from tests.world import label_batch, payment_batch

PAYMENTS = payment_batch(300, seed=5, accounts=20, devices=10)
CANDIDATE = (
    "policy: tried\nrules:\n"
    "- {id: often, when: {device.payments.30d: {at_least: 20}}, at_least: review, message: <b>}\n"
    "- {id: large, when: {amount: {above: [900 EUR, 900 USD]}}, then: decline}\n"
    "reviews: {at_most: 25%, per: day, then: challenge}\n"
    "otherwise:\n  probability: {challenge: 100%, review: 100%, decline: 100%}\n"
)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(("account", "merchant", "device"), neighbours=4, window_rows=1 << 9)


def recorded(artifact: Artifact, folder: Path, policy: str | None) -> list[str]:
    """Have a replica decide and record the payments under a policy; what it decided."""
    folder.mkdir()
    settings = Settings(model=folder, journal=folder / "journal.sqlite", insecure=True, device="cpu", snapshot_every=0)
    replica = Replica(artifact, settings)
    replica.open()
    if policy is not None:
        replica.process([PolicyCall(PolicyEvent.of(parse(policy), PolicyState.LIVE))])
    found: list[str] = []
    for start in range(0, len(PAYMENTS), 60):
        (table,) = replica.process([ScoreCall(PAYMENTS.slice(start, 60), reasons=False, table=True)])
        found += table["action"].to_pylist()
    replica.process([LabelCall(label_batch(PAYMENTS, [0, 1, 250], [True, False, True]))])
    replica.close()
    return found


def test_a_candidate_decides_recorded_payments_as_it_does_when_it_is_live(artifact: Artifact, tmp_path: Path) -> None:
    without = recorded(artifact, tmp_path / "without", None)
    within = recorded(artifact, tmp_path / "within", CANDIDATE)
    tried = backtest(artifact, History.read(tmp_path / "without" / "journal.sqlite"), parse(CANDIDATE))
    again = backtest(artifact, History.read(tmp_path / "within" / "journal.sqlite"), parse(CANDIDATE))

    def actions(found, side: str) -> list[str]:
        return [ACTIONS[i] for i in found.sides[side].actions]

    assert {"approve", "review", "decline", "step_up_3ds"} <= set(within)
    assert actions(tried, "live") == without
    assert actions(tried, "candidate") == actions(again, "candidate") == actions(again, "live") == within
    assert summary(again)["changes"] == []


def test_figures_add_up_and_rules_are_judged_by_confirmed_labels(artifact: Artifact, tmp_path: Path) -> None:
    recorded(artifact, tmp_path / "j", None)
    history = History.read(tmp_path / "j" / "journal.sqlite")
    found = backtest(artifact, history, parse(CANDIDATE))
    figures = summary(found)
    assert (figures["payments"], figures["frauds"], figures["labelled"]) == (300, 2, 3)
    for side in SIDES:
        of = figures["sides"][side]
        assert sum(of["payments"].values()) == 300
        total = sum(sum(money.values()) for money in of["money"].values())
        assert total == sum(PAYMENTS.column("amount").to_pylist())
        assert of["fraud_held"] + of["honest_touched"] == 300 - of["payments"]["approve"]
    moved = sum(change["payments"] for change in figures["changes"])
    assert moved == int((found.sides["live"].decisions != found.sides["candidate"].decisions).sum()) > 0
    large = next(rule for rule in figures["rules"] if rule["rule"] == "large")
    amounts = np.array(PAYMENTS.column("amount").to_pylist())
    assert large["hits"] == int((amounts > 90_000).sum())
    confirmed = [i for i in (0, 1, 250) if amounts[i] > 90_000]
    assert large["labelled"] == len(confirmed)
    for kind in ("country", "channel", "amount", "ring"):
        assert sum(one["payments"] for one in figures["segments"] if one["kind"] == kind) == 300
    # Declining nothing costs what the frauds took; the live side here approves nearly all.
    assert figures["curve"][-1]["declined"] == int((found.probability >= 1).sum())


def test_only_payments_of_the_time_asked_for_are_judged(artifact: Artifact, tmp_path: Path) -> None:
    recorded(artifact, tmp_path / "j", None)
    history = History.read(tmp_path / "j" / "journal.sqlite")
    times = PAYMENTS.column("timestamp").to_pylist()
    whole = backtest(artifact, history, parse(CANDIDATE))
    part = backtest(artifact, history, parse(CANDIDATE), times[100], times[200])
    inside = [times[100] <= t < times[200] for t in times]
    assert part.sides["candidate"].actions.tolist() == whole.sides["candidate"].actions[inside].tolist()


def test_the_command_prints_figures_and_writes_a_page_that_loads_nothing(artifact: Artifact, tmp_path: Path) -> None:
    recorded(artifact, tmp_path / "j", None)
    artifact.save(tmp_path / "model")
    (file := tmp_path / "p.yaml").write_text(CANDIDATE)
    words = ["policy", "simulate", file, "--journal", tmp_path / "j" / "journal.sqlite", "--model", tmp_path / "model"]
    done = CliRunner().invoke(app, [str(w) for w in [*words, "--html", tmp_path / "out" / "page.html", "--json"]])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["candidate"].startswith("tried@")
    page = (tmp_path / "out" / "page.html").read_text()
    assert page == backtest_page(figures)
    assert "<svg" in page
    assert not any(mark in page for mark in ("<script", "src=", "href=", "<b>"))
    table = CliRunner().invoke(app, [str(w) for w in words])
    assert "known frauds held" in table.stdout
    assert "large" in table.stdout
