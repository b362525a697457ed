"""What a smaller key-value cache costs in average precision, on a trained model: float32, half and int8.

One network is trained on the first 70 % of the days of the seeded world, as the product trains one with an int8 cache.
The same weights then score the whole history three times, keys and values kept in each format, and are judged by the
truth on the payments of the days after the training.

Example: python -m benchmarks.bench_cache --seeds 3
"""

import argparse
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from benchmarks.report import Figure, show, write
from data.history import History
from data.world.synthetic import WorldConfig, simulate
from gnn.model.artifact import Artifact
from gnn.model.network import RingwatchNet
from gnn.score.cpu_scorer import CpuScorer
from gnn.score.replay import capacity_for, score_events
from gnn.train.targets import TrainConfig
from gnn.train.trainer import train
from graph.state import GraphState

TRAINING_SHARE = 0.7  # share of the days that the model is trained on


def in_format(artifact: Artifact, cache: str) -> Artifact:
    """The same weights with a cache of floating-point numbers."""
    config = replace(artifact.config, cache=cache)
    net = RingwatchNet(config)
    net.load_state_dict(artifact.net.state_dict())
    net.trees = artifact.net.trees
    for number in range(config.layers):
        net.layer(number).kv_scale.fill_(1)
    net.eval().requires_grad_(False)
    return replace(artifact, config=config, net=net)


def scores(artifact: Artifact, history: History) -> NDArray[np.float64]:
    """Every payment's score, in order."""
    window = artifact.config.window
    state = GraphState(artifact.roles, capacity_for(len(history.payments), window), window)
    parts = score_events(state, CpuScorer(artifact, state), history.events)
    return np.concatenate([part.probability for part in parts])


def measure(seed: int) -> dict[str, float]:
    """Average precision by format."""
    config = WorldConfig.hard(seed)
    with tempfile.TemporaryDirectory() as folder:
        simulate(config).write(Path(folder))
        stop = config.start + timedelta(days=round(TRAINING_SHARE * config.days))
        whole = History.read(folder, stop=config.start + timedelta(days=config.days))
        judged = whole.labelled(Path(folder) / "truth.parquet")
    artifact = train(whole.before(stop), TrainConfig(test=0, seed=seed), {"cache": "int8"})
    later = judged.payments["timestamp"].to_numpy() >= np.datetime64(stop.replace(tzinfo=None))
    found = {}
    for name, model in (
        ("int8", artifact),
        ("float32", in_format(artifact, "float32")),
        ("half", in_format(artifact, "float16")),
    ):
        score = scores(model, whole)
        found[name] = float(average_precision_score(judged.fraud[later], score[later]))
        print(f"seed {seed}, {name}: {found[name]:.5f}", flush=True)
    found["payments"], found["frauds"] = float(later.sum()), float(judged.fraud[later].sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; 1 where others use the machine too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = [measure(seed) for seed in range(options.seeds)]
    mean = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    figures = {}
    for name in ("int8", "half"):
        lost = [run["float32"] - run[name] for run in runs]
        beside = {"float32": mean["float32"], name: mean[name], "least": min(lost), "most": max(lost)}
        beside |= {"trainings": len(runs), "payments judged": mean["payments"], "frauds": mean["frauds"]}
        figures[f"ap_lost_{name}"] = Figure(mean["float32"] - mean[name], "average precision", None, "lower", beside)
    write("cache_formats", figures)
    show("cache_formats", figures)


if __name__ == "__main__":
    main()
