"""Policy, data, policy, twenty times over: what is declined is never seen, and yet decisions settle."""

import numpy as np
from numpy.typing import NDArray

from serve.decide.costs import ACTIONS, APPROVE, DECLINE, Costs, expected_costs, least_cost, payments_of

COSTS, BINS, PAYMENTS = Costs(), 8, 4_000
ALLOWED = np.array([action in ("approve", "decline") for action in ACTIONS])
RISK = np.geomspace(0.0005, 0.6, BINS)  # of each bin, which nobody is told


def learnt(bins: NDArray[np.int64], fraud: NDArray[np.bool_], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fraud rates of the bins, each worth twenty payments less than it says: that much of the rate of all."""
    seen = np.bincount(bins, weight, BINS)
    frauds = np.bincount(bins, weight * fraud, BINS)
    return (frauds + 20 * frauds.sum() / max(1.0, seen.sum())) / (seen + 20)


def declined(explore: float, generations: int = 20) -> NDArray[np.float64]:
    """Share of the riskiest bin that is declined, by generation, when each learns from the one before alone."""
    rng = np.random.default_rng(0)
    rates, found = np.full(BINS, RISK.mean()), []
    for _ in range(generations):
        bins = rng.integers(0, BINS, PAYMENTS)
        fraud = rng.random(PAYMENTS) < RISK[bins]
        payments = payments_of(COSTS, rates[bins], rng.integers(2_000, 20_000, PAYMENTS))
        wanted = least_cost(expected_costs(COSTS, payments), allowed=ALLOWED)
        # A share is approved whatever the policy says; how likely each payment was approved is logged.
        propensity = np.where(wanted == APPROVE, 1.0, explore)
        approved = rng.random(PAYMENTS) < propensity
        found.append(float((wanted[bins == BINS - 1] == DECLINE).mean()))
        weight = 1.0 / propensity[approved]
        rates = learnt(bins[approved], fraud[approved], weight)
    return np.array(found)


def test_a_policy_that_learns_only_from_what_it_approved_swings_back_and_forth() -> None:
    swings = np.abs(np.diff(declined(explore=0.0)))
    assert (swings > 0.5).sum() > 5


def test_with_a_little_exploring_and_inverse_propensities_twenty_generations_do_not_oscillate() -> None:
    shares = declined(explore=0.05)
    assert np.abs(np.diff(shares[1:])).max() < 0.05
    assert shares[1:].min() > 0.9
