"""What accounts in general do next: what a forecast falls back on, and is calibrated by.

It is made from the pasts of a sample of accounts. How they pay, and stop, is fitted to all of them. Then moments of
their pasts are picked, from which the next payment can be seen. Half of the accounts fill a table of amounts; the other
half say how far to trust an account's own past, and calibrate the intervals: after Kuleshov, Fenner and Ermon (ICML
2018), the levels that outcomes really had replace the nominal ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serve.decide.spending.buying import Buying
from serve.decide.spending.chance import Chance, as_said
from serve.decide.spending.clock import Clock, usual_clock
from serve.decide.spending.past import DAY_US, Past
from serve.decide.spending.quantiles import LEVELS, Sample, pinball
from serve.decide.spending.spent import Amounts, Gaps, recent

Floats = NDArray[np.float64]
COUNTS: Final = (2, 4, 8, 16, 32)  # payments so far, at which a new class of accounts begins
CELL: Final = 200  # outcomes that a class needs to have a table of its own
ENOUGH: Final = 100  # checked outcomes below which levels stay as they are
PER_ACCOUNT: Final = 6  # moments of an account's past from which its next payment is looked at
JUDGES: Final = 1_500  # outcomes by which a way to forecast is chosen
CROWDS: Final = (0.5, 4.0, 12.0, 40.0, 400.0, 10_000.0)  # tried: how many own payments the crowd is worth
HALVES: Final = (30.0, 120.0, 1_000.0)  # tried: payments after which one counts half
LEANS: Final = (3.0, 30.0, 300.0, 3_000.0)  # tried: own amounts that the crowd's spread is worth
MEAN: Final = 2.0  # own amounts that the crowd's mean is worth
ALL: Final = -1  # the class of all accounts


@dataclass(frozen=True)
class Trust:
    """How far a forecast trusts an account's own past.

    Attributes:
        crowd: How many own gaps or amounts the crowd is worth.
        half: Payments after which one counts half.
        lean: Own amounts that the crowd's spread is worth.
    """

    crowd: float = 12.0
    half: float = 120.0
    lean: float = 30.0


@dataclass(frozen=True)
class Outcome:
    """A moment in an account's past, what was known then, and what came next.

    Attributes:
        gaps: What was known of when it pays.
        horizon: How far was looked, in days of the clock.
        after: Time to the next payment, likewise; the horizon where none came.
        came: Whether one came.
        amounts: What was known of amounts in the currency of the next payment; None where none came.
        amount: log1p of its minor units, NaN where none came.
    """

    gaps: Gaps
    horizon: float
    after: float
    came: bool
    amounts: Amounts | None
    amount: float


@dataclass(frozen=True)
class Crowd:
    """What accounts in general do next. Classes are those of `count_class`.

    Attributes:
        horizon: Days ahead that were looked at.
        clock: When in a week payments are made.
        buying: How accounts pay, and stop.
        log_amount: Mean and standard deviation of log amounts, by currency.
        residual: Quantiles of the next log amount, in spreads from the account's mean, by class.
        time_trust: For when.
        amount_trust: For how much.
        chance: That a payment comes within the horizon.
        time_levels: Levels of calibrated intervals for `LEVELS` of the time, by class.
        amount_levels: Of the amount.
        novelty: Probability that the next payment goes to somebody new, by class.
        checked: Outcomes that calibrated this.
    """

    horizon: float = 30.0
    clock: Clock = field(default_factory=usual_clock)
    buying: Buying = field(default_factory=Buying)
    log_amount: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    residual: Mapping[int, Floats] = field(default_factory=dict)
    time_trust: Trust = Trust()
    amount_trust: Trust = Trust()
    chance: Chance = field(default_factory=as_said)
    time_levels: Mapping[int, Floats] = field(default_factory=dict)
    amount_levels: Mapping[int, Floats] = field(default_factory=dict)
    novelty: Mapping[int, float] = field(default_factory=dict)
    checked: int = 0

    @property
    def calibrated(self) -> bool:
        """Whether enough outcomes were checked."""
        return self.checked >= ENOUGH

    @classmethod
    def of(cls, pasts: Sequence[Past], horizon: float = 30.0, seed: int = 0) -> "Crowd":
        """Learn from the pasts of some accounts.

        Args:
            pasts: As of one moment.
            horizon: Days ahead to look; a third of the longest past, where that is less.
            seed: Of the moments that are picked.
        """
        pasts = [past for past in pasts if past.paid.any()]
        if not pasts:
            return cls(horizon=horizon)
        span = max((past.as_of - int(past.time[past.paid][0])) / DAY_US for past in pasts)
        clock = Clock.of([past.time[past.paid] for past in pasts])
        crowd = cls(
            horizon=float(np.clip(span / 3, 0.5, horizon)),
            clock=clock,
            buying=Buying.fit([Gaps.of(past.time[past.paid], past.as_of, clock) for past in pasts]),
            log_amount=_log_amounts(pasts),
            novelty=_novelty(pasts),
        )
        rng = np.random.default_rng(seed)
        found = [outcomes(past, crowd, rng) for past in pasts]
        teach, check = ([o for some in part for o in some] for part in (found[::2], found[1::2]))
        crowd = _chosen(_taught(crowd, teach or check), check or teach)
        crowd = _taught(crowd, teach or check)  # the table in terms of what was chosen
        return _calibrated(_drifted(crowd, [*teach, *check]), check or teach)

    def time(self, gaps: Gaps, trust: Trust | None = None) -> Sample:
        """When the next payment comes, in days of the clock from now; infinite for never."""
        trust = trust or self.time_trust
        crowd = self.buying.times(gaps)
        longer = gaps.lengths > gaps.silent
        own = recent(len(gaps.lengths), trust.half)[longer]
        return Sample.mix(
            (gaps.lengths[longer] - gaps.silent, own), (crowd, np.full(len(crowd), trust.crowd / len(crowd)))
        )

    def amount(self, amounts: Amounts, trust: Trust | None = None) -> Sample:
        """What the next payment amounts to, log1p of minor units; empty where nothing is known of its currency."""
        trust = trust or self.amount_trust
        mean, spread = self.expected(amounts, trust)
        table = self.residual.get(count_class(len(amounts.logs)), self.residual.get(ALL, np.empty(0)))
        return Sample.mix(
            (amounts.logs, recent(len(amounts.logs), trust.half)),
            (mean + spread * table, np.full(len(table), trust.crowd / max(len(table), 1))),
        )

    def expected(self, amounts: Amounts, trust: Trust | None = None) -> tuple[float, float]:
        """Middle and spread of the next log amount."""
        trust = trust or self.amount_trust
        logs, weights = amounts.logs, recent(len(amounts.logs), trust.half)
        if amounts.currency in self.log_amount:
            mean, spread = self.log_amount[amounts.currency]
        else:  # the account is the first with this currency
            mean, spread = (float(logs.mean()), 0.7) if len(logs) else (0.0, 0.0)
        total = float(weights.sum())
        own = float(np.median(logs)) if len(logs) else mean  # on skewed amounts better than their mean
        middle = (MEAN * mean + total * own) / (MEAN + total)
        square = (trust.lean * spread**2 + float(weights @ (logs - middle) ** 2)) / (trust.lean + total)
        return middle, max(float(np.sqrt(square)), 0.02)


def count_class(n: int) -> int:
    """The class of accounts with so many payments."""
    return int(np.searchsorted(COUNTS, n, side="right"))


def outcomes(past: Past, crowd: Crowd, rng: np.random.Generator, moments: int = PER_ACCOUNT) -> list[Outcome]:
    """Moments of an account's past from which the horizon can be seen to its end, and what came next."""
    first, end = int(past.time[past.paid][0]), past.as_of - int(crowd.horizon * DAY_US)
    if first >= end:
        return []
    # Of the later half: people, and those who still pay, are not what they were.
    return [outcome_at(past, crowd, int(at)) for at in np.sort(rng.integers((first + end) // 2 + 1, end + 1, moments))]


def outcome_at(past: Past, crowd: Crowd, at: int) -> Outcome:
    """What was known of an account at a moment, and what came next of it."""
    paid = np.flatnonzero(past.paid)
    times = past.time[paid]
    n = int(np.searchsorted(times, at, side="right"))
    now, end = crowd.clock.days(at), crowd.clock.days(at + int(crowd.horizon * DAY_US))
    gaps = Gaps.of(times[:n], at, crowd.clock)
    after = np.inf if n == len(paid) else crowd.clock.days(int(times[n])) - now
    if after > end - now:
        return Outcome(gaps, end - now, end - now, False, None, np.nan)
    before, following = paid[:n], int(paid[n])
    amounts = Amounts.of(past.amount[before], [past.currency[i] for i in before.tolist()], past.currency[following])
    return Outcome(gaps, end - now, after, True, amounts, float(np.log1p(past.amount[following])))


def _log_amounts(pasts: Sequence[Past]) -> dict[str, tuple[float, float]]:
    """Mean and spread by currency: the mean over accounts, and the usual spread within one."""
    means: dict[str, list[float]] = {}
    spreads: dict[str, list[float]] = {}
    for past in pasts:
        paid = np.flatnonzero(past.paid)
        codes = [past.currency[i] for i in paid.tolist()]
        for code in dict.fromkeys(codes):
            logs = Amounts.of(past.amount[paid], codes, code).logs
            means.setdefault(code, []).append(float(logs.mean()))
            if len(logs) > 2:
                spreads.setdefault(code, []).append(float(logs.std(ddof=1)))
    return {
        code: (float(np.mean(found)), max(0.05, float(np.median(spreads.get(code, [max(float(np.std(found)), 0.5)])))))
        for code, found in means.items()
    }


def _novelty(pasts: Sequence[Past]) -> dict[int, float]:
    """How often a payment goes to somebody new, by how many came before it."""
    new: dict[int, list[bool]] = {}
    for past in pasts:
        seen: set[tuple[str, str]] = set()
        for n, i in enumerate(np.flatnonzero(past.paid).tolist()):
            new.setdefault(count_class(n), []).append(past.other[i] not in seen)
            seen.add(past.other[i])
    return {one: float(np.mean(found)) for one, found in new.items()}


def _taught(crowd: Crowd, teach: Sequence[Outcome]) -> Crowd:
    """With the table of amounts."""
    found: dict[int, list[float]] = {}
    for outcome in teach:
        if outcome.amounts is not None:
            mean, spread = crowd.expected(outcome.amounts)
            for one in (count_class(len(outcome.amounts.logs)), ALL):
                found.setdefault(one, []).append((outcome.amount - mean) / spread)
    grid = (np.arange(100) + 0.5) / 100
    return replace(crowd, residual={c: np.quantile(v, grid) for c, v in found.items() if len(v) >= CELL or c == ALL})


def _chosen(crowd: Crowd, check: Sequence[Outcome]) -> Crowd:
    """With the trust that loses least on accounts that the tables do not know."""
    check = check[:: max(1, len(check) // JUDGES)]

    def late(trust: Trust) -> float:
        return sum(pinball(o.after, crowd.time(o.gaps, trust).capped(o.horizon)) for o in check)

    def wrong(trust: Trust) -> float:
        priced = [(o.amounts, o.amount) for o in check if o.amounts is not None]
        return sum(pinball(amount, crowd.amount(amounts, trust).quantiles()) for amounts, amount in priced)

    time, amount = Trust(), Trust()
    time = min((replace(time, crowd=c, half=h) for c in CROWDS for h in HALVES), key=late)
    amount = min((replace(amount, lean=n, half=h) for n in LEANS for h in HALVES), key=wrong)
    amount = min((replace(amount, crowd=c) for c in CROWDS), key=wrong)
    return replace(crowd, time_trust=time, amount_trust=amount)


def _drifted(crowd: Crowd, seen: Sequence[Outcome]) -> Crowd:
    """With chances as they were of late."""
    if len(seen) < ENOUGH:
        return crowd
    said = [crowd.time(o.gaps).within(o.horizon)[0] for o in seen]
    return replace(crowd, chance=Chance.fit(said, [o.gaps for o in seen], [o.came for o in seen]))


def _calibrated(crowd: Crowd, check: Sequence[Outcome]) -> Crowd:
    """With levels as those of outcomes really were."""
    times: dict[int, list[float]] = {}
    amounts: dict[int, list[float]] = {}
    for o in check:
        if o.came:
            level = crowd.time(o.gaps).within(o.horizon)[1].level(o.after)
            for one in (count_class(o.gaps.n), ALL):
                times.setdefault(one, []).append(level)
        if o.amounts is not None:
            level = crowd.amount(o.amounts).level(o.amount)
            for one in (count_class(len(o.amounts.logs)), ALL):
                amounts.setdefault(one, []).append(level)
    return replace(
        crowd,
        time_levels=_levels(times),
        amount_levels=_levels(amounts),
        checked=len(check),
    )


def _levels(found: Mapping[int, list[float]]) -> dict[int, Floats]:
    return {c: np.quantile(v, LEVELS) for c, v in found.items() if len(v) >= (ENOUGH if c == ALL else CELL)}
