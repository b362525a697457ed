"""The eighth role: an agent's history reaches a score, beside seven other roles."""

import numpy as np
import pyarrow as pa

from data.history import History
from data.schema import ROLES
from data.world.synthetic import WorldConfig, simulate
from gnn.model.artifact import untrained
from gnn.score.replay import score_history
from graph.dag.features import feature_names


def test_payments_of_all_eight_roles_are_scored_and_the_agent_makes_a_difference() -> None:
    world = simulate(WorldConfig(transactions=2_000, days=30, seed=3, agents=0.6))
    payments = world.transactions
    at = payments.schema.get_field_index("location_id")
    payments = payments.set_column(at, payments.schema.field(at), payments["country"])
    history = History.from_arrow(payments, world.labels)
    assert history.roles == tuple(role.name for role in ROLES)
    assert {"account.distinct_agent.24h", "agent.present"} <= {*feature_names(history.roles)}
    artifact = untrained(history.roles, neighbours=4, window_rows=1 << 12)
    scores = score_history(artifact, history)
    at = payments.schema.get_field_index("agent_id")
    none = payments.set_column(at, payments.schema.field(at), pa.nulls(len(payments), pa.string()))
    without = score_history(artifact, History.from_arrow(none, world.labels))
    assert np.isfinite(scores).all()
    by_agent = payments["agent_id"].is_valid().to_numpy()
    assert np.abs(scores - without)[by_agent].max() > 1e-3
    first = int(np.flatnonzero(by_agent)[0])
    assert (scores[:first] == without[:first]).all()
