"""What a policy would have done with recorded payments, beside what was live: decided in journal order, as they came.

Every payment is scored and decided as of its own place in the journal, by the same functions as in the service: graph,
rings, outcomes and earlier policies are those that the journal held before it. Judged is with what is known by now.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.currency import exponent
from data.history import History, LabelledPayments
from data.journal.protocol import Events, Kind
from data.report import Report, silent
from gnn.model.artifact import Artifact
from gnn.score.cpu_scorer import ROWS_PER_BATCH
from gnn.score.protocol import Scorer
from gnn.score.replay import open_model
from graph.dag.features import feature_names
from graph.state import GraphState
from serve.decide.costs import ACTIONS, Costs, expected_costs, payments_of
from serve.decide.decider import Decider, under
from serve.decide.decision import Decided, Situation
from serve.decide.policies.book import PolicyBook
from serve.decide.policies.life import PolicyEvent, PolicyState
from serve.decide.policies.model import PolicyFile
from serve.settings import Settings

SIDES: Final = ("live", "candidate")
DECISIONS: Final = ("approve", "challenge", "review", "decline")
BANDS: Final = (10, 50, 200, 1000)  # of amounts, in major units of each payment's currency
EXAMPLES: Final = 20
MOST_SEGMENTS: Final = 12  # of one kind, those with the most payments
CURVE: Final = 40  # points of the cost curve
RANK: Final = {action: i for i, action in enumerate(ACTIONS)}


@dataclass(frozen=True)
class Side:
    """What one policy did with n payments.

    Attributes:
        actions: Indices of `serve.decide.costs.ACTIONS`, int8 [n].
        rules: Places of the payments to which each rule applied, by its policy's version and its id.
        messages: What rules say.
        policies: Payments by the version of the policy that decided.
    """

    actions: NDArray[np.int8]
    rules: Mapping[tuple[str, str], NDArray[np.int64]]
    messages: Mapping[tuple[str, str], str]
    policies: Mapping[str, int]

    @property
    def decisions(self) -> NDArray[np.int8]:
        """Indices of `DECISIONS`, int8 [n]."""
        return np.array([0, 1, 1, 2, 3], np.int8)[self.actions]


@dataclass(frozen=True)
class Backtest:
    """n payments decided twice, and what they are known to be.

    Attributes:
        candidate: Version of the policy that was tried.
        known: The payments with their labels, [n].
        probability: Calibrated, float64 [n].
        in_ring: Whether each stood in a fraud ring, bool [n].
        sides: What either did, by `SIDES`.
    """

    candidate: str
    known: LabelledPayments
    probability: NDArray[np.float64]
    in_ring: NDArray[np.bool_]
    sides: Mapping[str, Side]


def backtest(
    artifact: Artifact,
    history: History,
    candidate: PolicyFile,
    since: datetime | None = None,
    until: datetime | None = None,
    report: Report = silent,
) -> Backtest:
    """Decide recorded payments by a candidate and by what was live.

    Args:
        artifact: The model that scores, on the CPU.
        history: Events in journal order; all of them are replayed.
        candidate: The policy to try. It decides from the first payment on.
        since: Judge payments from this time on; earlier ones are only decided.
        until: Judge payments before this time.
        report: Told of progress.
    """
    settings = Settings.from_environment(model=Path("unused"), insecure=True)
    replay = _Replay(artifact, history, Decider(settings), _standing(candidate, settings))
    total = max(1, len(history.payments))
    for events in history.events:
        replay.apply(events)
        report("deciding", replay.decided / total)
    replay.settle()
    known = history.labelled()
    times = known.payments["timestamp"].cast(pa.int64()).to_numpy()
    chosen = np.ones(len(times), bool)
    if since is not None:
        chosen &= times >= since.timestamp() * 1e6
    if until is not None:
        chosen &= times < until.timestamp() * 1e6
    return replay.found(candidate.version, known, np.flatnonzero(chosen))


def _standing(candidate: PolicyFile, settings: Settings) -> PolicyBook:
    """A book in which the candidate has always been live."""
    book = PolicyBook(Decider(settings).policies.deciding)
    event = PolicyEvent.of(candidate, PolicyState.LIVE)
    book.apply(Events(Kind.POLICY, -1, event.batch()))
    return book


class _Replay:
    """Follows a history as a replica does, and has every payment decided twice."""

    def __init__(self, artifact: Artifact, history: History, live: Decider, candidate: PolicyBook) -> None:
        self._state: GraphState
        self._scorer: Scorer
        self._state, self._scorer = open_model(artifact, rows=len(history.payments), source=history)
        self._settle_us, self._names = artifact.config.settle_us, feature_names(artifact.roles)
        self._live, self._books = live, {"live": live.policies, "candidate": candidate}
        self._waiting: list[Events] = []
        self._probability: list[NDArray[np.float64]] = [np.empty(0)]
        self._in_ring: list[bool] = []
        self._decided: dict[str, list[Decided]] = {side: [] for side in SIDES}

    @property
    def decided(self) -> int:
        """Payments so far."""
        return len(self._in_ring)

    def apply(self, events: Events) -> None:
        """Take in the next events; payments are scored and decided in batches, which changes nothing of them."""
        for start in range(0, len(events.batch), ROWS_PER_BATCH):
            part = Events(events.kind, events.offset + start, events.batch.slice(start, ROWS_PER_BATCH))
            self._state.apply(part)
            self._live.apply(part)
            if part.kind is Kind.TRANSACTION:
                self._waiting.append(part)
                if sum(len(one.batch) for one in self._waiting) >= ROWS_PER_BATCH:
                    self.settle()

    def settle(self) -> None:
        """Score and decide what waits."""
        first = self.decided
        if self._state.store.rows == first:
            return
        scores = self._scorer.score(first, self._state.store.rows)
        self._probability.append(scores)
        at = 0
        for events in self._waiting:
            n = len(events.batch)
            rows = np.arange(first + at, first + at + n)
            offsets = np.arange(events.offset, events.offset + n)
            features = partial(self._features, rows)
            situation = self._live.situation(events.batch, offsets, scores[at : at + n], features)
            self._decide(situation)
            at += n
        self._waiting = []

    def _features(self, rows: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        return dict(zip(self._names, self._state.store.features(rows, self._settle_us).T, strict=True))

    def _decide(self, situation: Situation) -> None:
        self._in_ring.extend(ring is not None for ring in situation.rings)
        for side, book in self._books.items():
            self._decided[side].extend(under(book.decide(situation), situation.mandates))

    def found(self, candidate: str, known: LabelledPayments, rows: NDArray[np.int64]) -> Backtest:
        """What was found of the payments in some rows, int64 [n]."""
        chosen = LabelledPayments(
            known.payments.take(pa.array(rows)), known.fraud[rows], known.labelled[rows]
        )  # fmt: skip
        probability, in_ring = np.concatenate(self._probability)[rows], np.array(self._in_ring, bool)[rows]
        sides = {side: _side([decided[i] for i in rows.tolist()]) for side, decided in self._decided.items()}
        return Backtest(candidate, chosen, probability, in_ring, sides)


def _side(decided: Sequence[Decided]) -> Side:
    rules: dict[tuple[str, str], list[int]] = defaultdict(list)
    messages: dict[tuple[str, str], str] = {}
    for i, one in enumerate(decided):
        for hit in one.rules:
            rules[one.policy, hit.id].append(i)
            messages[one.policy, hit.id] = hit.message
    actions = np.array([RANK[one.action] for one in decided], np.int8)
    places = {name: np.array(rows, np.int64) for name, rows in rules.items()}
    return Side(actions, places, messages, Counter(one.policy for one in decided))


def summary(found: Backtest, costs: Costs | None = None) -> dict[str, Any]:
    """All figures of a backtest, as JSON; money in minor units by currency.

    Args:
        found: What was decided.
        costs: The cost model's constants; its own by default.
    """
    costs = costs or Costs()
    n = len(found.probability)
    return {
        "payments": n,
        "frauds": int(found.known.fraud.sum()),
        "labelled": int(found.known.labelled.sum()),
        "candidate": found.candidate,
        "live": dict(found.sides["live"].policies),
        "sides": {side: _totals(found, of, costs) for side, of in found.sides.items()},
        "changes": _changes(found),
        "examples": _examples(found),
        "rules": _rules(found),
        "segments": _segments(found),
        "curve": _curve(found, costs),
        "cost_currency": costs.currency,
    }


def _money(found: Backtest, mask: NDArray[np.bool_]) -> dict[str, int]:
    """Amounts of some payments, by currency."""
    currencies = np.asarray(found.known.payments["currency"].to_pylist(), object)
    amounts = found.known.payments["amount"].to_numpy()
    return {code: int(amounts[mask & (currencies == code)].sum()) for code in sorted(set(currencies[mask].tolist()))}


def _totals(found: Backtest, side: Side, costs: Costs) -> dict[str, Any]:
    """What one policy did, in money, fraud, friction, reviews and cost."""
    decisions, fraud = side.decisions, found.known.fraud
    held = decisions > 0
    days = found.known.payments["timestamp"].cast(pa.int64()).to_numpy() // 86_400_000_000
    reviews = np.array([int(((days == day) & (decisions == 2)).sum()) for day in np.unique(days).tolist()])
    return {
        "payments": {name: int((decisions == i).sum()) for i, name in enumerate(DECISIONS)},
        "money": {name: _money(found, decisions == i) for i, name in enumerate(DECISIONS)},
        "fraud_held": int((held & fraud).sum()),
        "fraud_money_held": _money(found, held & fraud),
        "fraud_money_approved": _money(found, ~held & fraud),
        "honest_touched": int((held & ~fraud).sum()),
        "honest_declined": int(((decisions == 3) & ~fraud).sum()),
        "reviews_a_day": {
            "mean": float(reviews.mean()) if len(reviews) else 0.0,
            "most": int(reviews.max(initial=0)),
        },
        "cost": float(_cost_of(found, costs)[np.arange(len(decisions)), side.actions].sum()),
    }


def _cost_of(found: Backtest, costs: Costs) -> NDArray[np.float64]:
    """What each action on each payment cost, by what that is known to be, in minor units of the costs' currency."""
    known = found.known
    payments = payments_of(
        costs,
        known.fraud.astype(np.float64),
        known.payments["amount"].to_numpy(),
        known.payments["currency"].to_pylist(),
        passed=np.ones((len(known.fraud), 2), np.int64),  # which challenge an account can take is not judged here
    )
    return expected_costs(costs, payments) / payments.scale[:, None]


def _curve(found: Backtest, costs: Costs) -> list[dict[str, float]]:
    """What declining from a threshold of probability on would have cost, by threshold."""
    cost = _cost_of(found, costs)
    order = np.argsort(-found.probability, kind="stable")
    saved = np.concatenate([[0.0], np.cumsum((cost[:, -1] - cost[:, 0])[order])])
    base = float(cost[:, 0].sum())
    thresholds = np.geomspace(1e-4, 1.0, CURVE)
    ranked = -found.probability[order]
    reached = np.searchsorted(ranked, -thresholds, side="right")
    return [
        {"threshold": float(t), "cost": base + float(saved[k]), "declined": int(k)}
        for t, k in zip(thresholds, reached.tolist(), strict=True)
    ]


def _changes(found: Backtest) -> list[dict[str, Any]]:
    """Payments by what was decided live and by the candidate, where these differ."""
    live, candidate = (found.sides[side].decisions for side in SIDES)
    changes = []
    for i, before in enumerate(DECISIONS):
        for j, after in enumerate(DECISIONS):
            mask = (live == i) & (candidate == j)
            if i != j and mask.any():
                frauds = int((mask & found.known.fraud).sum())
                changes.append(
                    {"live": before, "candidate": after, "payments": int(mask.sum()), "frauds": frauds,
                     "money": _money(found, mask)}
                )  # fmt: skip
    return sorted(changes, key=lambda change: -change["payments"])


def _examples(found: Backtest) -> list[dict[str, Any]]:
    """Payments whose decision changes: the furthest apart first, then the largest."""
    live, candidate = (found.sides[side].actions for side in SIDES)
    differing = np.flatnonzero(live != candidate)
    amounts = found.known.payments["amount"].to_numpy()
    distance = np.abs(live.astype(int) - candidate.astype(int))
    chosen = differing[np.lexsort((-amounts[differing], -distance[differing]))][:EXAMPLES]
    hits: dict[int, list[str]] = defaultdict(list)
    for (_, rule), rows in found.sides["candidate"].rules.items():
        for row in np.intersect1d(rows, chosen).tolist():
            hits[row].append(rule)
    columns = ("transaction_id", "timestamp", "account_id", "amount", "currency")
    rows = found.known.payments.select(columns).take(pa.array(chosen)).to_pylist()
    return [
        {
            **row,
            "timestamp": row["timestamp"].isoformat().replace("+00:00", "Z"),
            "probability": float(found.probability[i]),
            "live": ACTIONS[live[i]],
            "candidate": ACTIONS[candidate[i]],
            "rules": hits[i],
            "fraud": bool(found.known.fraud[i]) if found.known.labelled[i] else None,
        }
        for i, row in zip(chosen.tolist(), rows, strict=True)
    ]


def _rules(found: Backtest) -> list[dict[str, Any]]:
    """Each rule's hits and precision by confirmed labels."""
    rules = []
    for side, of in found.sides.items():
        for (policy, rule), rows in of.rules.items():
            labelled, fraud = found.known.labelled[rows], found.known.fraud[rows]
            confirmed = int(labelled.sum())
            rules.append(
                {
                    "side": side,
                    "policy": policy,
                    "rule": rule,
                    "message": of.messages[policy, rule],
                    "hits": len(rows),
                    "labelled": confirmed,
                    "frauds": int(fraud.sum()),
                    "precision": int(fraud.sum()) / confirmed if confirmed else None,
                }
            )
    return sorted(rules, key=lambda one: (one["side"], -one["hits"]))


def _segments(found: Backtest) -> list[dict[str, Any]]:
    """What both did by country, channel, amount and ring."""
    payments = found.known.payments
    scales = np.array([10.0 ** exponent(code) for code in payments["currency"].to_pylist()])
    band = np.searchsorted(BANDS, payments["amount"].to_numpy() / scales, side="right")
    bands = [f"below {BANDS[0]}", *(f"{a} to {b}" for a, b in pairwise(BANDS)), f"{BANDS[-1]} on"]
    kinds: dict[str, NDArray[Any]] = {
        "country": np.asarray(payments["country"].to_pylist(), object),
        "channel": np.asarray(payments["channel"].to_pylist(), object),
        "amount": np.asarray(bands, object)[band],
        "ring": np.where(found.in_ring, "in a ring", "in none").astype(object),
    }
    held = {side: of.decisions > 0 for side, of in found.sides.items()}
    fraud, segments = found.known.fraud, []
    for kind, values in kinds.items():
        for value, count in Counter(values.tolist()).most_common(MOST_SEGMENTS):
            mask = np.fromiter((v == value for v in values), bool, len(values))
            segments.append(
                {
                    "kind": kind,
                    "value": value,
                    "payments": count,
                    "frauds": int((mask & fraud).sum()),
                    **{f"fraud_held_{side}": int((mask & fraud & held[side]).sum()) for side in SIDES},
                    **{f"honest_touched_{side}": int((mask & ~fraud & held[side]).sum()) for side in SIDES},
                }
            )
    return segments
