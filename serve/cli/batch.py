"""The command that scores a history again."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from serve.cli.options import (
    Device,
    HistoryFrom,
    Journal,
    Labels,
    Model,
    Strict,
    Transactions,
    example,
    folder_option,
    reads,
)
from serve.terminal import Refusals, out, plain_errors, progress


def register(app: typer.Typer) -> None:
    """Add the command."""
    shown = example("rescore --model var/model --transactions t.parquet --labels l.parquet --out var/scores")
    app.command(epilog=shown)(rescore)


@reads
def rescore(
    model: Model,
    out_folder: Annotated[Path, folder_option("Folder for the scores, a folder in it for each day.", "--out")],
    transactions: Transactions = None,
    labels: Labels = None,
    journal: Journal = None,
    device: Device = "auto",
    actors: Annotated[
        int | None,
        typer.Option(min=0, help="Ray actors; by default one for each GPU or machine. 0: this process, without Ray."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew where --out holds a run that stopped, or one that is done.")
    ] = False,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Score a history again, of any size, on a Ray cluster.

    The scores are those that the service gave, or would give with another model. A run that stopped goes on when the
    same command is given again.
    """
    from gnn.score.devices import choose_device
    from serve.batch.manifest import read_manifest
    from serve.batch.rescore import rescore as run
    from serve.batch.source import open_source

    given = HistoryFrom(transactions, labels, journal, labelled=False)
    refusals = Refusals()
    with plain_errors(), progress() as report:
        if device == "cuda":
            choose_device(device)
        earlier = None if restart else read_manifest(out_folder)
        source = open_source(
            given.source,
            labels,
            strict=strict,
            on_refusal=refusals,
            earlier=None if earlier is None else earlier.asked["input"],
        )
        done = run(model, source, out_folder, device=device, actors=actors, restart=restart, report=report)
    refusals.summary()
    if as_json:
        figures = {"payments": done.payments, "scored": done.scored, "seconds": done.seconds, "actors": done.actors}
        print(json.dumps({"folder": str(done.folder), **figures, "stages": done.stages}))
        return
    if not done.scored:
        out.print(f"all {done.payments:,} payments were scored before: {escape(str(out_folder))}")
        return
    rate = done.scored / done.seconds
    went_on = "" if done.scored == done.payments else f" ({done.payments - done.scored:,} were done before)"
    out.print(
        f"{done.scored:,} payments{went_on} scored by {done.actors} in {done.seconds:.1f} s, Ray's start included "
        f"({rate:,.0f}/s): {escape(str(out_folder))}"
    )
