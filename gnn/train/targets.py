"""What may teach, what may choose and what may judge a model, each with what was known at the time."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gnn.errors import ModelError
from graph.dag.protocol import DAY_US, NEVER_US
from graph.state import GraphState


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: For each layer, at most.
        batch: Payments a step, fewer where there are few.
        negatives: Payments not known as fraud for each fraud, redrawn every epoch.
        rate: Peak learning rate of the one-cycle schedule (Smith and Topin 2019).
        weight_decay: Of AdamW.
        pretraining: Steps in which each layer first learns what accounts do next, at most; 0 for none.
        prospects: Weight of the auxiliary task that teaches embeddings what becomes of the entities of a payment
            (`gnn.train.prospects`); 0 for none.
        patience: Epochs without a better validation AP before a layer stops.
        validation: Share of the settled time that chooses the epoch and calibrates, the latest before the test.
        test: Share of all time held out after it, 0 to leave testing to later data.
        label_delay_days: Age at which a payment without a label counts as legitimate; by default the 90 % quantile of
            the delays seen.
        refit: Whether the model is learnt anew with the payments that chose and calibrated it among those that teach,
            for as many epochs and trees as they chose: fraud changes, and the newest labels say most about it.
        without: Features that it must not read, each by its name or the beginning of it, such as `payment.hour` where
            the times of a history are made up.
        seed: Of weights and draws.
        device: Where the network learns, `cpu` or `cuda`; on the latter the graph is read from the device's store.
        precision: Of the steps, `float32` or `bf16` (matrices and gradients; weights stay float32). Validation and what
            the next layer is built on are always float32.
    """

    epochs: int = 8
    batch: int = 256
    negatives: int = 10
    rate: float = 3e-3
    weight_decay: float = 1e-2
    pretraining: int = 1_000
    prospects: float = 0.5
    patience: int = 3
    validation: float = 0.12
    test: float = 0.15
    label_delay_days: float | None = None
    refit: bool = True
    without: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"


@dataclass(frozen=True)
class Targets:
    """Which rows teach, choose and test, and what was known of them at the time.

    Attributes:
        train: Rows, int64.
        validation: Rows, int64, later than those of `train`.
        test: Rows, int64, later than every label the model has seen.
        fraud: float32 for every row of the graph, as known when its part was used.
        label_delay_us: Age at which labels have nearly all come.
        settled: Whether no label means legitimate by then.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    fraud: NDArray[np.float32]
    label_delay_us: int
    settled: bool = True

    @property
    def with_validation_in_training(self) -> "Targets":
        """The same, with the payments that chose among those that teach."""
        return replace(self, train=np.sort(np.concatenate([self.train, self.validation])))

    @property
    def settle_days(self) -> float | None:
        """As `ModelConfig` has it."""
        return self.label_delay_us / DAY_US if self.settled else None

    @property
    def settle_us(self) -> int:
        """Age, in microseconds, at which a payment without a label counts as legitimate, as the model will read it."""
        return NEVER_US if self.settle_days is None else round(self.settle_days * DAY_US)


def make_targets(state: GraphState, config: TrainConfig) -> Targets:
    """Split the rows by time, with each part's labels as they were known when it was used.

    The test begins at a moment; the model may know only labels reported before it. Payments too young at that moment
    for a missing label to mean anything are left out, and so are the last ones of the test. Where some
    labels say "legitimate", a payment without a label is unknown and teaches nothing.
    """
    store, n = state.store, state.store.rows
    labels, time = store.label_events(), store.column("time")
    if n == 0 or not labels.fraud.any():
        raise ModelError("training needs at least one payment that is labelled as fraud")
    frauds = labels.fraud == 1
    if config.label_delay_days is not None:
        delay = int(config.label_delay_days * DAY_US)
    else:
        # The first payment after a label was journalled tells when that was.
        at = np.minimum(labels.seen_from[frauds], n - 1)
        delay = int(np.quantile(time[at] - time[labels.row[frauds]], 0.9))
    begin, end = int(time[0]), store.clock
    test_start = int(begin + (end - begin) * (1 - config.test)) if config.test else end + 1
    settled = min(test_start - delay, int(time[-1]))  # labels may go on long after the last payment
    start = int(begin + (settled - begin) * (1 - config.validation))
    test_row = int(np.searchsorted(time, test_start))
    fraud, known = _believed(state, test_row)
    fraud_end, known_end = _believed(state, n)
    fraud[test_row:], known[test_row:] = fraud_end[test_row:], known_end[test_row:]
    explicit = bool((~frauds).sum() > frauds.sum())
    usable = known if explicit else np.ones(n, bool)
    rows = np.arange(n)
    targets = Targets(
        train=rows[usable & (time < start)],
        validation=rows[usable & (time >= start) & (time <= settled)],
        test=rows[usable & (time >= test_start) & (time <= end - delay)],
        fraud=fraud,
        label_delay_us=delay,
        settled=not explicit,
    )
    for part in ("train", "validation"):
        chosen = fraud[getattr(targets, part)]
        if not (0 < chosen.sum() < len(chosen)):
            raise ModelError(
                f"the {part} window holds {int(chosen.sum())} known frauds among {len(chosen):,} settled payments; "
                f"give a longer history (labels take {delay / DAY_US:.1f} days to settle)"
            )
    return targets


def _believed(state: GraphState, reader: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What was known of every row when row `reader` arrived; at the end, if it is yet to come."""
    belief = state.store.believed(np.arange(state.store.rows), reader)
    return (belief == 1).astype(np.float32), belief >= 0
