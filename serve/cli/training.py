"""The command that trains a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from serve.cli.options import (
    Cache,
    Device,
    From,
    HistoryFrom,
    Journal,
    Labels,
    Precision,
    Strict,
    Transactions,
    Until,
    example,
    folder_option,
    reads,
)
from serve.terminal import Refusals, caution, one_of, out, plain_errors, progress, when

if TYPE_CHECKING:
    from gnn.model.artifact import Artifact


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("train --transactions t.parquet --labels l.parquet --out var/model --until 2018-08-01"))(
        reads(train)
    )


def train(
    out_folder: Annotated[Path, folder_option("Folder for the model.", "--out")],
    transactions: Transactions = None,
    labels: Labels = None,
    journal: Journal = None,
    start: From = None,
    until: Until = None,
    test: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the payments, of the newest with mature labels, for a test."),
    ] = 0.15,
    validation: Annotated[
        float, typer.Option(min=0.01, max=0.5, help="Share of the other payments that is used for validation.")
    ] = 0.12,
    settle_days: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Days after which a payment without a label counts as legitimate.",
            show_default="learnt from the labels",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Maximum number of epochs of each layer.")] = 8,
    pretraining: Annotated[
        int,
        typer.Option(
            min=0, help="Pre-training steps of each layer, on predicting the next payments of accounts; 0 for none."
        ),
    ] = 1_000,
    neighbours: Annotated[
        int, typer.Option(min=1, max=64, help="Past payments read for each account, merchant, device, ...")
    ] = 16,
    refit: Annotated[
        bool, typer.Option(help="Train a second time, with the validation payments added; takes twice as long.")
    ] = True,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Features to leave out, by the start of their names: payment.hour if times of day are artificial."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    cache: Cache = "float32",
    device: Device = "auto",
    precision: Precision = "float32",
    strict: Strict = False,
) -> None:
    """Train a model on a history.

    Each payment is learnt from what was known when it was made.
    """
    from gnn.model.cache import CACHES
    from gnn.score.devices import choose_device, choose_precision
    from gnn.train.targets import TrainConfig
    from gnn.train.trainer import train as run

    source, refusals = HistoryFrom(transactions, labels, journal), Refusals()
    with plain_errors(), progress() as report:
        shape = {"neighbours": neighbours, "cache": one_of("--cache", cache, CACHES)}
        device = choose_device(device)
        precision = choose_precision(precision, device)
        report("reading", 0.0)
        history = source.read(when(start, "--from"), when(until, "--until"), strict, refusals)
        artifact = run(
            history,
            TrainConfig(
                epochs=epochs,
                pretraining=pretraining,
                test=test,
                validation=validation,
                settle_days=settle_days,
                refit=refit,
                without=tuple(without or ()),
                seed=seed,
                device=device,
                precision=precision,
            ),
            shape,
            report,
        )
        artifact.save(out_folder)
    refusals.summary()
    _print_training(artifact)
    out.print(f"model {artifact.version} in {escape(str(out_folder))}")


def _print_training(artifact: "Artifact") -> None:
    """Which payments a model was trained, validated and tested on, and its metrics on the test."""
    training = artifact.facts["training"]
    for part in ("train", "validation", "test"):
        if window := training[part]:
            out.print(
                f"{part:10} {window['payments']:>10,} payments, {window['frauds']:>6,} known frauds, "
                f"{window['from'][:10]} to {window['to'][:10]}"
            )
    caution(training["cautions"])
