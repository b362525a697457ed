"""Training: chronological, on what was known at the time, layer by layer.

Each layer learns on the finished layer below, whose embeddings of all rows are computed once, so no stale or sampled
neighbourhood enters and the cost of an epoch does not grow with depth (Belilovsky et al., ICML 2019). Layer l's head
adds to the log-odds of the layers below it. Fraud is rare: each epoch takes all frauds and a fresh draw of the rest;
Platt scaling on a later window brings the probabilities back to the true base rate.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from data.history import History
from data.report import Report, silent
from gnn.errors import ModelError
from gnn.model.artifact import Artifact
from gnn.model.calibration import PlattScaling, calibration_covariance, transfer_calibration
from gnn.model.network import MAX_INT8_STEP, ModelConfig, RingwatchNet, beside
from gnn.score.replay import capacity_for
from gnn.train.feed import Feed, state_for
from gnn.train.head import HeadInputs, fit_head, refit_head
from gnn.train.pretrain import NextPaymentHeads, next_payments
from gnn.train.prospects import ProspectHeads, prospects
from gnn.train.targets import Targets, TrainConfig, make_targets
from gnn.train.threads import one_thread
from graph.dag.features import feature_names
from graph.dag.memory import head_names
from graph.dag.protocol import DAY_US
from graph.state import GraphState

MAX_PRETRAINING_PASSES = 10  # over a short history
MIN_STEPS_PER_EPOCH = 60  # where the history is long enough
ROWS_PER_BLOCK = 1024  # payments embedded at once
MAX_VALIDATION_ROWS = 60_000  # a larger validation window is sampled when it chooses the epoch
MIN_STANDARD_DEVIATION = 1e-3  # a feature that varied less in training is not read


class Fitted(NamedTuple):
    """A model, and what training itself scored.

    Attributes:
        artifact: The model, calibrated.
        logit: Log-odds of all payments by the model's network and head, before calibration, float32 [N]: computed in
            PyTorch over training's own arrays, and so an oracle for whoever scores the same payments otherwise.
    """

    artifact: Artifact
    logit: NDArray[np.float32]


def train(
    history: History,
    config: TrainConfig | None = None,
    shape: dict[str, Any] | None = None,
    report: Report = silent,
    choose: Callable[[GraphState, TrainConfig], Targets] = make_targets,
) -> Artifact:
    """Train a model on a history: on all of its events, and on nothing that became known after them. See `fit`."""
    return fit(history, config, shape, report, choose).artifact


@one_thread()
def fit(
    history: History,
    config: TrainConfig | None = None,
    shape: dict[str, Any] | None = None,
    report: Report = silent,
    choose: Callable[[GraphState, TrainConfig], Targets] = make_targets,
) -> Fitted:
    """Train a model on a history, and give what training itself scored with it.

    Args:
        history: Payments and labels; `history.before(moment)` is what was known at a moment.
        config: How to train.
        shape: Fields of `ModelConfig` that differ from its defaults.
        report: Told of progress.
        choose: Says which payments teach and choose.

    Returns:
        The model, calibrated, its facts with windows and metrics; and the log-odds that training gave all payments.

    Raises:
        ModelError: Too few payments or known frauds to learn from, or no such feature to leave out.
    """
    config = config or TrainConfig()
    if not len(history.payments):
        raise ModelError("there is no payment to learn from")
    net_config = ModelConfig(history.roles, **(shape or {}))
    for left_out in config.without:
        readable = (*feature_names(net_config.roles), *head_names(net_config.roles))
        if not any(name.startswith(left_out) for name in readable):
            raise ModelError(f"--without {left_out}: no feature has a name that begins so")
    capacity = capacity_for(len(history), net_config.window)
    state = state_for(config.device, net_config.roles, capacity, net_config.window)
    for i, events in enumerate(history.events):
        state.apply(events)
        if i % 64 == 0:
            report("building the graph", i / len(history.events))
    targets = choose(state, config)
    net_config = replace(net_config, settle_days=targets.settle_days)
    torch.manual_seed(config.seed)
    net = RingwatchNet(net_config, config.seed).to(config.device)
    learner = _Learner(net, state, targets, config, report)
    logit = learner.run()
    net.to("cpu").eval().requires_grad_(False)
    report("growing the head", 0.0)
    inputs = learner.head_inputs()
    net.trees, grown = fit_head(inputs, logit, targets, config.seed)
    logit = inputs.score(net.trees, logit)
    known = targets.validation
    is_fraud, account = targets.fraud[known] > 0, state.store.column("entity", known)[:, 0]
    calibration = PlattScaling.fit(logit[known].astype(np.float64), is_fraud)
    log_odds = calibration.slope * logit[known].astype(np.float64) + calibration.intercept
    unsure = calibration_covariance(log_odds, is_fraud, account)
    if config.refit:
        net, again = _refit_model(learner, grown)
        unlearnt = slice(int(known[-1]) + 1, int(targets.test[0]) if len(targets.test) else len(logit))
        calibration = transfer_calibration(calibration, logit[unlearnt], again[unlearnt])
        # Nothing labelled is left to calibrate the new model's slope: as far as its spread differs, it is unsure.
        if (spread := float(logit[unlearnt].std()) if len(logit[unlearnt]) else 0.0) > 0:
            unsure[0, 0] += (float(again[unlearnt].std()) / spread - 1) ** 2
        logit = again
    facts = _facts(state, targets, config, learner.history, grown)
    facts["training"]["calibration_covariance"] = unsure.tolist()
    return Fitted(Artifact(net_config, net, calibration, facts), logit)


def _refit_model(first: "_Learner", grown: dict[str, Any]) -> tuple[RingwatchNet, NDArray[np.float32]]:
    """The same model trained on the validation payments too, for as many epochs and trees as those chose.

    Returns:
        The network with its trees, and its log-odds of all rows, float32 [N].
    """
    net = RingwatchNet(first.net.config, first.config.seed).to(first.config.device)
    torch.manual_seed(first.config.seed)
    learner = _Learner(net, first.state, first.targets.with_validation_in_training, first.config, first.report, first)
    logit = learner.run()
    net.to("cpu").eval().requires_grad_(False)
    first.report("growing the head", 0.5)
    inputs = learner.head_inputs()
    net.trees = refit_head(inputs, logit, learner.targets, grown, first.config.seed)
    return net, inputs.score(net.trees, logit)


class _Learner:
    """Trains the layers of one network over one graph."""

    def __init__(
        self,
        net: RingwatchNet,
        state: GraphState,
        targets: Targets,
        config: TrainConfig,
        report: Report,
        before: "_Learner | None" = None,
    ) -> None:
        self.net, self.state, self.targets, self.config, self.report = net, state, targets, config, report
        self.history: list[dict[str, float]] = []
        self.epochs: list[int] = before.epochs if before else []  # of each layer; else the validation chooses
        self._refit = before is not None
        self._rng = np.random.default_rng(config.seed)
        self._device = torch.device(config.device)
        self._feed, n = Feed(state.store, self._device, net.config.settle_us), state.store.rows
        self.x: Tensor = before.x if before else self._features()
        self._category = torch.from_numpy(state.store.column("category").astype(np.int64)).to(self._device)
        x = self.x[self._feed.rows(targets.train)].cpu().numpy()
        net.mean.copy_(torch.from_numpy(x.mean(0)))
        std = x.std(0)  # a feature that never varied in training is not read, whatever it does later
        scale = np.where(std < MIN_STANDARD_DEVIATION, 0, 1 / np.maximum(std, MIN_STANDARD_DEVIATION))
        net.scale.copy_(torch.from_numpy(scale.astype(np.float32)))
        self._share = prospects(state.store, targets.fraud, targets.train)
        self._logit = torch.zeros(n, device=self._device)  # of the finished layers
        self._h = torch.empty((0, 0), device=self._device)  # embeddings by the newest finished layer

    def run(self) -> NDArray[np.float32]:
        """Train every layer; returns the log-odds of all rows, float32 [N]."""
        for layer in range(self.net.config.layers):
            self._fit(layer)
            self._choose_cache_steps(layer)
            self._finish(layer)
        logit: NDArray[np.float32] = self._logit.cpu().numpy()
        return logit

    def head_inputs(self) -> HeadInputs:
        """What the head reads of all rows, what is left out at zero."""
        x: NDArray[np.float32] = self.x.cpu().numpy()
        names = head_names(self.net.config.roles)
        read = np.array([not name.startswith(self.config.without) for name in names])
        held = beside(self.state.store, np.arange(self.state.store.rows))
        return HeadInputs(x, np.where(read, held, np.float32(0)))

    def _features(self) -> Tensor:
        n, without = self.state.store.rows, self.config.without
        kept = [not name.startswith(without) for name in feature_names(self.net.config.roles)]
        read = torch.tensor(kept, dtype=torch.float32, device=self._device)
        x = torch.empty((n, len(kept)), device=self._device)
        for i in range(0, n, 1 << 16):
            rows = np.arange(i, min(n, i + (1 << 16)))
            x[i : i + len(rows)] = self._feed.features(rows) * read
            self.report("computing features", i / n)
        return x

    def _forward(self, layer: int, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Layer `layer` of rows: embeddings, and the log-odds up to it."""
        near, valid, edge = self._feed.read(rows, self.net.config.neighbours)
        unique, place = torch.unique(near, return_inverse=True)  # those that several rows share are embedded once
        kv = self.net.layer(layer).keys_values(self._below(layer, unique))
        return self._attend(layer, self._feed.rows(rows), kv, place, valid, edge)

    def _attend(
        self, layer: int, here: Tensor, kv: Tensor, place: Tensor, valid: Tensor, edge: Tensor
    ) -> tuple[Tensor, Tensor]:
        gathered = nn.functional.embedding(place, kv)
        h, step = self.net.layer(layer).attend(self._below(layer, here), gathered, valid, edge)
        return h, step.float() + self._logit[here]

    def _keys_values(self, layer: int, rows: Tensor) -> Tensor:
        """Keys and values of rows, [n, 2D], without gradients."""
        below = self.net.layer(layer)
        return torch.cat([below.keys_values(self._below(layer, part)) for part in rows.split(ROWS_PER_BLOCK)])

    def _below(self, layer: int, rows: Tensor) -> Tensor:
        if layer > 0:
            return self._h[rows]
        return self.net.encode(self.x[rows], self._category[rows])

    def _fit(self, layer: int) -> None:
        config, fraud = self.config, self.targets.fraud
        train = self.targets.train
        positive, negative = train[fraud[train] > 0], train[fraud[train] == 0]
        drawn = min(len(negative), config.negatives * len(positive))
        # A short history still takes enough steps an epoch to learn from.
        batch = int(np.clip((len(positive) + drawn) // MIN_STEPS_PER_EPOCH, 128, config.batch))
        steps = max(1, (len(positive) + drawn) // batch) * config.epochs
        if config.pretraining:
            self._pretrain(layer)
        if layer > 0:  # begin with exactly the layer below's score
            with torch.no_grad():
                self.net.layer(layer).head_w2.zero_()
        heads = ProspectHeads(self.net.config.width, len(self.net.config.roles)).to(self._device)
        parameters = [*self.net.learnt_in(layer), *heads.parameters()]
        optimiser = torch.optim.AdamW(parameters, config.rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.rate, total_steps=steps + 1)
        best, best_ap, since, step = self._snapshot(), -1.0, 0, 0
        for epoch in range(self.epochs[layer] if self._refit else config.epochs):
            self.net.train()
            rows = np.concatenate([positive, self._rng.choice(negative, drawn, replace=False)])
            self._rng.shuffle(rows)
            losses = []
            for i in range(0, max(1, len(rows) - batch + 1), batch):
                chosen = np.sort(rows[i : i + batch])
                with torch.autocast(self._device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                    h, logit = self._forward(layer, chosen)
                    target, share = (torch.from_numpy(part[chosen]).to(self._device) for part in (fraud, self._share))
                    loss = nn.functional.binary_cross_entropy_with_logits(logit, target)
                    loss = loss + config.prospects * heads.loss(h, target, share)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                if step < steps:
                    schedule.step()
                step += 1
                losses.append(loss.item())
                self.report(f"training layer {layer + 1} of {self.net.config.layers}", step / steps)
            if self._refit:
                continue
            ap = self._validate(layer)
            self.history.append({"layer": layer + 1, "epoch": epoch + 1, "loss": float(np.mean(losses)), "ap": ap})
            if ap > best_ap:
                best, best_ap, since = self._snapshot(), ap, 0
            else:
                since += 1
                if since >= config.patience:
                    break
        if not self._refit:
            self.net.load_state_dict(best)
            self.epochs.append(epoch + 1 - since)

    def _pretrain(self, layer: int) -> None:
        """Teach a layer what accounts do next, on all of history before the validation."""
        config, known = self.config, next_payments(self.state.store, int(self.targets.validation[0]))
        if not len(known.rows):
            return
        steps = min(config.pretraining, -(-MAX_PRETRAINING_PASSES * len(known.rows) // config.batch))
        self.net.train()
        heads = NextPaymentHeads(self.net.config.width).to(self._device)
        parameters = [*self.net.learnt_in(layer), *heads.parameters()]
        optimiser = torch.optim.AdamW(parameters, config.rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.rate, total_steps=steps + 1)
        for step in range(steps):
            at = np.sort(self._rng.integers(0, len(known.rows), config.batch))
            with torch.autocast(self._device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                h, _ = self._forward(layer, known.rows[at])
                merchant, numbers = (
                    torch.from_numpy(part[at]).to(self._device) for part in (known.merchant, known.numbers)
                )
                loss = heads.loss(h, merchant, numbers)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            self.report(f"pre-training layer {layer + 1} of {self.net.config.layers}", step / steps)

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.net.state_dict().items()}

    @torch.no_grad()
    def _choose_cache_steps(self, layer: int, most: int = 100_000) -> None:
        """Set the size of a cache's steps: 127 of them cover all but 1 in 10,000 keys and values in training."""
        if self.net.config.cache == "float32":
            return
        rows = self.targets.train
        rows = np.sort(self._rng.choice(rows, min(most, len(rows)), replace=False))
        seen = self.net.layer(layer).keys_values(self._below(layer, self._feed.rows(rows))).abs().cpu().numpy()
        steps = np.maximum(np.quantile(seen, 0.9999, axis=0), 1e-6) / MAX_INT8_STEP
        self.net.layer(layer).kv_scale.copy_(torch.from_numpy(steps.astype(np.float32)))

    @torch.no_grad()
    def _validate(self, layer: int) -> float:
        self.net.eval()
        rows, unique, *read = self._validation_inputs
        fraud = self.targets.fraud[rows.cpu().numpy()] > 0
        if not fraud.any():
            return 0.0
        kv = self._keys_values(layer, unique)
        blocks = zip(*(part.split(ROWS_PER_BLOCK) for part in (rows, *read)), strict=True)
        logit = torch.cat([self._attend(layer, here, kv, *seen)[1] for here, *seen in blocks])
        return float(average_precision_score(fraud, logit.cpu().numpy()))

    @cached_property
    def _validation_inputs(self) -> tuple[Tensor, ...]:
        """Validation rows, the distinct rows that they read, and how: the same for every epoch and layer."""
        rows = self.targets.validation
        if len(rows) > MAX_VALIDATION_ROWS:
            rows = np.sort(np.random.default_rng(0).choice(rows, MAX_VALIDATION_ROWS, replace=False))
        near, valid, edge = self._feed.read(rows, self.net.config.neighbours)
        unique, place = torch.unique(near, return_inverse=True)
        return self._feed.rows(rows), unique, place, valid, edge

    @torch.no_grad()
    def _finish(self, layer: int) -> None:
        """Embed and score every row with the finished layer, for the next to build on."""
        self.net.eval()
        n = self.state.store.rows
        # As the service will read them from its cache.
        kv = self.net.layer(layer).rounded(self._keys_values(layer, self._feed.rows(np.arange(n))))
        h = torch.empty((n, self.net.config.width), device=self._device)
        logit = torch.empty(n, device=self._device)
        for i in range(0, n, ROWS_PER_BLOCK):
            rows = np.arange(i, min(n, i + ROWS_PER_BLOCK))
            read = self._feed.read(rows, self.net.config.neighbours)
            h[i : i + len(rows)], logit[i : i + len(rows)] = self._attend(layer, self._feed.rows(rows), kv, *read)
            self.report(f"embedding all payments, layer {layer + 1}", i / n)
        self._h, self._logit = h, logit


def _facts(
    state: GraphState,
    targets: Targets,
    config: TrainConfig,
    history: list[dict[str, float]],
    head: dict[str, Any],
) -> dict[str, Any]:
    time = state.store.column("time")

    def window(rows: NDArray[np.int64]) -> dict[str, Any] | None:
        if not len(rows):
            return None
        first, last = (datetime.fromtimestamp(time[r] / 1e6, UTC).isoformat() for r in (rows[0], rows[-1]))
        return {"from": first, "to": last, "payments": len(rows), "frauds": int(targets.fraud[rows].sum())}

    return {
        "seed": config.seed,
        "training": {
            "config": asdict(config),
            "labels": targets.regime,
            "label_delay_days": targets.label_delay_us / DAY_US,
            "cautions": list(targets.cautions),
            "events": state.applied,
            "train": window(targets.train),
            "validation": window(targets.validation),
            "test": window(targets.test),
            "epochs": history,
            "head": head,
        },
    }
