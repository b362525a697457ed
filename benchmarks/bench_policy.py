"""What deciding by a policy of 30 rules costs a payment, beside thresholds, in turn on one replica.

Example: python -m benchmarks.bench_policy
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import report
from data.journal.protocol import Events, Kind
from data.world.synthetic import WorldConfig, simulate
from gnn.model.artifact import untrained
from serve.decide.policies.book import PolicyBook
from serve.decide.policies.life import PolicyEvent, PolicyState
from serve.decide.policies.model import PolicyFile
from serve.decide.policies.parsing import parse
from serve.replica.admission import ScoreCall
from serve.replica.replica import Replica
from serve.settings import Settings

ROLES = ("account", "merchant", "device", "card")
RULES = (
    "{{card.payments.1h: {{at_least: {n}}}, amount: {{below: [{n} EUR, {n} USD]}}}}",
    "{{device.accounts.7d: {{at_least: {n}}}, not: {{merchant: {{in: trusted}}}}}}",
    "{{account.spent.24h: {{above: {n}000 EUR}}, account.age: {{below: {n}d}}}}",
    "{{ring.confidence: {{above: {n}0%}}}}",
    "{{any: [{{device.new: true, amount: {{above: {n}00 EUR}}}}, {{merchant.frauds.30d: {{at_least: {n}}}}}]}}",
    "{{mcc: {{in: [\"482{n}\", \"605{n}\"]}}, hour: {{between: [23, {n}]}}}}",
    "{{country: {{not_in: [DE, FR, AT]}}, probability: {{above: {n}0%}}}}",
    "{{account.merchants.24h: {{at_least: 1{n}}}}}",
    "{{loss: {{above: {n}00 EUR}}, account.met_merchant: {{is: 0}}}}",
    "{{card.fraud_age: {{below: {n}h}}, weekday: [sat, sun]}}",
)  # fmt: skip


def thirty_rules() -> PolicyFile:
    """A policy of ten kinds of rules, three of each."""
    rules = "".join(
        f"- id: r{n}-{i}\n  when: {rule.format(n=n)}\n  at_least: review\n"
        for n in (4, 6, 8)
        for i, rule in enumerate(RULES)
    )
    head = "policy: thirty\nlists: {trusted: {of: merchant, values: [m-1, m-2, m-3]}}\n"
    return parse(f"{head}rules:\n{rules}otherwise:\n  probability: {{challenge: 5%, review: 20%, decline: 60%}}\n")


def measure(replica: Replica, book: PolicyBook, payments: pa.RecordBatch, rows: int, rounds: int) -> np.ndarray:
    """Seconds of micro-batches of `rows` payments by thresholds and by the policy, in turn, [2, rounds]."""
    times, at, plain = np.empty((2, rounds)), 0, replica.decider.policies
    for i in range(-5, rounds):
        for k in (0, 1) if i % 2 else (1, 0):
            replica.decider.policies = (plain, book)[k]
            part = payments.slice(at, rows)
            at += rows
            begin = time.perf_counter()
            replica.process([ScoreCall(part)])
            if i >= 0:
                times[k, i] = time.perf_counter() - begin
    replica.decider.policies = plain
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=600)
    rounds = parser.parse_args().rounds
    payments = simulate(WorldConfig(transactions=60_000, seed=7, days=30)).transactions.combine_chunks().to_batches()[0]
    policy = thirty_rules()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(model=folder, journal=folder / "journal.sqlite", insecure=True, device="cpu")
        replica = Replica(untrained(ROLES), settings)
        replica.open()
        for start in range(0, 20_000, 4096):
            replica.process([ScoreCall(payments.slice(start, 4096), reasons=False, table=True)])
        book = PolicyBook(replica.decider.policies.deciding)
        book.apply(Events(Kind.POLICY, -1, PolicyEvent.of(policy, PolicyState.LIVE).batch()))
        figures: dict[str, report.Figure] = {}
        rest: Callable[[int], pa.RecordBatch] = lambda first: payments.slice(first)  # noqa: E731
        for rows, first, many in ((1, 25_000, rounds), (32, 28_000, rounds // 4)):
            plain, ruled = np.median(measure(replica, book, rest(first), rows, many), axis=1)
            figures[f"slowdown_{rows}"] = report.Figure(
                float(ruled / plain), "with / without", goal=1.1, better="lower",
                peer={"without, us a payment": 1e6 * plain / rows, "with, us a payment": 1e6 * ruled / rows},
            )  # fmt: skip
        replica.close()
    report.show("policy", figures)
    report.write("policy", figures)


if __name__ == "__main__":
    main()
