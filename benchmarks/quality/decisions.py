"""What decisions cost beside fixed thresholds: benchmarks/results/decision_quality.json, docs/costs.md, its picture.

Example: python -m benchmarks.quality.decisions

All policies read the same probabilities, amounts and past spending, choose their settings on one period of each history
and are judged on a later one. Scores are kept under var/quality/decisions.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from benchmarks.quality.decisions_scores import Scored, all_scored
from benchmarks.report import ROOT, Figure, show, write
from serve.decide.costs import (
    ACTIONS,
    APPROVE,
    DECLINE,
    REVIEW,
    STEP_UP_3DS,
    Costs,
    Payments,
    expected_costs,
    least_cost,
    payments_of,
    review_gain,
    review_price,
)
from serve.decide.off_policy import METHODS, Log, label_log, values

COSTS = Costs()
REVIEWS = 0.005  # share of payments that may be reviewed
GOAL = 0.25  # below the best threshold on probability
STEPS = 200  # thresholds tried, spread evenly in the logarithm of the share above them
EXPLORED, LOGS = 0.2, 20  # share of a log that is spread over all actions; logs that are drawn
PAGE, PICTURE = ROOT / "docs" / "costs.md", ROOT / "docs" / "costs.png"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Floats = NDArray[np.float64]
Actions = NDArray[np.int64]
Score = Callable[[Scored], Floats]
SCORES: dict[str, Score] = {
    "probability": lambda s: s.probability,
    "probability x amount": lambda s: s.probability * s.amount,
}


def seen(s: Scored, probability: Floats | None = None) -> Payments:
    """What policies know of payments."""
    return payments_of(COSTS, s.probability if probability is None else probability, s.amount, None, s.spent)


def real(s: Scored) -> Floats:
    """What each action really costs, in the mean over who gets through a challenge or a review: cents, [n, 5]."""
    return expected_costs(COSTS, seen(s, s.fraud.astype(np.float64)))


def total(costs: Floats, actions: Actions) -> float:
    """What a policy costs, major units."""
    return float(costs[np.arange(len(actions)), actions].sum() / 100)


def least(choose: Scored, judge: Scored, change: Callable[[Floats], Floats] = lambda p: p) -> Actions:
    """The least-expected-cost policy, its price of reviews chosen on one period, on a later one."""
    price = review_price(review_gain(expected_costs(COSTS, seen(choose, change(choose.probability)))), REVIEWS)
    return least_cost(expected_costs(COSTS, seen(judge, change(judge.probability))), price)


@dataclass(frozen=True)
class Thresholds:
    """Fixed thresholds on a score: from each on, an action.

    Attributes:
        decline: From here on declined; infinite for never.
        review: Below that, from here on reviewed.
        challenge: Below that, from here on challenged.
    """

    decline: float = np.inf
    review: float = np.inf
    challenge: float = np.inf

    def decide(self, score: Floats) -> Actions:
        found = np.where(score >= self.challenge, STEP_UP_3DS, APPROVE)
        found = np.where(score >= self.review, REVIEW, found)
        return np.where(score >= self.decline, DECLINE, found)


def best_single(score: Floats, costs: Floats) -> Thresholds:
    """The one threshold, with the one action from it on, that costs least; every score is tried."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])) + 1, len(order))  # equal scores are treated alike
    found, lowest = Thresholds(), float(costs[:, APPROVE].sum())
    for action, name in ((STEP_UP_3DS, "challenge"), (REVIEW, "review"), (DECLINE, "decline")):
        change = np.cumsum(costs[order, action] - costs[order, APPROVE])[ends - 1]
        allowed = ends <= (REVIEWS * len(order) if action == REVIEW else len(order))
        if allowed.any():
            k = int(np.where(allowed, change, np.inf).argmin())
            if costs[:, APPROVE].sum() + change[k] < lowest:
                lowest = float(costs[:, APPROVE].sum() + change[k])
                found = Thresholds(**{name: float(score[order][ends[k] - 1])})
    return found


def best_three(score: Floats, costs: Floats) -> Thresholds:
    """Thresholds for challenge, review and decline together, within the budget of reviews."""
    n = len(score)
    order = np.argsort(-score, kind="stable")
    grid = np.append(np.inf, np.unique(np.quantile(score, 1 - np.geomspace(1e-5, 1, STEPS)))[::-1])
    above = np.searchsorted(-score[order], -grid, "right")
    sums = np.concatenate([np.zeros((1, len(ACTIONS))), np.cumsum(costs[order], 0)])[above]
    whole = costs[:, APPROVE].sum()
    found, lowest = Thresholds(), np.inf
    for i in range(len(grid)):
        for j in range(i, len(grid)):
            if above[j] - above[i] > REVIEWS * n:
                break
            cost = sums[i, DECLINE] + sums[j, REVIEW] - sums[i, REVIEW]
            rest = sums[j:, STEP_UP_3DS] - sums[j, STEP_UP_3DS] + whole - sums[j:, APPROVE]
            k = int(rest.argmin())
            if cost + rest[k] < lowest:
                found, lowest = Thresholds(float(grid[i]), float(grid[j]), float(grid[j + k])), cost + rest[k]
    return found


@dataclass(frozen=True)
class Judged:
    """One history.

    Attributes:
        scored: Its payments that are judged.
        cost: Of each policy, major units.
        actions: Of each policy, int64 [n].
    """

    scored: Scored
    cost: dict[str, float]
    actions: dict[str, Actions]


OURS, NOTHING = "least expected cost", "approve everything"


def judge(scored: Scored) -> Judged:
    """All policies on one history."""
    choose, later = scored.part(scored.choose), scored.part(scored.judge)
    known, costs = real(choose), real(later)
    actions = {OURS: least(choose, later), NOTHING: np.zeros(len(later.amount), np.int64)}
    for name, score in SCORES.items():
        for how, best in (("one threshold", best_single), ("three thresholds", best_three)):
            actions[f"{how} on {name}"] = best(score(choose), known).decide(score(later))
    # Bounds: the same policy with probabilities that the judged period itself has calibrated, and one that knows all.
    fitted = IsotonicRegression(out_of_bounds="clip").fit(later.probability, later.fraud)
    actions["limit: calibrated on the judged period"] = least(choose, later, fitted.predict)
    actions["limit: knows every fraud"] = costs.argmin(1)
    return Judged(later, {name: total(costs, a) for name, a in actions.items()}, actions)


def off_policy_errors(judged: Judged) -> dict[str, dict[str, float]]:
    """How far estimates of one policy's cost from logs of another are from the truth: mean of the relative errors.

    The log is of a policy that explores around the least expected cost; what is judged is three thresholds.

    Returns:
        By what is weighted, `label` (seen unless declined) or `action`, and method.
    """
    s, n = judged.scored, len(judged.scored.amount)
    costs = real(s)
    available = np.isfinite(costs).all(0)
    costs, model = costs[:, available], -expected_costs(COSTS, seen(s))[:, available]
    number, rows = np.cumsum(available) - 1, np.arange(n)
    best, wanted = (number[judged.actions[name]] for name in (OURS, "three thresholds on probability"))
    logged = np.full((n, costs.shape[1]), EXPLORED / costs.shape[1])
    logged[rows, best] += 1 - EXPLORED
    target = np.zeros_like(logged)
    target[rows, wanted] = 1.0
    earned = -costs[rows, wanted]
    errors: dict[str, dict[str, list[float]]] = {by: {m: [] for m in METHODS} for by in ("label", "action")}
    for seed in range(LOGS):
        rng = np.random.default_rng(seed)
        taken = (rng.random((n, 1)) > logged.cumsum(1)).sum(1).clip(0, costs.shape[1] - 1)
        declined = number[DECLINE]
        logs = {
            "label": label_log(taken != declined, 1 - logged[:, declined], earned, model[rows, wanted]),
            "action": Log(taken, logged[rows, taken], -costs[rows, taken], target, model),
        }
        for by, log in logs.items():
            for value in values(log, seed, resamples=1):
                errors[by][value.method].append(abs(value.value / earned.mean() - 1))
    return {by: {method: float(np.mean(of)) for method, of in found.items()} for by, found in errors.items()}


def figures_of(found: dict[str, Judged], errors: dict[str, dict[str, dict[str, float]]]) -> dict[str, Figure]:
    """Goals and what was measured."""
    figures = {}
    for name, judged in found.items():
        cost, key = judged.cost, name.replace(" ", "_")
        ours, peers = cost[OURS], {policy.replace(" ", "_"): value for policy, value in cost.items()}

        def saved(rival: str, cost: dict[str, float] = cost, ours: float = ours) -> float:
            return 1 - ours / cost[rival]

        figures[f"saved.{key}"] = Figure(saved("one threshold on probability"), "share", GOAL, peer=peers)
        figures[f"saved_beside_three.{key}"] = Figure(saved("three thresholds on probability"), "share")
        amounts = [saved(rival) for rival in cost if rival.endswith("on probability x amount")]
        figures[f"saved_beside_amount.{key}"] = Figure(min(amounts), "share", 0.0)
        limit = 1 - cost["limit: calibrated on the judged period"] / cost["one threshold on probability"]
        figures[f"limit_of_saved.{key}"] = Figure(limit, "share")
        reviewed = float((judged.actions[OURS] == REVIEW).mean())
        figures[f"reviewed.{key}"] = Figure(reviewed, "share", REVIEWS, "lower")
        for method, error in errors[name]["label"].items():
            by_action = {"weights_by_action": errors[name]["action"][method]}
            goal = None if method == "direct" else 0.05  # a model alone is only as good as its probabilities
            figures[f"off_policy_error.{method}.{key}"] = Figure(error, "share", goal, "lower", by_action)
    return figures


def draw(found: dict[str, Judged]) -> None:
    """The cost curve of each history."""
    figure, axes = plt.subplots(1, len(found), figsize=(11, 3.4), constrained_layout=True)
    for ax, (name, judged) in zip(np.atleast_1d(axes), found.items(), strict=True):
        costs, n = real(judged.scored), len(judged.scored.amount)
        share = np.arange(1, n + 1) / n
        for (label, score), line in zip(SCORES.items(), ("-", "--"), strict=True):
            order = np.argsort(-score(judged.scored), kind="stable")
            for action, colour in ((STEP_UP_3DS, "#2b7bba"), (DECLINE, "#b5442e")):
                curve = costs[:, APPROVE].sum() + np.cumsum(costs[order, action] - costs[order, APPROVE])
                what = "challenge" if action == STEP_UP_3DS else "decline"
                ax.plot(share * 100, curve / 100 / n * 1000, line, color=colour, label=f"{what}, by {label}", lw=1.2)
        nothing = judged.cost[NOTHING] / n * 1000
        ax.axhline(judged.cost[OURS] / n * 1000, color="black", lw=1.2, label=OURS)
        ax.axhline(nothing, color="grey", lw=0.8, ls=":", label=NOTHING)
        ax.set(xscale="log", xlim=(0.01, 100), ylim=(0, 1.6 * nothing), title=name, xlabel="payments touched, %")
    np.atleast_1d(axes)[0].set_ylabel("cost of 1,000 payments, EUR")
    np.atleast_1d(axes)[-1].legend(fontsize=7)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    plt.close(figure)


def table(found: dict[str, Judged], errors: dict[str, dict[str, dict[str, float]]]) -> str:
    """The measured part of the page."""
    names = list(found)
    lines = [f"| cost of 1,000 payments, EUR | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for policy in found[names[0]].cost:
        cells = [f"{found[h].cost[policy] / len(found[h].scored.amount) * 1000:,.0f}" for h in names]
        lines.append(f"| {f'**{policy}**' if policy == OURS else policy} | {' | '.join(cells)} |")
    for rival in ("one threshold", "three thresholds"):
        policy = f"{rival} on probability"
        cells = [f"{1 - found[h].cost[OURS] / found[h].cost[policy]:.1%}" for h in names]
        lines.append(f"| saved beside {policy} | {' | '.join(cells)} |")
    cells = [f"{(found[h].actions[OURS] == REVIEW).mean():.2%}" for h in names]
    lines.append(f"| reviewed, of {REVIEWS:.1%} that may be | {' | '.join(cells)} |")
    lines += ["", f"| off-policy error, mean of {LOGS} logs | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for by in ("label", "action"):
        for method in METHODS:
            cells = [f"{errors[h][by][method]:.1%}" for h in names]
            lines.append(f"| {method.replace('_', ' ')}, weights by {by} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = {name: judge(scored) for name, scored in all_scored().items()}
    errors = {name: off_policy_errors(judged) for name, judged in found.items()}
    figures = figures_of(found, errors)
    show("decision_quality", figures)
    write("decision_quality", figures)
    draw(found)
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(found, errors)}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
