"""The forecast of an account's next payment beside simple rivals: benchmarks/results/forecast.json.

On the Fraud Detection Handbook's accounts (simulated) and on CDNOW's customers (real purchases of 1997 and 1998, which
the package `lifetimes` ships). A forecast is asked for at a moment that has nothing to do with the account's payments,
and knows what came before it alone. What it may learn from other accounts ends at the first moment that is judged.

Every rival gets quantiles, too: its own where it has them (BG/NBD, the account's own), else those of its errors on the
accounts that calibrate ours. All are judged by the pinball loss at seven levels.

Example: python -m benchmarks.quality.forecast --handbook ../shared/datasets/handbook/transactions_raw_to_08-31.parquet
"""

import argparse
import importlib.util
import time as clock
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.report import Figure, show, write
from serve.decide.spending.crowd import Crowd
from serve.decide.spending.forecast import amount_quantiles, forecast, time_quantiles
from serve.decide.spending.past import DAY_US, Past
from serve.decide.spending.quantiles import LEVELS, pinball
from serve.decide.spending.spent import Amounts, Gaps

Floats = NDArray[np.float64]
HANDBOOK = Path("../shared/datasets/handbook/transactions_raw_to_08-31.parquet")
DAY = DAY_US
SHARE = 0.1  # of the accounts, picked at random: 500 and 2,400, as many as a few minutes allow
SPREAD_DAYS = 7  # over which accounts are asked about, each at its own time


@dataclass(frozen=True)
class Setting:
    """A data set and how it is judged.

    Attributes:
        pasts: The accounts' whole pasts.
        moments: At which forecasts are asked for, us, ascending.
        horizon: Days ahead.
        taught: Accounts that the crowd is made from.
        unit: Days of one unit in which BG/NBD counts time.
        whole_days: Whether the data name days only.
    """

    pasts: list[Past]
    moments: list[int]
    horizon: float
    taught: int
    unit: float
    whole_days: bool = False


def past_of(name: str, time: NDArray[np.int64], amount: NDArray[np.int64], other: list[str], currency: str) -> Past:
    """An account that only pays merchants."""
    n = len(time)
    return Past(
        account=name,
        as_of=int(time[-1]) if n else 0,
        ids=[f"{name}-{i}" for i in range(n)],
        time=time,
        paid=np.ones(n, np.bool_),
        other=[("merchant", o) for o in other],
        merchant=other,
        category=[""] * n,
        amount=amount,
        currency=[currency] * n,
        probability=np.full(n, np.nan),
    )


def until(past: Past, at: int) -> Past:
    """What was known of an account at a moment."""
    n = int(np.searchsorted(past.time, at, side="right"))
    held = past.before(n) if n < len(past) else past
    return Past(**{**vars(held), "as_of": at})


def handbook(source: Path) -> Setting:
    """Genuine payments of April to August 2018; five moments in July and August are judged."""
    read = pq.read_table(source, columns=["TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD"])
    honest = read.filter(np.asarray(read["TX_FRAUD"]) == 0)
    time = honest["TX_DATETIME"].to_numpy().astype("datetime64[us]").astype(np.int64)
    account, terminal = (honest[name].to_numpy() for name in ("CUSTOMER_ID", "TERMINAL_ID"))
    cents = np.round(honest["TX_AMOUNT"].to_numpy() * 100).astype(np.int64)
    order = np.lexsort((time, account))
    cuts = np.flatnonzero(np.diff(account[order])) + 1
    pasts = [
        past_of(str(account[rows[0]]), time[rows], cents[rows], [str(t) for t in terminal[rows].tolist()], "EUR")
        for rows in np.split(order, cuts)
    ]
    begin = int(datetime.fromisoformat("2018-07-01T00:00+00:00").timestamp() * 1e6)
    moments = [begin + int(d * DAY) for d in (0.4, 10.75, 21.2, 33.5, 45.9)]
    return Setting(pasts, moments, 7.0, 2_000, 1.0)


def cdnow() -> Setting:
    """CDNOW's cohort: who bought first in early 1997; weeks 39 to 65 are judged by what they brought to week 78."""
    found = importlib.util.find_spec("lifetimes")
    if found is None or found.origin is None:
        raise SystemExit("CDNOW's data come with lifetimes: pip install 'ringwatch[bench]'")
    rows = defaultdict(list)
    for line in (Path(found.origin).parent / "datasets" / "CDNOW_master.txt").read_text().splitlines()[1:]:
        customer, day, _, dollars = line.split()
        rows[customer].append(
            (int(datetime.strptime(day + "+0000", "%Y%m%d%z").timestamp() * 1e6), round(float(dollars) * 100))
        )
    pasts = []
    for customer, bought in sorted(rows.items()):
        days: dict[int, int] = {}
        for at, cents in bought:
            days[at] = days.get(at, 0) + cents  # several orders of a day are one purchase, as in the literature
        time = np.array(sorted(days), np.int64)
        pasts.append(
            past_of(customer, time, np.array([days[t] for t in time.tolist()], np.int64), ["cdnow"] * len(time), "USD")
        )
    begin = int(datetime.fromisoformat("1997-01-01T00:00+00:00").timestamp() * 1e6)
    return Setting(pasts, [begin + 7 * DAY * w + DAY // 2 for w in (39, 47, 55, 63)], 91.0, 1_500, 7.0, True)


@dataclass
class Judged:
    """Losses and coverage of one way to forecast, over accounts and moments."""

    when: list[float]
    amount: list[float]


def point_rivals(past: Past, now: int, horizon: float) -> dict[str, tuple[float, float]]:
    """Days from now to the next payment and its log amount, by rules of thumb; the horizon where a rule has nothing."""
    time, logs = past.time, np.log1p(past.amount.astype(float))
    gaps = np.diff(time)
    last = float(time[-1] + gaps[-1] - now) / DAY if len(gaps) else horizon
    middle = float(time[-1] + np.median(gaps) - now) / DAY if len(gaps) else horizon
    week = int(np.searchsorted(time, now - 7 * DAY, side="right"))
    seasonal = (
        (float(time[week] + 7 * DAY - now) / DAY, float(logs[week])) if week < len(time) else (horizon, float(logs[-1]))
    )
    return {
        "last value": (float(np.clip(last, 0, horizon)), float(logs[-1])),
        "seasonal naive": (float(np.clip(seasonal[0], 0, horizon)), seasonal[1]),
        "account's median": (float(np.clip(middle, 0, horizon)), float(np.median(logs))),
    }


def own_quantiles(past: Past, now: int, horizon: float) -> tuple[Floats, Floats]:
    """Quantiles of the account's own gaps that are longer than its silence, and of its own amounts."""
    gaps, silent = np.diff(past.time) / DAY, (now - past.time[-1]) / DAY
    left = gaps[gaps > silent] - silent
    when = np.quantile(left, LEVELS) if len(left) else np.full(len(LEVELS), horizon)
    return np.minimum(when, horizon), np.quantile(np.log1p(past.amount.astype(float)), LEVELS)


class BgNbd:
    """BG/NBD (Fader, Hardie and Lee 2005), fitted by `lifetimes`, as a distribution of when the next purchase is.

    Given that a customer is alive, purchases come at a rate that is Gamma(r + x, alpha + T); so none comes within t
    with probability ((alpha + T) / (alpha + T + t)) ** (r + x), and never if the customer is not alive.
    """

    def __init__(self, pasts: list[Past], at: int, unit: float) -> None:
        from lifetimes import BetaGeoFitter
        from lifetimes.utils import ConvergenceError

        self.unit = unit * DAY
        known = np.array([self._summary(until(p, at), at) for p in pasts if len(p) and p.time[0] < at])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for penalizer in (0.0, 0.001, 0.01, 0.1, 1.0):  # where nobody ever leaves, its parameters have no bound
                try:
                    self.model = BetaGeoFitter(penalizer).fit(known[:, 0], known[:, 1], known[:, 2])
                    break
                except ConvergenceError:
                    continue
            else:
                raise SystemExit("BG/NBD does not converge")
        self.penalizer = penalizer
        print(f"BG/NBD: penalizer {penalizer}, {dict(self.model.params_)}", flush=True)

    def _summary(self, past: Past, at: int) -> tuple[float, float, float]:
        first, last = int(past.time[0]), int(past.time[-1])
        return float(len(past) - 1), (last - first) / self.unit, (at - first) / self.unit

    def when(self, past: Past, at: int, horizon: float) -> Floats:
        x, t_x, age = self._summary(past, at)
        r, alpha = (float(self.model.params_[name]) for name in ("r", "alpha"))
        with np.errstate(over="ignore"):
            alive = float(np.asarray(self.model.conditional_probability_alive(x, t_x, age)).ravel()[0])
        share = np.minimum(LEVELS / max(alive, 1e-12), 1.0)
        with np.errstate(divide="ignore"):
            time = (alpha + age) * ((1 - share) ** (-1 / (r + x)) - 1)
        return np.minimum(time * self.unit / DAY, horizon)


def judge(setting: Setting) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """The mean loss of each way to forecast, and our coverage. All learn anew at each moment.

    Returns:
        By name, the pinball loss of `when` (days) and of `amount` (log); and means of what else was seen.
    """
    losses: dict[str, Judged] = defaultdict(lambda: Judged([], []))
    seen: dict[str, list[float]] = defaultdict(list)
    for at in setting.moments:
        known = [held for past in setting.pasts if len(held := until(past, at))]
        rng = np.random.default_rng(at // DAY)
        taught = [known[i] for i in rng.permutation(len(known))[: setting.taught]]
        begin = clock.perf_counter()
        crowd = Crowd.of(taught, setting.horizon)
        seen["crowd_s"].append(clock.perf_counter() - begin)
        print(
            f"{crowd.checked} checked, {crowd.time_trust} {crowd.amount_trust} {crowd.buying} {crowd.horizon}",
            flush=True,
        )
        errors = _errors(taught[1::2], crowd.horizon)
        bg = BgNbd(known, at, setting.unit)
        for past, days in zip(setting.pasts, rng.uniform(0, SPREAD_DAYS, len(setting.pasts)), strict=True):
            asked = at + (int(days) if setting.whole_days else days) * DAY
            if len(held := until(past, int(asked))):
                _one(past, held, int(asked), crowd, errors, bg, losses, seen)
    table = {
        name: {"when": float(np.mean(j.when)), "amount": float(np.mean(j.amount)) if j.amount else np.nan}
        for name, j in losses.items()
    }
    return table, {name: float(np.mean(v)) for name, v in seen.items()} | {"forecasts": len(seen["chance"])}


def _one(
    past: Past,
    held: Past,
    at: int,
    crowd: Crowd,
    errors: dict[str, tuple[Floats, Floats]],
    bg: BgNbd,
    losses: dict[str, Judged],
    seen: dict[str, list[float]],
) -> None:
    """One account at one moment."""
    horizon, n = crowd.horizon, len(held)
    came = n < len(past) and past.time[n] <= at + horizon * DAY
    after = min((past.time[n] - at) / DAY, horizon) if came else horizon
    amount = float(np.log1p(past.amount[n])) if came else np.nan
    chance, inside = time_quantiles(Gaps.of(held.time, at, crowd.clock), crowd, at)
    now = crowd.clock.days(at)
    given = np.array([(crowd.clock.moment(now + d) - at) / DAY for d in inside])
    # All in all: the quantile at a level is that of the time given that there is a payment, or the horizon.
    _, part = time_quantiles(
        Gaps.of(held.time, at, crowd.clock), crowd, at, np.minimum(LEVELS / max(chance, 1e-9), 1.0)
    )
    part = np.array([(crowd.clock.moment(now + d) - at) / DAY for d in part])
    overall = np.where(chance > LEVELS, part, horizon)
    logs = amount_quantiles(Amounts.of(held.amount, held.currency, held.currency[-1]), crowd)
    losses["ours"].when.append(pinball(after, overall))
    seen["chance"].append(chance)
    seen["came"].append(came)
    seen["brier"].append((chance - came) ** 2)
    if came:
        losses["ours"].amount.append(pinball(amount, logs))
        seen["covered when"].append(given[1] <= after <= given[5])
        seen["covered amount"].append(logs[1] <= amount <= logs[5])
        found = forecast(held, crowd)
        assert found is not None
        likely = [place.name for place in found.places]
        seen["new"].append(past.other[n] not in held.other)
        seen["somewhere new"].append(found.somewhere_new)
        seen["place among five"].append(past.other[n][1] in likely)
    for name, (days, log) in point_rivals(held, at, horizon).items():
        away, off = errors[name]
        losses[name].when.append(pinball(after, np.clip(days + away, 0, horizon)))
        if came:
            losses[name].amount.append(pinball(amount, log + off))
    own_when, own_amount = own_quantiles(held, at, horizon)
    losses["account's quantiles"].when.append(pinball(after, own_when))
    if came:
        losses["account's quantiles"].amount.append(pinball(amount, own_amount))
    losses["BG/NBD"].when.append(pinball(after, bg.when(held, at, horizon)))


def _errors(pasts: list[Past], horizon: float) -> dict[str, tuple[Floats, Floats]]:
    """Quantiles of the errors of rules of thumb on accounts and moments before those judged."""
    rng = np.random.default_rng(2)
    away: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for past in pasts:
        end = past.as_of - int(horizon * DAY)
        if past.time[0] >= end:
            continue
        for at in rng.integers(past.time[0] + 1, end + 1, 6).tolist():
            held, n = until(past, at), int(np.searchsorted(past.time, at, side="right"))
            came = n < len(past) and past.time[n] <= at + horizon * DAY
            after = (past.time[n] - at) / DAY if came else horizon
            for name, (days, log) in point_rivals(held, at, horizon).items():
                away[name][0].append(after - days)
                if came:
                    away[name][1].append(float(np.log1p(past.amount[n])) - log)
    return {name: (np.quantile(w, LEVELS), np.quantile(a, LEVELS)) for name, (w, a) in away.items()}


def figures_of(name: str, table: dict[str, dict[str, float]], seen: dict[str, float]) -> dict[str, Figure]:
    """What is asked of a forecast: a loss below every rival's, and intervals that cover what they say."""
    found = {}
    for target, unit in (("when", "days, pinball loss"), ("amount", "log amount, pinball loss")):
        others = {n: round(v[target], 4) for n, v in table.items() if n != "ours" and np.isfinite(v[target])}
        found[f"{name}.{target}"] = Figure(round(table["ours"][target], 4), unit, min(others.values()), "lower", others)
        covered = seen[f"covered {target}"]
        found[f"{name}.{target}.coverage"] = Figure(round(covered, 4), "of 80 % intervals")
        found[f"{name}.{target}.coverage_off"] = Figure(round(abs(covered - 0.8), 4), "beside .8", 0.02, "lower")
    found[f"{name}.chance"] = Figure(round(seen["chance"], 4), "said", None, "higher", {"came": round(seen["came"], 4)})
    found[f"{name}.forecasts"] = Figure(seen["forecasts"], "accounts x moments")
    return found


SETTINGS: dict[str, Callable[[argparse.Namespace], Setting]] = {
    "handbook": lambda options: handbook(options.handbook),
    "cdnow": lambda _: cdnow(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--handbook", type=Path, default=HANDBOOK)
    parser.add_argument("--only", choices=tuple(SETTINGS))
    parser.add_argument("--share", type=float, default=SHARE, help="of the accounts")
    options = parser.parse_args()
    figures: dict[str, Figure] = {}
    details = {}
    for name, make in SETTINGS.items():
        if options.only in (None, name):
            setting = make(options)
            if options.share < 1:
                every = np.random.default_rng(0).permutation(len(setting.pasts))
                kept = [setting.pasts[i] for i in every[: int(options.share * len(every))]]
                setting = Setting(
                    kept, setting.moments, setting.horizon, setting.taught, setting.unit, setting.whole_days
                )
            table, seen = judge(setting)
            figures |= figures_of(name, table, seen)
            details[name] = {"losses": table, "seen": seen}
            print({k: round(v, 3) for k, v in seen.items()})
    show("forecast", figures)
    if options.only is None and options.share >= SHARE:
        write("forecast", figures, details=details)


if __name__ == "__main__":
    main()
