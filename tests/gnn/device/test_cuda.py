"""The network on a GPU against the CPU: the bound that a fallback from one to the other is allowed to move a score."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.dlpack import from_dlpack

from data.journal.protocol import Events, Kind
from gnn.model.artifact import untrained
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.cuda_scorer import CudaScorer
from gnn.score.reasons import OTHER
from graph.dag.protocol import DAY_US, Window
from graph.device.cuda_device import CudaDevice
from graph.errors import GraphError
from graph.state import GraphState
from tests.world import label_batch, payment_batch

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA device here: run `make gpu-check` where there is one"
    ),
]

ROOT = Path(__file__).resolve().parents[3]
ROLES = ("account", "merchant", "device", "payee")
N = 100_000
BOUND = {"float32": 1e-5, "float16": 1e-4, "int8": 5e-3}  # of a probability; where a key or value rounds the other way
TYPICAL = 1e-5  # and this of nearly all
NEARLY = {"float32": 0.99, "float16": 0.99, "int8": 0.95}


def events() -> list[Events]:
    payments, rng, out, offset = payment_batch(N, 3, 4000, 300, 2000), np.random.default_rng(3), [], 0
    for start in range(0, N, 5000):
        out.append(Events(Kind.TRANSACTION, offset, payments.slice(start, 5000)))
        chosen = rng.choice(start + 5000, 200, replace=False)
        out.append(Events(Kind.LABEL, offset + 5000, label_batch(payments, chosen, rng.random(200) < 0.5)))
        offset += 5200
    return out


@pytest.mark.parametrize("cache", ["float32", "float16", "int8"])
def test_scores_on_cuda_stay_within_the_bound_over_1e5_payments(cache):
    artifact = untrained(ROLES, cache=cache)
    states = [GraphState(ROLES, 1 << 18, Window(1 << 17, 90 * DAY_US)) for _ in range(2)]
    cpu, cuda = CpuScorer(artifact, states[0]), CudaScorer(CpuScorer(artifact, states[1]), CudaDevice())
    cuda.warm()
    expected, found, rng = [], [], np.random.default_rng(0)
    for event in events():
        rows = states[0].apply(event)
        states[1].apply(event)
        if not rows:
            continue
        expected.append(cpu.score(rows.start, rows.stop))
        at = rows.start
        while at < rows.stop:
            stop = min(rows.stop, at + int(rng.choice([1, 7, 64, 500, 4096, 5000])))
            found.append(cuda.score(at, stop))
            at = stop
    expected, found = np.concatenate(expected), np.concatenate(found)
    assert expected.std() > 0.01
    difference = np.abs(found - expected)
    print(f"{cache}: largest {difference.max():.2e}, 95, 99 % {np.quantile(difference, [0.95, 0.99])}")
    assert difference.max() < BOUND[cache]
    assert np.quantile(difference, NEARLY[cache]) < TYPICAL
    again = cuda.rescore(np.arange(N - 20_000, N))
    assert np.abs(again - expected[-20_000:]).max() < BOUND[cache]
    assert np.abs(cuda.cpu.rescore(np.arange(N - 2000, N)) - expected[-2000:]).max() < BOUND[cache]


@pytest.fixture(scope="module")
def state() -> GraphState:
    state = GraphState(ROLES, 1 << 15, Window(1 << 14, 90 * DAY_US))
    for event in events()[:4]:
        state.apply(event)
    return state


def test_the_torch_engine_goes_on_from_the_cpus_cache(state):
    artifact = untrained(ROLES, seed=1)
    cpu = CpuScorer(artifact, state)
    cuda = CpuScorer(artifact, state, "cuda", cache=cpu.cache)
    found = [(cpu, cuda)[i % 2].score(i * 500, i * 500 + 500) for i in range(20)]
    assert np.abs(np.concatenate(found) - CpuScorer(artifact, state).score(0, 10_000)).max() < 1e-4


def test_torch_takes_the_stores_arrays_without_a_copy(state):
    cuda = CudaScorer(CpuScorer(untrained(ROLES), state), CudaDevice())
    cuda.warm()
    features = cuda.store.features(np.arange(100))
    tensor = from_dlpack(features)
    assert tensor.data_ptr() == features.data.ptr
    assert tensor.is_cuda


def test_micro_batches_allocate_nothing():
    artifact, device, history = untrained(ROLES, seed=3), CudaDevice(), events()
    state = GraphState(ROLES, 1 << 15, Window(1 << 14, 90 * DAY_US))
    cuda = CudaScorer(CpuScorer(artifact, state), device)
    cuda.warm()
    for event in history[:3]:
        state.apply(event)
    cuda.score(0, 5000)
    held, used = device.held_bytes(), device.xp.get_default_memory_pool().used_bytes()
    for i in range(5000, 9980, 60):
        cuda.score(i, i + 60)
    assert (device.held_bytes(), device.xp.get_default_memory_pool().used_bytes()) == (held, used)


def test_a_budget_that_the_card_does_not_have_is_named():
    with pytest.raises(GraphError, match="RINGWATCH_CUDA_MEMORY"):
        CudaDevice(1 << 50)


def test_after_an_illegal_access_the_cpu_answers():
    """In a process of its own: what follows such an error on the device fails too."""
    script = """
        import numpy as np
        from gnn.model.artifact import untrained
        from gnn.score.cuda_scorer import CudaScorer
        from gnn.score.cpu_scorer import CpuScorer
        from graph.device.cuda_device import CudaDevice
        from tests.gnn.device.test_cuda import ROLES, GraphState, Window, events

        state, device = GraphState(ROLES, 1 << 15, Window(1 << 14)), CudaDevice()
        cpu = CpuScorer(untrained(ROLES), state)
        cuda = CudaScorer(cpu, device)
        cuda.warm()
        state.apply(events()[0])
        cuda.score(0, 4064)
        device.xp.RawKernel('extern "C" __global__ void k() { *(int*)8 = 1; }', "k")((1,), (1,), ())
        try:
            cuda.score(4064, 4128)
        except Exception as error:
            print(type(error).__name__)
        assert cuda.lost and not cuda.ready
        assert np.isfinite(cpu.score(4064, 4128)).all()
        print("answered")
    """
    made = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "answered" in made.stdout, made.stderr


def test_after_a_kernel_that_does_not_return_the_cpu_answers():
    """The kernel spins for half a minute; the process ends without waiting for it."""
    script = """
        import os
        import time
        import numpy as np
        from gnn.model.artifact import untrained
        from gnn.score.cuda_scorer import CudaScorer
        from gnn.score.cpu_scorer import CpuScorer
        from graph.device.cuda_device import CudaDevice
        from graph.device.waiting import HungError
        from tests.gnn.device.test_cuda import ROLES, GraphState, Window, events

        state, device = GraphState(ROLES, 1 << 15, Window(1 << 14)), CudaDevice()
        cpu = CpuScorer(untrained(ROLES), state)
        cuda = CudaScorer(cpu, device, patience_s=0.2)
        cuda.warm()
        cpu.warm()
        state.apply(events()[0])
        cuda.score(0, 4064)
        spin = device.xp.RawKernel(
            'extern "C" __global__ void k() { long long t = clock64(); while (clock64() - t < 50000000000LL); }', "k"
        )
        with device.on():
            spin((1,), (1,), ())
        begin = time.perf_counter()
        try:
            cuda.score(4064, 4128)
        except HungError as error:
            print(error)
        assert cuda.lost and not cuda.ready
        assert np.isfinite(cpu.score(4064, 4128)).all()
        print(f"answered after {time.perf_counter() - begin:.2f} s", flush=True)
        os._exit(0 if time.perf_counter() - begin < 5 else 1)
    """
    made = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert "counts as lost" in made.stdout
    assert "answered" in made.stdout


def test_reasons_from_the_torch_engine_on_cuda_are_those_of_the_cpu(state):
    artifact = untrained(ROLES, seed=2)
    cpu = CpuScorer(artifact, state)
    cpu.score(0, 5000)
    cuda = CpuScorer(artifact, state, "cuda", cache=cpu.cache)
    rows = np.arange(4000, 4100)
    for a, b in zip(cpu.reasons(rows), cuda.reasons(rows), strict=True):
        assert abs(a.baseline - b.baseline) < 1e-3
        said, also = ({r.code: r.contribution for r in e.reasons if r.code != OTHER} for e in (a, b))
        shared = said.keys() & also.keys()  # rounding may choose another one of two that weigh the same
        assert len(shared) >= len(said) - 1
        assert all(abs(said[code] - also[code]) < 1e-3 for code in shared)
