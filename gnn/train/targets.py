"""What may teach, what may choose and what may judge a model, each with what was known at the time."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.errors import ModelError
from gnn.train.regimes import FRAUDS_ONLY, LabelRegime, recognise
from graph.dag.protocol import DAY_US, NEVER_US
from graph.state import GraphState

ENOUGH: Final = 10  # frauds among the payments that choose, where there are forty in all
FEW_FRAUDS: Final = 30  # below this many, a figure is called rough


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
        validation: Share of the payments that teach which choose the epoch and calibrate instead, the latest before
            the test; more where these hold hardly any fraud.
        test: Share of the payments whose labels have come, held out at the end; 0 to leave testing to later data.
        label_delay_days: Age at which the labels of a payment have come; by default the 90 % quantile of the delays
            seen, those of each class apart (`gnn.train.regimes`).
        settle_days: Age at which a payment without a label counts as legitimate, whatever the labels look like; by
            default they decide.
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
    settle_days: float | None = None
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
        regime: What labels there are, in words (`gnn.train.regimes`).
        cautions: What whoever uses the model should know of these windows, a sentence each.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    fraud: NDArray[np.float32]
    label_delay_us: int
    settled: bool = True
    regime: str = FRAUDS_ONLY
    cautions: tuple[str, ...] = ()

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


def make_targets(state: GraphState, config: TrainConfig, test_start_us: int | None = None) -> Targets:
    """Split the rows by time, with each part's labels as they were known when it was used.

    The test begins at a moment; the model may know only labels reported before it. Payments too young at that moment
    for a missing label to mean anything are left out, and so are the last ones of the test. Where many payments never
    get a label, those without one are unknown and teach nothing.

    Args:
        state: The graph.
        config: How to train.
        test_start_us: Where the test begins, in place of `config.test`.

    Raises:
        ModelError: Too few labels to learn and to choose from.
    """
    store, n = state.store, state.store.rows
    if n == 0 or not store.label_events().fraud.any():
        raise ModelError("training needs at least one payment that is labelled as fraud")
    time, end = store.column("time"), store.clock
    fraud_end, known_end = _believed(state, n)
    regime = _regime(state, n, end, known_end, config)
    judged = np.flatnonzero(_usable(regime, known_end) & (time <= end - regime.mature_us))
    held_out = round(config.test * len(judged))
    if test_start_us is None:
        test_start_us = int(time[judged[-held_out]]) if held_out else end + 1
    test_row = int(np.searchsorted(time, test_start_us))
    fraud, known = _believed(state, test_row)
    if test_row < n:  # what labels there are, too, is what was known of them by then
        regime = _regime(state, test_row, test_start_us, known, config)
    fraud[test_row:] = fraud_end[test_row:]
    settled = min(test_start_us - regime.mature_us, int(time[-1]))  # labels may go on long after the last payment
    teach = np.flatnonzero(_usable(regime, known) & (time <= settled) & (np.arange(n) < test_row))
    first = _first_that_chooses(fraud[teach], config.validation, regime)
    start = time[teach[first]]
    targets = Targets(
        train=teach[time[teach] < start],
        validation=teach[time[teach] >= start],
        test=judged[judged >= test_row],
        fraud=fraud,
        label_delay_us=regime.mature_us,
        settled=regime.missing_is_honest,
        regime=regime.name,
    )
    for part in (targets.train, targets.validation):
        if not 0 < fraud[part].sum() < len(part):
            raise _too_little(int(fraud[teach].sum()), len(teach), regime)
    return replace(targets, cautions=_cautions(targets, held_out > 0))


def choosing_from(fraud: NDArray[np.float32], share: float) -> int:
    """Where the payments begin that choose and calibrate, among those that teach, in order.

    They are the last `share` of them, and go back as far as it takes to hold `ENOUGH` frauds, or a quarter of the
    frauds where these are few: without a fraud nothing can be chosen. 0 where there are not two frauds to part.

    Args:
        fraud: Of the payments that teach, in order of time, [n].
        share: Of them.
    """
    at = np.flatnonzero(fraud > 0)
    if len(at) < 2:
        return 0
    enough = min(ENOUGH, max(1, len(at) // 4))
    return int(min(len(fraud) - round(share * len(fraud)), at[-enough]))


def _regime(state: GraphState, reader: int, now: int, known: NDArray[np.bool_], config: TrainConfig) -> LabelRegime:
    """What labels there were by the moment `now`, when row `reader` arrived."""
    labels, time = state.store.label_events(), state.store.column("time")
    seen = labels.seen_from <= reader
    fraud = labels.fraud[seen] == 1
    if not fraud.any():
        raise _too_little(0, reader, None)
    # The first payment after a label was journalled tells when that was.
    at = np.minimum(labels.seen_from[seen], state.store.rows - 1)
    delay = time[at] - time[labels.row[seen]]
    if config.label_delay_days is not None:
        delay = np.full(len(delay), int(config.label_delay_days * DAY_US))
    if config.settle_days is not None:
        return LabelRegime(FRAUDS_ONLY, int(config.settle_days * DAY_US))
    return recognise(delay, fraud, now - time[:reader], known[:reader])


def _usable(regime: LabelRegime, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.ones(len(known), bool) if regime.missing_is_honest else known


def _first_that_chooses(fraud: NDArray[np.float32], share: float, regime: LabelRegime) -> int:
    frauds = int(fraud.sum())
    if frauds < 2 or frauds == len(fraud):
        raise _too_little(frauds, len(fraud), regime)
    return choosing_from(fraud, share)


def _too_little(frauds: int, payments: int, regime: LabelRegime | None) -> ModelError:
    delay = f" (labels: {regime.name}, {regime.mature_us / DAY_US:.1f} days until they have come)" if regime else ""
    return ModelError(
        f"{frauds:,} known frauds among the {payments:,} payments that may teach{delay}: both classes are needed, in "
        "the training window and, later, in the validation window. Give a longer history, hold less of it out "
        "(--test 0), or count a payment without a label as legitimate earlier (--settle-days)"
    )


def _cautions(targets: Targets, held_out: bool) -> tuple[str, ...]:
    """What is short in these windows."""
    found = []
    chose, judge = (int(targets.fraud[part].sum()) for part in (targets.validation, targets.test))
    if chose < FEW_FRAUDS:
        found.append(
            f"only {counted(chose)} in the validation window: the probabilities are rough "
            "(a longer history or a larger --validation helps)"
        )
    if held_out and judge < FEW_FRAUDS:
        found.append(f"only {counted(judge)} in the test window: what it says of the model is rough")
    return tuple(found)


def counted(frauds: int) -> str:
    """`1 known fraud`, `12 known frauds`."""
    return f"{frauds:,} known fraud{'' if frauds == 1 else 's'}"


def _believed(state: GraphState, reader: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What was known of every row when row `reader` arrived; at the end, if it is yet to come."""
    belief = state.store.believed(np.arange(state.store.rows), reader)
    return (belief == 1).astype(np.float32), belief >= 0
