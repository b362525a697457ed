"""Weights of a ring's confidence: a logistic regression of whether a community is a planted ring."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "accounts": 0.3,
        "frauds": 0.6,
        "risk": 0.5,
        "mean_risk": 1.0,
        "share": 2.0,
        "density": 0.0,
        "new_accounts": 0.5,
        "rare": 1.0,
        "busy": 0.5,
        "span": -0.1,
        "burst": 0.3,
        "others": 0.0,
        "constant": -4.5,
    }
)
"""By the names of `graph.rings.risk.judging.FEATURES`, and the constant."""
