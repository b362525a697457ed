"""What an operator watches, in Prometheus' text format."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serve.replica.replica import Replica

MILLISECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 250, 1000)


class ServiceMetrics:
    """Counters and histograms of one replica, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "ringwatch_requests", "Requests by route and status", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "ringwatch_request_milliseconds",
            "Time in the replica",
            ["route"],
            buckets=MILLISECONDS,
            registry=self._registry,
        )
        self.unrecorded = Counter(
            "ringwatch_unrecorded_answers",
            "Payments answered by rules and not recorded, by why",
            ["why"],
            registry=self._registry,
        )
        self._unsettled = Gauge(
            "ringwatch_unsettled_decisions",
            "Decisions given for payments that are not known to be recorded",
            registry=self._registry,
        )
        of_policy = ["policy", "state"]
        self._decided = Gauge(
            "ringwatch_policy_decisions", "Decisions by policy", [*of_policy, "decision"], registry=self._registry
        )
        self._hits = Gauge(
            "ringwatch_policy_rule_hits", "Payments by rule", [*of_policy, "rule"], registry=self._registry
        )
        self._differing = Gauge(
            "ringwatch_policy_differing",
            "Payments that a policy in shadow would have decided otherwise",
            ["policy"],
            registry=self._registry,
        )
        self._by_why: dict[str, Any] = {}
        self._offset = Gauge("ringwatch_journal_offset", "Events applied", registry=self._registry)
        self._lag = Gauge("ringwatch_journal_lag", "Events of the journal not applied yet", registry=self._registry)
        self._waiting = Gauge("ringwatch_waiting_rows", "Payments and labels that wait", registry=self._registry)
        self._scored = Gauge("ringwatch_scored_rows", "Payments by who scored them", ["by"], registry=self._registry)
        self._batches = Gauge("ringwatch_batches", "Micro-batches so far", registry=self._registry)
        self._stage = Gauge(
            "ringwatch_stage_seconds", "Seconds spent so far, by stage", ["stage"], registry=self._registry
        )

    def count_unrecorded(self, why: str, payments: int) -> None:
        """Count payments answered by rules and not recorded, by the title of what kept them from the model."""
        counter = self._by_why.get(why)
        if counter is None:
            counter = self._by_why[why] = self.unrecorded.labels(why.lower().replace(" ", "-"))
        counter.inc(payments)

    def text(self, replica: Replica, waiting: int) -> bytes:
        """The metrics now."""
        self._offset.set(replica.follower.position)
        self._lag.set(replica.lag)
        self._waiting.set(waiting)
        self._batches.set(replica.batches)
        self._unsettled.set(len(replica.given) + replica.given.forgotten)
        for by, rows in replica.scored_by.items():
            self._scored.labels(by).set(rows)
        for stage, seconds in replica.seconds.items():
            self._stage.labels(stage).set(seconds)
        policies = replica.decider.policies
        for gauge, counts in ((self._decided, policies.decisions), (self._hits, policies.hits)):
            for names, count in list(counts.items()):
                gauge.labels(*names).set(count)
        for version, count in list(policies.differing.items()):
            self._differing.labels(version).set(count)
        return generate_latest(self._registry)
