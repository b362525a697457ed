"""What a risk ring is: the settings of the engine, and the same as compiled code reads it."""

from dataclasses import dataclass

import numpy as np

from data.schema import role as role_named
from graph.dag.protocol import DAY_US, Store
from graph.errors import GraphError
from graph.rings.risk.judging import FEATURES
from graph.rings.risk.tables import Rules
from graph.rings.risk.weights import WEIGHTS


@dataclass(frozen=True)
class RiskSettings:
    """What a risk ring is.

    Attributes:
        tau: Fraud probability from which a payment is risky, if it is not known to be legitimate.
        window_us: How long a payment counts; never longer than the store's window.
        min_accounts: Accounts that make a community a ring.
        share: Share of an entity's payments that are risky, at least, for it to tie anybody.
        base: Share of all payments that are about to be risky: what is expected of an entity by chance.
        surprises: How surprising an entity's risky payments are for it to tie weakly, well, strongly; see
            `graph.rings.risk.lists.level_of`.
        passing: What is added to that of an account that is paid, where it makes risky payments itself.
        resolution: Of the communities, in hundredths; higher makes smaller ones.
        company: Share of an entity's accounts that are a ring's, from which the others are its company.
    """

    tau: float = 0.2
    window_us: int = 30 * DAY_US
    min_accounts: int = 3
    share: float = 0.06
    base: float = 0.012
    surprises: tuple[float, ...] = (5.5, 9.0, 16.0)
    passing: float = 3.0
    resolution: int = 20
    company: float = 0.7


def rules_for(store: Store, settings: RiskSettings) -> Rules:
    """The settings for a store.

    Raises:
        GraphError: Two roles beside `account` share an entity type.
    """
    kinds = [role_named(name).entity_type for name in store.roles[1:]]
    if len(set(kinds)) < len(kinds):
        raise GraphError(f"risk rings: two of the roles {list(store.roles[1:])} share their entities")
    return Rules(
        tau=np.float32(settings.tau),
        window_us=min(settings.window_us, store.window.span_us),
        window_rows=store.window.rows,
        min_accounts=settings.min_accounts,
        share=settings.share,
        base=settings.base,
        surprises=np.array(settings.surprises, np.float64),
        passing=settings.passing,
        resolution=settings.resolution,
        payee=store.roles.index("payee") if "payee" in store.roles else -1,
        weights=np.array([*(WEIGHTS[name] for name in FEATURES), WEIGHTS["constant"]], np.float64),
    )
