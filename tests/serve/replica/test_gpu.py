"""The service on a device whose kernels run on the CPU: faults in the middle of the traffic, and who shares a card."""

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from gnn.errors import ModelError
from gnn.model.artifact import Artifact, untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.cuda_scorer import CudaScorer, device_bytes
from gnn.score.protocol import Scorer
from graph.state import GraphState
from serve.errors import ServeError
from serve.http.app import build_app
from serve.http.deployment import share
from serve.replica.replica import Replica
from serve.settings import Settings
from tests.cuda_host.host import GXX, HostDevice
from tests.cuda_host.streams import StreamDevice
from tests.world import payment_batch

ROLES = ("account", "merchant", "device")
GB = 1 << 30


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=4, window_rows=1 << 10)


def settings(folder: Path, **more: object) -> Settings:
    return Settings(model=folder, journal=folder / "journal.sqlite", insecure=True, capacity=1 << 12, **more)


def bodies(n: int) -> list[dict]:
    rows = payment_batch(n, seed=4, accounts=20, merchants=4, devices=9).to_pylist()
    return [{k: v.isoformat() if k == "timestamp" else v for k, v in row.items() if v is not None} for row in rows]


def work_given(device: StreamDevice) -> int:
    """Kernels that have run, and all that waits in the streams."""
    return len(device.launched) + sum(map(len, device._streams.values()))


@pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
@pytest.mark.parametrize("fault", ["cudaErrorIllegalAddress", "OutOfMemoryError", "cudaErrorNoDevice", "hung"])
def test_a_fault_of_the_device_loses_no_request(artifact, tmp_path, fault):
    """The request that meets it is answered by the CPU, those after it too, and the replica asks to be replaced."""
    host = StreamDevice()
    config, payments, answers, given = settings(tmp_path, cuda_wait_ms=1500), bodies(40), [], 0

    def scorers(model: Artifact, state: GraphState) -> list[Scorer]:
        cpu = CpuScorer(model, state)
        return [CudaScorer(cpu, host, buckets=(1, 8), patience_s=config.cuda_wait_ms / 1e3), cpu]

    def fails(name: str) -> None:
        if name == "attend_one":
            raise RuntimeError(fault)

    replica = Replica(artifact, config, scorers=scorers)
    replica.open()
    with TestClient(build_app(config, replica)) as client:
        for i, payment in enumerate(payments):
            if i == 25 and fault == "hung":
                host.stuck = lambda name: name == "attend_one"
            elif i == 25:
                host.fails = fails
            response = client.post("/v1/score", json=payment)
            assert response.status_code == 200
            answers.append(response.json())
            assert answers[-1]["reasons"]
            given = given if i > 25 else work_given(host)
            assert client.get("/livez").status_code == (200 if i < 25 else 503)
    assert [a["scored_by"] for a in answers] == ["cuda"] * 25 + ["cpu"] * 15
    assert [a["degraded"] for a in answers] == [False] * 25 + [True] * 15
    assert "lost its GPU" in str(replica.unhealthy)
    assert work_given(host) == given  # a device that failed is not asked again
    replacement = Replica(artifact, config, scorers=lambda model, state: [CpuScorer(model, state)])
    replacement.open()  # replays the journal: nothing is missing in it
    assert replacement.state.store.rows == 40
    assert replacement.unhealthy is None
    found = np.array([a["fraud_probability"] for a in answers])
    np.testing.assert_allclose(found, replacement.slot.probabilities(np.arange(40)), atol=1e-5)
    replacement.close()


@pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_fails_at_the_start_is_left_aside_or_an_error_where_it_was_asked_for(artifact, tmp_path, device):
    """Found by itself, it leaves the CPU and a replica in good health; asked for by name, it is an error."""
    host = HostDevice()

    def fails(name: str) -> None:
        raise RuntimeError("cudaErrorNoKernelImageForDevice")

    def scorers(model: Artifact, state: GraphState) -> list[Scorer]:
        cpu = CpuScorer(model, state)
        return [CudaScorer(cpu, host, buckets=(1,)), cpu]

    host.fails = fails
    config = settings(tmp_path, device=device)
    replica = Replica(artifact, config, scorers=scorers)
    if device == "cuda":
        with pytest.raises(RuntimeError, match="NoKernelImage"):
            replica.open()
        return
    replica.open()
    with TestClient(build_app(config, replica)) as client:
        answer = client.post("/v1/score", json=bodies(1)[0]).json()
        assert (answer["scored_by"], answer["degraded"]) == ("cpu", True)
        assert client.get("/livez").status_code == 200


def test_memory_that_does_not_suffice_is_named_at_the_start(artifact):
    state, host = GraphState(ROLES, 1 << 12, artifact.config.window), HostDevice()
    needed = device_bytes(artifact.config, 1 << 12)
    host.free_bytes = lambda: needed - 1  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="RINGWATCH_CUDA_MEMORY"):
        CudaScorer(CpuScorer(artifact, state), host)
    host.free_bytes = lambda: needed  # type: ignore[method-assign]
    CudaScorer(CpuScorer(artifact, state), host)


@pytest.mark.parametrize(
    ("replicas", "cards", "memory", "expected"),
    [(1, 0, None, 0.0), (1, 1, None, 1.0), (2, 4, None, 1.0), (3, 2, 20.0, 0.5), (3, 1, 20.0, 0.3333), (8, 2, 9, 0.25)],
)
def test_replicas_share_the_cards_there_are(tmp_path, replicas, cards, memory, expected):
    assert share(settings(tmp_path, replicas=replicas, cuda_memory=memory), cards) == expected


def test_sharing_needs_a_budget_and_cuda_a_card(tmp_path):
    with pytest.raises(ServeError, match="RINGWATCH_CUDA_MEMORY"):
        share(settings(tmp_path, replicas=3), 2)
    with pytest.raises(ServeError, match="no GPU"):
        share(settings(tmp_path, device="cuda"), 0)
    assert share(settings(tmp_path, device="cpu", replicas=3), 2) == 0.0


@pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
@pytest.mark.parametrize("cache", ["float32", "float16", "int8"])
def test_reasons_beside_a_device_s_score_are_the_cpus_and_add_up_to_it(tmp_path, cache):
    """Reasons come from the CPU's store and cache, which a device that scores keeps current.

    They are those of a replica that never had a device, and with the baseline add up to the log-odds of the score that
    the device gave: to half a unit of the fourth decimal, and what the two may differ by (docs/gpu.md).
    """
    model, config = untrained(ROLES, neighbours=4, window_rows=1 << 10, cache=cache), settings(tmp_path)
    off = {"float32": 1e-5, "float16": 2e-4, "int8": 0.05}[cache]

    def scorers(model: Artifact, state: GraphState) -> list[Scorer]:
        cpu = CpuScorer(model, state)
        return [CudaScorer(cpu, HostDevice(), buckets=(1, 8)), cpu]

    replica = Replica(model, config, scorers=scorers)
    replica.open()
    with TestClient(build_app(config, replica)) as client:
        answers = [client.post("/v1/score", json=payment).json() for payment in bodies(60)]
    alone = Replica(model, config, scorers=lambda model, state: [CpuScorer(model, state)])
    alone.open()
    expected = alone.slot.reasons(np.arange(60))
    alone.close()
    moved = [0.0]
    for answer, why in zip(answers, expected, strict=True):
        assert answer["scored_by"] == "cuda"
        assert why is not None
        p, reasons = answer["fraud_probability"], answer["reasons"]
        assert abs(answer["baseline"] + sum(r["contribution"] for r in reasons) - np.log(p / (1 - p))) < 5.1e-5 + off
        assert abs(answer["baseline"] - why.baseline) < 1.1e-4 + off
        theirs = {r.code: r for r in why.reasons}
        for reason in reasons:
            if (same := theirs.get(reason["code"])) and same.code != "OTHER":
                assert reason["message"] == same.message
                moved.append(abs(reason["contribution"] - same.contribution))
        if cache == "float32":
            assert [r["code"] for r in reasons if r["code"] != "OTHER"] == [c for c in theirs if c != "OTHER"]
    assert len(moved) > 60
    assert max(moved) < 1.1e-4 + off
