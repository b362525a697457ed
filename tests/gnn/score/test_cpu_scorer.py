"""The fused kernels against the network in PyTorch, cached against uncached, batch against one by one."""

import numpy as np
import pytest
import torch

from data.journal.protocol import Events, Kind
from gnn.errors import ModelError
from gnn.model.artifact import Artifact, untrained
from gnn.model.engines import CpuEngine, TorchEngine
from gnn.model.groups import group_names
from gnn.model.network import uncached
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.devices import choose_device
from gnn.score.protocol import Scorer
from gnn.score.reasons import OTHER
from graph.dag.protocol import DAY_US, Window
from graph.state import GraphState
from tests.world import label_batch, payment_batch

ROLES = ("account", "merchant", "device", "payee")
N = 1500


def events() -> list[Events]:
    """Payments with labels between them, some of them overturned."""
    rng = np.random.default_rng(5)
    payments, out, offset = payment_batch(N, seed=5), [], 0
    for start in range(0, N, 100):
        out.append(Events(Kind.TRANSACTION, offset, payments.slice(start, 100)))
        offset += 100
        chosen = rng.choice(start + 100, 12, replace=False)
        labels = label_batch(payments, chosen, rng.random(12) < 0.6, delay_us=DAY_US // 4)
        out.append(Events(Kind.LABEL, offset, labels))
        offset += 12
    return out


def scored(artifact: Artifact, group: int, device: str = "cpu") -> tuple[Scorer, np.ndarray]:
    """All events applied and scored, payments at most `group` at a time, labels in their place."""
    state = GraphState(artifact.roles, 1 << 12, Window(2000, 90 * DAY_US))
    scorer, out = CpuScorer(artifact, state, device), []
    for event in events():
        step = group if event.kind is Kind.TRANSACTION else len(event.batch)
        for i in range(0, len(event.batch), step):
            part = event.batch.slice(i, step)
            rows = state.apply(Events(event.kind, event.offset + i, part))
            if rows:
                out.append(scorer.score(rows.start, rows.stop))
    return scorer, np.concatenate(out)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return untrained(ROLES, neighbours=6)


@pytest.fixture(scope="module")
def one_by_one(artifact):
    return scored(artifact, 1)


@pytest.mark.parametrize("group", [7, 64, 4096])
def test_a_score_has_the_same_bits_whatever_batch_it_came_in(artifact, one_by_one, group):
    _, expected = one_by_one
    assert expected.std() > 0.01
    np.testing.assert_array_equal(scored(artifact, group)[1], expected)


def test_all_steps_in_one_call_are_those_one_by_one(artifact, one_by_one, monkeypatch):
    monkeypatch.setattr(CpuEngine, "forward", lambda *_: False)
    scorer, found = scored(artifact, 64)
    whole, expected = one_by_one
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scorer.cache.data, whole.cache.data)
    np.testing.assert_array_equal(scorer.cache.depth, whole.cache.depth)


def test_cached_equals_uncached(artifact, one_by_one):
    scorer, _ = one_by_one
    rows = np.arange(0, N, 3)
    h, logit = uncached(artifact.net, scorer.state.store, rows)
    np.testing.assert_allclose(scorer.logits(rows), logit.numpy(), atol=1e-5)
    np.testing.assert_allclose(scorer.embed(rows), h.numpy(), atol=1e-4)


def test_a_past_payment_scores_the_same_again(one_by_one):
    scorer, expected = one_by_one
    rows = np.random.default_rng(0).permutation(N)
    np.testing.assert_array_equal(scorer.rescore(rows), expected[rows])


def test_the_torch_engine_agrees_with_the_kernels(artifact, one_by_one):
    scorer, expected = one_by_one
    other = CpuScorer(artifact, scorer.state, "cpu")
    other._engine = TorchEngine(artifact.net, scorer.state.store, "cpu")
    np.testing.assert_allclose(other.score(0, N), expected, atol=1e-6)
    np.testing.assert_allclose(other.cache.data, scorer.cache.data, atol=1e-4)
    rows = np.arange(0, N, 97)
    masks = np.concatenate([[0], 1 << np.arange(len(group_names(ROLES)))])
    work = scorer._prepare(rows)
    arguments = (scorer.cache.data, rows, work, masks)
    expected_ablated = scorer._engine.score_ablated(*arguments)
    np.testing.assert_allclose(other._engine.score_ablated(*arguments), expected_ablated, atol=1e-5)
    assert np.ptp(expected_ablated, axis=1).min() > 1e-4  # leaving something out moves every score


def test_later_events_do_not_change_a_past_score(artifact):
    """Causality: the future of a payment, its own label and others' later labels included, is not in its score."""
    half = events()[:16]
    state = GraphState(ROLES, 1 << 12, Window(2000, 90 * DAY_US))
    scorer = CpuScorer(artifact, state)
    for event in half:
        state.apply(event)
    n = state.store.rows
    early = scorer.score(0, n)
    for event in events()[16:]:
        state.apply(event)
    np.testing.assert_array_equal(CpuScorer(artifact, state).score(0, n), early)


def test_reasons_follow_the_input(artifact, one_by_one):
    """Reasons come from the actual score: change the input and they change."""
    scorer, _ = one_by_one
    before = scorer.reasons(np.arange(N - 5, N))
    slot = N - 1
    stored = scorer.state.store.row_data["amount"]
    amount = int(stored[slot])
    stored[slot] = 40 * amount + 12_345
    after = scorer.reasons(np.arange(N - 5, N))
    stored[slot] = amount
    assert after[:-1] == before[:-1]
    by_code = [{r.code: r for r in why.reasons} for why in (before[-1], after[-1])]
    assert by_code[0] != by_code[1]
    for why in after:
        assert 1 <= len(why.reasons) <= 5
        named = [abs(r.contribution) for r in why.reasons if r.code != OTHER]
        assert named == sorted(named, reverse=True)
        assert all(r.code != OTHER for r in why.reasons[:-1])


def test_an_artifact_survives_disk_and_is_checked(artifact, tmp_path):
    from gnn.model.artifact import load

    artifact.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert (again.version, again.config, again.calibration) == (artifact.version, artifact.config, artifact.calibration)
    for name, tensor in artifact.net.state_dict().items():
        assert torch.equal(tensor, again.net.state_dict()[name])
    weights = tmp_path / "model" / "weights.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[-1] ^= 1
    weights.write_bytes(bytes(blob))
    with pytest.raises(ModelError, match="SHA-256"):
        load(tmp_path / "model")
    with pytest.raises(ModelError, match="no readable model"):
        load(tmp_path / "nowhere")


def test_cuda_without_a_gpu_fails_with_a_clear_line():
    if torch.cuda.is_available():
        assert choose_device("auto") == "cuda"
        return
    assert choose_device("auto") == "cpu"
    with pytest.raises(ModelError, match="no CUDA device"):
        choose_device("cuda")


def test_the_graph_must_have_the_models_roles(artifact):
    with pytest.raises(ModelError, match="roles"):
        CpuScorer(artifact, GraphState(("account",), 1 << 12, Window(10)))
