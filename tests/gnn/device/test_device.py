"""The network's CUDA kernels, run on the CPU, against the fused kernels and the network in PyTorch."""

import numpy as np
import pytest

from data.journal.protocol import Events, Kind
from gnn.device.batch import Bucket
from gnn.device.bulk import bulk
from gnn.device.net import DeviceNet
from gnn.model.artifact import Artifact, untrained
from gnn.model.groups import group_names
from gnn.model.network import uncached
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.protocol import Scorer
from graph.dag.protocol import DAY_US, Window
from graph.device.launch import Device
from graph.device.staging import to_host
from graph.device.store import DeviceStore, columns_of
from graph.state import GraphState
from tests.cuda_host.host import HostDevice
from tests.devices import DEVICES, opened
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device", "payee")
N = 800
WITHIN = 1e-5  # log-odds, of nearly all
MOST = {"float32": 1e-5, "float16": 2e-4, "int8": 0.05}  # of all: a key or value may be rounded the other way


def history() -> list[Events]:
    rng, payments, out, offset = np.random.default_rng(5), payment_batch(N, seed=5), [], 0
    for start in range(0, N, 100):
        out.append(Events(Kind.TRANSACTION, offset, payments.slice(start, 100)))
        chosen = rng.choice(start + 100, 12, replace=False)
        out.append(
            Events(Kind.LABEL, offset + 100, label_batch(payments, chosen, rng.random(12) < 0.6, delay_us=DAY_US // 4))
        )
        offset += 112
    return out


@pytest.fixture(scope="module", params=DEVICES)
def device(request) -> Device:
    return opened(request.param)


@pytest.fixture(scope="module", params=["float32", "float16", "int8"])
def scored(request, device) -> tuple[Artifact, Scorer, DeviceNet, np.ndarray, np.ndarray]:
    """A history scored on the host, and in buckets of several sizes on a device beside it."""
    artifact = untrained(ROLES, neighbours=6, cache=request.param, settle_days=2)
    state = GraphState(ROLES, 1 << 12, Window(2000, 90 * DAY_US))
    scorer = CpuScorer(artifact, state)
    window, settle_us = state.store.window, artifact.config.settle_us
    store = DeviceStore(device, state.store.roles, state.store.role_type, 1 << 12, window, settle_us=settle_us)
    net = DeviceNet(store, artifact.net)
    buckets = [Bucket(net, n) for n in (1, 8, 64, 512)]
    rng, expected, found = np.random.default_rng(0), [], []
    for event in history():
        rows = state.apply(event)
        if not rows:
            continue
        expected.append(scorer.score(rows.start, rows.stop))
        at = rows.start
        while at < rows.stop:
            store.labels.follow(state.store)
            n = min(int(rng.integers(1, 101)), rows.stop - at)
            bucket = next(b for b in buckets if b.n >= n)
            logit = bucket.score(columns_of(state.store, np.arange(at, at + n)), state.store.oldest)
            found.append(artifact.calibration.probability(logit.astype(np.float64)))
            slots = np.arange(at, at + n)
            np.testing.assert_array_equal(bucket.written[:, :n], to_host(device, net.cache[:, slots]))
            at += n
    store.labels.follow(state.store)
    return artifact, scorer, net, np.concatenate(expected), np.concatenate(found)


def test_scores_are_those_of_the_host(scored):
    artifact, _, _, expected, found = scored
    assert expected.std() > 0.01
    difference = np.abs(np.log(found / (1 - found)) - np.log(expected / (1 - expected)))
    assert np.quantile(difference, {"float32": 0.999, "float16": 0.95, "int8": 0.98}[artifact.config.cache]) < WITHIN
    assert difference.max() < MOST[artifact.config.cache]


def test_the_cache_is_that_of_the_host(scored):
    artifact, scorer, net, _, _ = scored
    found, expected = (
        to_host(net.device, net.cache[:, :N]).astype(np.float32),
        scorer.cache.data[:, :N].astype(np.float32),
    )
    if artifact.config.cache == "float32":
        np.testing.assert_allclose(found, expected, atol=1e-4)
    elif artifact.config.cache == "float16":
        # One rounding; and on a GPU, which fuses products and sums, what float32 may be off by above, in steps of .02.
        differ, off = (1e-2, 1e-4) if isinstance(net.device, HostDevice) else (5e-2, 1e-4 / 0.02)
        assert (found != expected).mean() < differ
        np.testing.assert_allclose(found, expected, atol=off, rtol=2**-10)
    else:
        assert (found != expected).mean() < 1e-3
        assert np.abs(found - expected).max() <= 2


def test_the_store_has_the_same_bytes_with_rings_and_labels(scored):
    _, scorer, net, _, _ = scored
    found, store = net.store.parts(), scorer.state.store
    np.testing.assert_array_equal(found["rows"][:N], store.row_data[:N])
    np.testing.assert_array_equal(found["velocity"][:N], store.velocity[:N])
    np.testing.assert_array_equal(found["labels"][: store.label_count], store.labels)
    assert found["rows"]["ring"][:N].any()


def test_past_payments_and_embeddings_are_those_of_the_plain_network(scored):
    artifact, scorer, net, _, _ = scored
    rows = np.random.default_rng(1).permutation(N)[:300]
    logit, h = net.fetched(rows)
    plain_h, plain = uncached(artifact.net, scorer.state.store, rows)
    within = MOST[artifact.config.cache]
    np.testing.assert_allclose(logit[:, 0], plain.numpy(), atol=within)
    np.testing.assert_allclose(h[:, 0], plain_h.numpy(), atol=10 * within)


def test_a_score_has_the_same_bits_whatever_batch_it_came_in(scored):
    _, _, net, _, _ = scored
    rows = np.arange(N - 400, N)
    together = net.fetched(rows)[0]
    alone = np.concatenate([net.fetched(rows[i : i + 1])[0] for i in range(0, 400, 37)])
    np.testing.assert_array_equal(together[::37], alone)


def test_log_odds_without_some_evidence_are_those_of_the_host(scored):
    artifact, scorer, net, _, _ = scored
    rows = np.arange(0, N, 97)
    masks = np.concatenate([[0], 1 << np.arange(len(group_names(ROLES)))])
    work = scorer._prepare(rows)
    expected = scorer._engine.score_ablated(scorer.cache.data, rows, work, masks)
    within = MOST[artifact.config.cache]
    np.testing.assert_allclose(to_host(net.device, net.outcome(rows, masks)[0]), expected, atol=within)


def test_a_whole_history_layer_by_layer_gives_what_micro_batches_gave(scored):
    """From an empty cache: what the micro-batches gave, since a row reads only its past."""
    artifact, scorer, net, _, _ = scored
    other = DeviceNet(net.store, artifact.net)
    logit = bulk(other, 0, N)
    within = MOST[artifact.config.cache]
    np.testing.assert_allclose(logit, scorer.logits(np.arange(N)), atol=within)
    np.testing.assert_array_equal(to_host(other.device, other.cache), to_host(net.device, net.cache))


def test_the_order_of_threads_and_blocks_does_not_matter(scored):
    artifact, scorer, net, _, _ = scored
    if not isinstance(net.device, HostDevice):
        pytest.skip("the order of a GPU's threads cannot be chosen")
    store = scorer.state.store
    twin = DeviceStore(opened("g++ backwards"), store.roles, store.role_type, 1 << 12, store.window)
    twin.read_as(artifact.config.settle_us)
    twin.adopt(store)
    other = DeviceNet(twin, artifact.net)
    np.testing.assert_array_equal(bulk(other, N - 200, N), bulk(DeviceNet(net.store, artifact.net), N - 200, N))
