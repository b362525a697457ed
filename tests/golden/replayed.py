"""What the golden files hold, computed by today's code."""

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.files.sources import merged
from data.history import numbered
from data.journal.protocol import Kind
from gnn.model.artifact import Artifact, load
from gnn.model.network import RingwatchNet
from gnn.score.replay import open_model, score_events
from graph.dag.protocol import Store
from serve.decide.decision import USUAL_ACTION
from serve.replica.admission import LabelCall, ScoreCall
from serve.replica.replica import Replica
from serve.settings import Settings

FOLDER = Path(__file__).parent
HISTORIES = ("world", "ties", "sparse")
CACHES = ("float32", "float16", "int8")
CALL = (1, 3, 64, 7)  # payments of a call, in turn
ANSWERED = 12  # one answer in so many is kept
RINGS = 40

LATER_FIELDS = ("rules", "expected_loss", "fee_bps", "route", "mandate")  # nothing asked for them


def artifact(history: str, cache: str = "float32") -> Artifact:
    """The committed model of a history, its cache in some format."""
    kept = load(FOLDER / history / "model")
    config = replace(kept.config, cache=cache)
    net = RingwatchNet(config)
    net.load_state_dict(kept.net.state_dict())
    net.trees = kept.net.trees
    net.eval()
    net.requires_grad_(False)
    return replace(kept, config=config, net=net)


def files(history: str) -> tuple[Path, Path]:
    """Payments and labels."""
    return FOLDER / history / "transactions.parquet", FOLDER / history / "labels.parquet"


def scores(history: str) -> dict[str, NDArray[Any]]:
    """Probabilities of all payments by format of the cache, and log-odds with evidence left out of some."""
    found: dict[str, NDArray[Any]] = {}
    for cache in CACHES:
        state, scorer = open_model(artifact(history, cache), rows=4096)
        events = numbered(merged(*files(history)))
        found[cache] = np.concatenate([s.probability for s in score_events(state, scorer, events)])
        rows = np.arange(state.store.rows - 200, state.store.rows, 7)
        found[f"{cache}.embedding"] = scorer.embed(rows)
    return found


def answers(history: str) -> list[dict[str, Any]]:
    """Every twelfth answer of a replica to the history in calls of several sizes, and the rings at its end."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(model=FOLDER / history / "model", journal=Path(folder) / "j.sqlite", insecure=True)
        replica = Replica(artifact(history), settings.model_copy(update={"device": "cpu", "snapshot_every": 0}))
        replica.open()
        found: list[dict[str, Any]] = []
        n = 0
        for kind, batch in merged(*files(history), chunk=97):
            if kind is Kind.LABEL:
                replica.process([LabelCall(batch)])
                continue
            at = 0
            while at < len(batch):
                calls = []
                for _ in range(2):  # calls that share a micro-batch
                    size = CALL[n % len(CALL)]
                    calls.append(ScoreCall(batch.slice(at, size)))
                    at, n = at + size, n + 1
                for bodies in replica.process([call for call in calls if len(call.batch)]):
                    found += [json.loads(body) for body in bodies]
        store = replica.state.store
        for answer in found:
            assert answer["ring"] is None, "nobody journals rings here"
            answer["ring"] = _tie_ring(store, int(store.offsets.rows(np.array([answer["journal_offset"]]))[0]))
        rings = [_plain(ring) for ring in replica.ties.rings(RINGS)]
        replica.close()
    for answer in found:
        assert (answer.pop("recorded"), answer.pop("earlier_decision")) == (True, None)
        assert answer.pop("action") == USUAL_ACTION[answer["decision"]]
        assert answer.pop("policy") == "thresholds 0.05/0.2/0.6"
        assert [answer.pop(name) for name in LATER_FIELDS] == [[], None, None, None, None]
        for reason in answer["reasons"]:  # amounts had no currency
            reason["message"] = re.sub(r"^(amount [0-9,.]+) [A-Z]{3}(/[A-Z]{3})*", r"\1", reason["message"])
        del answer["timings"]
    return [*found[::ANSWERED], *rings]


def _tie_ring(store: Store, row: int) -> dict[str, Any] | None:
    """The tie ring of a payment, which its features read."""
    rows = np.array([row])
    founder, size = int(store.ring_ids(rows)[0]), int(store.column("ring", rows)[0, 0])
    return {"id": f"R-{founder}", "size": size} if founder >= 0 else None


def _plain(ring: Any) -> dict[str, Any]:
    from serve.http.wire import ring_out

    found: dict[str, Any] = json.loads(ring_out(ring, [str(row) for row in ring.transactions]).model_dump_json())
    found["amount_at_risk"] = sum(found.pop("at_risk").values())  # of all currencies, when these were recorded
    return found


def labelled(history: str) -> int:
    """Labels of a history."""
    return int(pq.read_metadata(files(history)[1]).num_rows)
