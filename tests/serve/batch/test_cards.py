"""A history scored again by several devices, whose kernels run on the CPU."""

import os
import subprocess
import sys
import textwrap
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gnn.device.bulk import Shard, score_sharded, shard_bytes
from gnn.errors import ModelError
from gnn.model.artifact import Artifact, untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.protocol import Scorer
from graph.dag.protocol import DAY_US, Window
from graph.state import GraphState
from tests.cuda_host.host import GXX, HostDevice
from tests.devices import DEVICES, opened
from tests.graph.history import sharing

NEEDS_GXX = pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
ROLES = ("account", "merchant", "device", "payee")
ROOT = Path(__file__).resolve().parents[3]
N = 900


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=6, layers=3, window_rows=200)


@pytest.fixture(scope="module")
def scorer(artifact) -> Scorer:
    state = GraphState(ROLES, 1 << 10, Window(200, 90 * DAY_US))
    for event in sharing(11, N, most=30, labels=0.3, reach=60, gap_us=DAY_US // 200):
        state.apply(event)
    scorer = CpuScorer(artifact, state)
    scorer.score(0, N)
    return scorer


def spread(artifact: Artifact, scorer: Scorer, bounds: list[int], calls: Counter[str], kind: str = "g++") -> np.ndarray:
    store = scorer.state.store
    shards = [Shard(store, artifact.net, opened(kind), i, j) for i, j in pairwise(bounds)]
    for shard, first in zip(shards, bounds, strict=False):
        assert shard._run.net.store.oldest == max(0, first - 200)  # what it needs and no more

    def call(shard: Shard, method: str, *arguments: object) -> object:
        calls[method] += 1
        return getattr(shard, method)(*arguments)

    return np.concatenate(score_sharded(shards, bounds, 3, 200, call)[-len(shards) :])


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("bounds", [[0, N], [0, 450, N], [0, 300, 301, 420, N], [0, 90, 180, 700, N]])
def test_several_cards_give_the_scores_of_one(artifact, scorer, bounds, kind):
    """To the bit, wherever the cuts are, slices shorter than the window among them; and those of the CPU."""
    calls: Counter[str] = Counter()
    found = spread(artifact, scorer, bounds, calls, kind)
    assert calls["take"] == calls["kept"] >= 3 * (len(bounds) - 2)
    np.testing.assert_array_equal(found, spread(artifact, scorer, [0, N], Counter(), kind))
    np.testing.assert_allclose(found, scorer.logits(np.arange(N)), atol=1e-5)


@NEEDS_GXX
def test_a_slice_that_does_not_fit_says_what_it_needs(artifact, scorer):
    device = HostDevice()
    needed = shard_bytes(artifact.net, 650, 450)
    device.free_bytes = lambda: needed - 1  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="more GPUs"):
        Shard(scorer.state.store, artifact.net, device, 450, N)
    device.free_bytes = lambda: needed  # type: ignore[method-assign]
    Shard(scorer.state.store, artifact.net, device, 450, N)


CLUSTER = """
    import os
    import sys
    from collections import Counter
    import numpy as np
    import ray
    from gnn.model.artifact import load
    from gnn.score.protocol import Scorer
    from gnn.score.cpu_scorer import CpuScorer
    from graph.dag.protocol import DAY_US, Window
    from graph.state import GraphState
    from serve.batch.rescore import _on_cards
    from tests.cuda_host.host import HostDevice
    from tests.graph.history import sharing
    from tests.serve.batch.test_cards import N, ROLES

    ray.init(num_cpus=2, num_gpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)
    artifact = load(sys.argv[1])
    state = GraphState(ROLES, 1 << 10, Window(200, 90 * DAY_US))
    for event in sharing(11, N, most=30, labels=0.3, reach=60, gap_us=DAY_US // 200):
        state.apply(event)
    arrays = {name: part.array[: part.used] for name, part in state.store.parts().items()}
    found = _on_cards(sys.argv[1], artifact.config, ray.put(arrays), state.store.facts(), N, 3, HostDevice)
    scorer = CpuScorer(artifact, state)
    scorer.score(0, N)
    np.testing.assert_allclose(found, scorer.logits(np.arange(N)), atol=1e-5)

    class Replica:
        def card(self):
            return os.environ["CUDA_VISIBLE_DEVICES"]

    held = [ray.remote(Replica).options(num_cpus=0.1, num_gpus=0.5).remote() for _ in range(6)]
    cards = Counter(ray.get([r.card.remote() for r in held]))
    assert sorted(cards.values()) == [2, 2, 2], cards  # each sees one card, and no card is given to more than two
    print("as one card")
"""


@NEEDS_GXX
@pytest.mark.ray
def test_ray_gives_each_slice_and_each_replica_its_card(tmp_path, artifact):
    """Three cards that are none: the cluster counts them all the same, and hands them out."""
    artifact.save(tmp_path / "model")
    made = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CLUSTER), str(tmp_path / "model")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "as one card" in made.stdout, made.stderr[-3000:]
