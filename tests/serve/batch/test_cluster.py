"""Re-scoring on a Ray cluster: machines that die, and cards that are none."""

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tests.cuda_host.host import GXX
from tests.serve.batch.test_rescore import content, folder, run  # noqa: F401

ROOT = Path(__file__).resolve().parents[3]

DYING = """
    import sys
    from pathlib import Path
    import ray
    from ray.cluster_utils import Cluster
    from gnn.model.artifact import load
    from serve.batch import workers as module
    from serve.batch.workers import RayWorkers
    from tests.serve.batch.test_rescore import BLOCK, content, run

    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    cluster.wait_for_nodes()
    started, module.START_S = [], 8.0

    class Watched(RayWorkers):
        def start(self, stretch):
            started.append((stretch.first, len(self._actors)))
            if len(started) == 3:
                cluster.remove_node(second, allow_graceful=False)
            return super().start(stretch)

    def make():
        return Watched(str(folder / "model"), load(folder / "model"), BLOCK, "cpu")

    run(folder, out, make_workers=make)
    ray.shutdown()
    cluster.shutdown()
    print("actors", sorted({n for _, n in started}), "blocks", len({first for first, _ in started}))
"""


@pytest.mark.ray
def test_a_machine_that_dies_changes_nothing_in_the_scores(folder, tmp_path):  # noqa: F811
    run(folder, tmp_path / "undisturbed")
    done = _ray(DYING, folder, tmp_path / "out")
    assert "actors [1, 2] blocks 5" in done.stdout, done.stderr[-3000:]
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


CARDS = """
    import os
    import sys
    from collections import Counter
    from pathlib import Path
    import numpy as np
    import ray
    from gnn.model.artifact import load
    from serve.batch.source import open_source
    from serve.batch.workers import RayWorkers
    from tests.cuda_host.host import HostDevice
    from tests.serve.batch.test_rescore import BLOCK, run, scores

    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    ray.init(num_cpus=2, num_gpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)

    def make():
        return RayWorkers(str(folder / "model"), load(folder / "model"), BLOCK, "cuda", None, HostDevice)

    import gnn.score.slices
    gnn.score.slices.ROWS_PER_BATCH = 300
    def few():
        whole = open_source(folder / "journal.sqlite")
        return open_source(folder / "journal.sqlite", earlier={**whole.identity, "events": 1_200})

    done = run(folder, out / "cards", source=few(), make_workers=make)
    assert done.actors == "3 x cuda", done
    run(folder, out / "here", source=few())
    a, b = (scores(out / name)["log_odds"].to_numpy() for name in ("cards", "here"))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)

    class Replica:
        def card(self):
            return os.environ["CUDA_VISIBLE_DEVICES"]

    held = [ray.remote(Replica).options(num_cpus=0.1, num_gpus=0.5).remote() for _ in range(6)]
    cards = Counter(ray.get([r.card.remote() for r in held]))
    assert sorted(cards.values()) == [2, 2, 2], cards  # each sees one card, and no card is given to more than two
    print("as one card")
"""


@pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
@pytest.mark.ray
def test_ray_gives_each_slice_and_each_replica_its_card(folder, tmp_path):  # noqa: F811
    """Three cards that are none: the cluster counts them all the same, and hands them out."""
    assert "as one card" in (done := _ray(CARDS, folder, tmp_path)).stdout, done.stderr[-3000:]


def _ray(program: str, *arguments: Path) -> "subprocess.CompletedProcess[str]":
    with tempfile.TemporaryDirectory(prefix="rw") as own:  # a short path, and not where other clusters are looked for
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": own},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
