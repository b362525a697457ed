"""Weights of a ring's confidence: a logistic regression of whether a community is a planted ring.

Fitted on 4,049 looks at 233 communities, twice a day, each community with the same weight in all, in four made worlds
(`WorldConfig.hard`, seeds 303 to 306, 100,000 payments each) with scores of a model that was trained on four others
(seeds 101 to 104). A community counts as a ring if at least half of its accounts belong to one planted ring: 97 % did,
7 communities did not. So few tell six features apart and no more, and the regression is held back (C = 0.3); the other
features are computed, and weigh nothing until there are worlds with more honest sharing to fit them on.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "accounts": 0.0,
        "frauds": 0.577,
        "risk": 0.135,
        "mean_risk": 0.184,
        "share": 0.2,
        "density": 0.0,
        "new_accounts": 0.0,
        "rare": 0.0,
        "busy": 0.0,
        "span": -1.172,
        "burst": 0.254,
        "others": 0.0,
        "constant": 4.962,
    }
)
"""By the names of `graph.rings.risk.judging.FEATURES`, and the constant."""
