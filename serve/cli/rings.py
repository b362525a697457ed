"""The command that lists, writes and draws the rings of a history."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from serve.cli.options import HistoryFrom, Journal, Labels, Model, Strict, Transactions, example, folder_option, reads
from serve.terminal import Refusals, fail, out, plain_errors, progress


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("rings --journal var/journal.sqlite --model var/model --out var/rings"))(reads(rings))


def rings(
    model: Model,
    journal: Journal = None,
    transactions: Transactions = None,
    labels: Labels = None,
    limit: Annotated[int, typer.Option(min=1, help="Rings to show, of the highest confidence first.")] = 10,
    out_folder: Annotated[
        Path | None,
        folder_option("Folder for rings.parquet and members.parquet: every ring that ever stood.", "--out"),
    ] = None,
    ties: Annotated[
        bool,
        typer.Option(
            "--ties", help="List accounts that rare shared devices and cards tie, risky or not, instead of risk rings."
        ),
    ] = False,
    draw: Annotated[Path | None, folder_option("Folder for a picture of each ring shown: a page to play with.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    strict: Strict = False,
) -> None:
    """List the fraud rings of a history.

    A risk ring is a community of accounts whose risky payments meet: at a device, a card, an address, a merchant or a
    payee. Rings are found as they form, from what was known at each moment, and stay on record when they end.
    """
    if as_json and as_csv:
        fail("give --json or --csv, not both")
    if out_folder is not None and ties:
        fail("--out writes risk rings: give it without --ties")
    source = HistoryFrom(transactions, labels, journal, labelled=False)
    form = "json" if as_json else "csv" if as_csv else ""
    if ties:
        _list_ties(source, model, limit, draw, form, strict)
    else:
        _list_risk_rings(source, model, limit, out_folder, draw, form, strict)


def _list_risk_rings(
    source: HistoryFrom, model: Path, limit: int, folder: Path | None, draw: Path | None, form: str, strict: bool
) -> None:
    from gnn.model.artifact import load
    from serve.batch.ring_pages import draw_rings
    from serve.batch.risk_rings import (
        find_risk_rings,
        ranked,
        risk_rings_csv,
        risk_rings_json,
        risk_rings_table,
        write_rings,
    )

    with plain_errors(), progress() as report:
        refusals, artifact = Refusals(), load(model)
        history = source.read(strict=strict, on_refusal=refusals)
        replayed = find_risk_rings(artifact, history, report)
        records = replayed.rings.records()
        found = ranked(records, limit)
        written = [] if folder is None else list(write_rings(records, folder))
        written += [] if draw is None else draw_rings(replayed, found, draw)
    if form:
        print(risk_rings_json(found) if form == "json" else risk_rings_csv(found), end="")
    else:
        out.print(risk_rings_table(found, len(records)))
        for path in written:
            out.print(escape(str(path)))
    refusals.summary()


def _list_ties(source: HistoryFrom, model: Path, limit: int, folder: Path | None, form: str, strict: bool) -> None:
    from gnn.model.artifact import load
    from serve.batch.rings import draw_rings, find_rings, rings_csv, rings_json, rings_table

    with plain_errors(), progress() as report:
        refusals, artifact = Refusals(), load(model)
        history = source.read(strict=strict, on_refusal=refusals)
        state, found = find_rings(artifact, history, limit, report)
        pictures = [] if folder is None else draw_rings(state, found, folder)
        text = rings_json(state, found) if form == "json" else rings_csv(state, found) if form == "csv" else None
    if text is not None:
        print(text, end="")
    else:
        out.print(rings_table(found))
        for path in pictures:
            out.print(escape(str(path)))
    refusals.summary()
