"""The commands about journals."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from serve.cli.options import example
from serve.terminal import err, out, plain_errors, progress

DAMAGED = 1  # exit status


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(
        help="Check a service's journal.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
    )
    commands.callback()(_group)
    commands.command(epilog=example("journal verify --journal var/journal.sqlite"))(verify)
    app.add_typer(commands, name="journal")


def _group() -> None:
    """Check a service's journal."""


def verify(
    journal: Annotated[
        str, typer.Option(help="Journal of a service: a file, or kafka://host:port/topic; it may be in use.")
    ] = "var/journal.sqlite",
    copy: Annotated[
        Path | None, typer.Option(help="Local copy of a topic; by default var/TOPIC.sqlite.", show_default=False)
    ] = None,
    options: Annotated[
        Path | None,
        typer.Option(
            envvar="RINGWATCH_KAFKA_OPTIONS", help="File of librdkafka's settings, one name=value on each line."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Read a whole journal and check it: pages, checksums, offsets, ids and answers. Status 1 if it is damaged.

    Of a topic, its local copy is checked, and that the topic holds the same.
    """
    from data.journal.kafka_verify import verify_topic
    from data.journal.verify import verify as run
    from serve.settings import Settings

    with plain_errors(), progress() as report:
        if journal.startswith("kafka:"):
            settings = Settings.from_environment(model="", journal=journal, kafka_options=options, insecure=True)
            found = verify_topic(journal, copy or settings.journal, settings.kafka_settings(), report)
        else:
            found = run(journal, report)
    if as_json:
        print(json.dumps({"ok": found.ok, **asdict(found)}))
    else:
        for fault in found.faults:
            err.print(fault, markup=False, highlight=False, soft_wrap=True)
        for message in found.passed_over:
            err.print(f"passed over: {message}", markup=False, highlight=False, soft_wrap=True)
        if found.more:
            err.print(f"and {found.more:,} more", markup=False, highlight=False)
        held = f"{found.events:,} events, {found.transactions:,} of them payments, {found.answers:,} answers"
        old = f"; {found.unchecked:,} events are older than checksums" if found.unchecked else ""
        verdict = "whole" if found.ok else "DAMAGED: stop the service and restore a backup"
        out.print(f"{journal}: {held}{old}: {verdict}", markup=False, highlight=False, soft_wrap=True)
    if not found.ok:
        sys.exit(DAMAGED)
