"""The command that scores a history again."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer
from rich.markup import escape
from rich.table import Table

from data.currency import format_amount
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
from serve.terminal import Refusals, one_of, out, plain_errors, progress, warn

if TYPE_CHECKING:  # read when the command runs, not when its help is shown
    from serve.batch.asked import Explained
    from serve.batch.readable import Skipped
    from serve.batch.rescore import Rescored
    from serve.batch.summary import Summary

MOST_SHOWN: Final = 8  # rows of a table; all are in summary.json


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
    against: Annotated[
        Path | None,
        typer.Option(help="Scores of an earlier run, to say what moved: decisions, money, drift.", show_default=False),
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run that is done: score only what came after it. The input must begin with what that "
            "run had read.",
            show_default=False,
        ),
    ] = None,
    reasons: Annotated[
        str,
        typer.Option(help="Write reasons: none, risky (payments at or above the challenge threshold) or all."),
    ] = "none",
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Leave out files that cannot be read, and list them, instead of stopping."),
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
    from serve.batch.summary import summarise

    given = HistoryFrom(transactions, labels, journal, labelled=False)
    explained = cast("Explained", one_of("--reasons", reasons, ("none", "risky", "all")))
    refusals, skipped = Refusals(), _SkippedFiles()
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
            on_skip=skipped if keep_going else None,
        )
        done = run(
            model,
            source,
            out_folder,
            device=device,
            actors=actors,
            restart=restart,
            reasons=explained,
            since=since,
            report=report,
        )
        report("summing up", 0.0)
        summary = summarise(out_folder, against)
    refusals.summary()
    if as_json:
        figures = {"payments": done.payments, "scored": done.scored, "seconds": done.seconds, "actors": done.actors}
        more = {"stages": done.stages, "skipped": [asdict(one) for one in skipped], "summary": asdict(summary)}
        print(json.dumps({"folder": str(done.folder), **figures, **more}))
        return
    _say(done)
    _show(summary)
    if skipped:
        warn(f"{len(skipped):,} file{'s' if len(skipped) > 1 else ''} left out, as listed above: the scores lack them")


class _SkippedFiles(list["Skipped"]):
    """Files that are left out, each said as it is found."""

    def __call__(self, skipped: "Skipped") -> None:
        self.append(skipped)
        warn(f"left out: {skipped.reason}")


def _say(done: "Rescored") -> None:
    where = escape(str(done.folder))
    if not done.scored:
        out.print(f"all {done.payments:,} payments were scored before: {where}")
        return
    rate = done.scored / done.seconds
    went_on = "" if done.scored == done.payments else f" ({done.payments - done.scored:,} were done before)"
    out.print(
        f"{done.scored:,} payments{went_on} scored by {done.actors} in {done.seconds:.1f} s, Ray's start included "
        f"({rate:,.0f}/s): {where}"
    )


def _show(summary: "Summary") -> None:
    """The decisions; beside an earlier run, those that differ, and the parts whose scores moved most."""
    out.print(", ".join(f"{n:,} {decision}" for decision, n in summary.decisions.items()))
    if not summary.drift:
        return
    whole, *parts = summary.drift
    out.print(
        f"{summary.compared:,} payments were scored by the earlier run, too: mean probability {whole.mean_old:.4f}, "
        f"now {whole.mean_new:.4f}; population stability index {whole.psi:.3f}"
    )
    table = Table("was", "is", "payments", "money", title="decisions that differ")
    for change in summary.changes[:MOST_SHOWN]:
        table.add_row(change.old, change.new, f"{change.payments:,}", format_amount(change.amount, change.currency))
    out.print(table if summary.changes else "no decision differs")
    moved = sorted((part for part in parts if part.psi > 0), key=lambda part: -part.psi)[:MOST_SHOWN]
    table = Table("part", "payments", "stability index", "mean then", "now", title="where scores moved most")
    for part in moved:
        name = f"{part.segment} {escape(part.value)}"
        table.add_row(name, f"{part.payments:,}", f"{part.psi:.3f}", f"{part.mean_old:.4f}", f"{part.mean_new:.4f}")
    if moved:
        out.print(table)
