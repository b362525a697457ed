"""The rivals of the store do in our benchmark what we say they do: each against a plain loop on a tiny stream."""

import math

import numpy as np
import pytest

from benchmarks import peers
from graph.dag.features import WINDOW_NAMES, WINDOWS_US

N, SIZE = 96, 4


@pytest.fixture(scope="module")
def tiny() -> peers.Stream:
    drawn = peers.stream(N, 7, 3, 9, zipf=True, seed=3)
    return peers.Stream(drawn.entity, np.unique(drawn.time // 1_000_000)[:N] * 1_000_000, drawn.amount)


def last_rows(stream: peers.Stream, row: int, role: int, before: int, size: int) -> list[int]:
    """The newest rows below `before` of the entity that `row` touches in `role`, newest first."""
    same = [r for r in range(before) if stream.entity[r, role] == stream.entity[row, role]]
    return same[::-1][:size]


def test_stream_is_ordered_bounded_seeded_and_skewed_as_asked():
    uniform, zipf = (peers.stream(20_000, 500, 50, 400, skewed, seed=1) for skewed in (False, True))
    for s in (uniform, zipf):
        assert (np.diff(s.time) >= 0).all()
        assert (s.amount > 0).all()
        assert (s.entity >= 0).all()
        assert (s.entity < [500, 50, 400]).all()
    assert np.array_equal(zipf.entity, peers.stream(20_000, 500, 50, 400, True, seed=1).entity)
    counts = np.sort(np.bincount(zipf.entity[:, 0], minlength=500))[::-1]
    assert 0.7 < -np.polyfit(np.log(np.arange(1, 101)), np.log(counts[:100]), 1)[0] < 1.3
    assert np.bincount(uniform.entity[:, 0]).max() < 100


def test_head_keeps_which_payments_share_an_entity():
    whole = peers.stream(300, 10_000, 10_000, 20, zipf=False, seed=2)
    part = peers.head(whole, 100)
    assert part.entity.shape == (100, 3)
    for role in range(3):
        assert part.entity[:, role].max() + 1 == len(np.unique(whole.entity[:100, role]))
        before, after = (s.entity[:100, role, None] == s.entity[None, :100, role] for s in (whole, part))
        assert np.array_equal(before, after)


@pytest.mark.parametrize("batch", [1, 4])
def test_pyg_finds_the_last_payments_of_each_entity(tiny, batch):
    pytest.importorskip("torch_geometric")
    numbered, _ = peers.nodes(tiny)
    step = peers.pyg_steps(tiny, batch, SIZE)
    for first in range(0, N, batch):
        n_id, edge_index, e_id = step(first, first + batch)
        found: dict[int, list[int]] = {}
        for node, edge in zip(n_id[edge_index[1]].tolist(), e_id.tolist(), strict=True):
            # A batch of b payments makes 2b edges: the accounts' first, then the devices'.
            found.setdefault(node, []).append(edge // (2 * batch) * batch + edge % (2 * batch) % batch)
        for row in range(first, first + batch):
            for role in range(3):
                near = sorted(found.get(int(numbered[row, role]), []), reverse=True)
                assert near == last_rows(tiny, row, role, first, SIZE)


@pytest.mark.parametrize("batch", [1, 4])
def test_tgm_finds_the_last_payments_of_each_entity(tiny, batch):
    pytest.importorskip("tgm")
    step = peers.tgm_steps(tiny, batch, SIZE)
    for first in range(0, N, batch):
        near = step(first, first + batch).view(batch, 3, SIZE).tolist()
        for row in range(first, first + batch):
            for role in range(3):
                found = [r for r in near[row - first][role][::-1] if r >= 0]
                assert found == last_rows(tiny, row, role, first, SIZE)


@pytest.mark.parametrize("incidence", [False, True])
def test_networkx_finds_the_last_payments_of_each_entity(tiny, incidence):
    pytest.importorskip("networkx")
    found = peers.networkx_steps(tiny, N, incidence)(0, N)
    for row in range(N):
        assert found[row] == [last_rows(tiny, row, role, row, peers.PAYMENTS_PER_ENTITY) for role in range(3)]


@pytest.mark.parametrize(("setting", "hours"), [("cheapest", 12), ("20 days", 480)])
def test_snapml_counts_and_sums_up_to_and_with_the_payment(tiny, setting, hours):
    pytest.importorskip("snapml")
    step = peers.snapml_steps(tiny, 1, setting, 1)
    roles = {0: slice(-8, -6), 1: slice(-2, None)}  # degree and sum of the source's edges out, of the target's in
    if setting != "cheapest":  # fan, degree, ratio, average, sum, ... of the last of two edges
        roles = {0: slice(-31, -27, 3), 1: slice(-7, -3, 3)}
    for row in range(N):
        out = step(row, row + 1)[-1]
        # Edges leave when the next one is inserted: the window is counted back from the payment before.
        since = tiny.time[max(row - 1, 0)] - hours * 3_600_000_000
        for role, columns in roles.items():
            inside = [r for r in [row, *last_rows(tiny, row, role, row, N)] if tiny.time[r] > since]
            degree, total = out[columns]
            assert degree == len(inside)
            assert math.isclose(total, tiny.amount[inside].sum(), rel_tol=1e-9)


def test_duckdb_counts_and_sums_before_the_payment(tiny):
    pytest.importorskip("duckdb")
    table = peers.duckdb_features(tiny).execute("SELECT * FROM features ORDER BY row").fetchnumpy()
    for row in range(N):
        for r, role in enumerate(peers.ROLES):
            for name, span in zip(WINDOW_NAMES, WINDOWS_US, strict=True):
                inside = [b for b in last_rows(tiny, row, r, row, N) if tiny.time[row] - tiny.time[b] <= span]
                assert table[f"{role}_count_{name}"][row] == len(inside)
                assert table[f"{role}_sum_{name}"][row] == tiny.amount[inside].sum()


def test_a_package_that_is_not_installed_is_reported_and_no_error(tiny, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda module: None)
    results = peers.compare(tiny)
    assert {r.note for r in results} == {"not installed"}
    assert {r.name for r in results} >= {"snapml", "duckdb", "tgm-lib"}
    assert not peers.available()


@pytest.mark.parametrize(("module", "run"), [(module, run) for module, _, run in peers.peers()])
def test_every_rival_reports_the_payments_it_was_measured_on(tiny, module, run):
    pytest.importorskip(module)
    result = run(tiny)
    assert result.payments == N
    assert result.rate > 0
    assert result.version
    assert result.setting
