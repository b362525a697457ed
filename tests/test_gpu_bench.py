"""The benchmark of the CUDA path, small and on the CPU: what a GPU is seldom there for must at least run."""

import pytest

from benchmarks import gpu_bench
from benchmarks.gpu_bench import measure
from benchmarks.gpu_figures import Figures, Sizes, figure, unmeasured
from tests.cuda_host.host import GXX, HostDevice

SMALL = Sizes(2048, 1024, 256, 1 << 10, 12, 64, 512, 4, (300, 50, 400))


@pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
def test_every_figure_comes_out_of_one_run():
    """All but training, which needs PyTorch for CUDA; its values say nothing, for the device is none."""
    kept: list[set[str]] = []
    found = measure(HostDevice(), SMALL, 600, lambda figures: kept.append(set(figures)))
    assert set(found) == set(unmeasured()) - {"training", "training_bf16"}
    assert all(f.value is not None and f.value >= 0 for f in found.values())
    assert [len(k) for k in kept] == sorted({len(k) for k in kept})  # told after each part
    assert kept[-1] == set(found)


@pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")
def test_a_run_that_has_no_time_left_keeps_what_it_has():
    assert measure(HostDevice(), SMALL, -1) == {}


def test_a_part_that_fails_is_shown_and_the_rest_goes_on(monkeypatch, capsys):
    def fails() -> Figures:
        raise AssertionError("the device's rows are not the CPU's")

    monkeypatch.setattr(gpu_bench, "parts", lambda device, sizes: iter([fails, lambda: {"ask": figure("ask", 1.0)}]))
    assert set(measure(None, SMALL, 600)) == {"ask"}
    assert "the device's rows are not the CPU's" in capsys.readouterr().err
