"""The commands about mandates."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from serve.cli.options import example
from serve.terminal import fail, out, plain_errors, progress

URL = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option(help="Address of the service; its key is read from RINGWATCH_API_KEY.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Which = Annotated[str, typer.Argument(help="Id of the mandate.")]
JournalFile = Annotated[
    Path | None,
    typer.Option(help="Journal of a service, which may run, instead of its address.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(
        help="Grant, look at and revoke what agents may pay.",
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
    )
    commands.callback()(_group)
    commands.command("list", epilog=example("mandates list --journal var/journal.sqlite"))(list_)
    commands.command(epilog=example("mandates show M-1"))(show)
    commands.command(epilog=example("mandates add mandate.json"))(add)
    commands.command(epilog=example("mandates revoke M-1"))(revoke)
    app.add_typer(commands, name="mandates")


def _group() -> None:
    """Grant, look at and revoke what agents may pay."""


def list_(
    journal: Annotated[Path, typer.Option(help="Journal of a service; it may run.")] = Path("var/journal.sqlite"),
    as_json: Json = False,
) -> None:
    """List the mandates in a journal that have not ended long ago."""
    found = _views(journal)
    if as_json:
        print(json.dumps(found))
        return
    table = Table("mandate", "version", "state", "account", "agent", "currency", "spent", "reserved", "remaining")
    for view in found:
        names = ("mandate_id", "version", "state", "account_id", "agent_id", "currency")
        cells = [escape("" if view[name] is None else str(view[name])) for name in names]
        money = ("" if view[name] is None else f"{view[name]:,}" for name in ("spent", "reserved", "remaining"))
        table.add_row(*cells, *money)
    out.print(table)


def show(which: Which, url: Url = URL, journal: JournalFile = None, as_json: Json = False) -> None:
    """Show a mandate: terms, state, and what is spent, reserved and left, in minor units."""
    from serve.http.client import RingwatchClient

    if journal is not None:
        views = [view for view in _views(journal) if view["mandate_id"] == which]
        if not views:
            fail(f"{journal} holds no mandate {which!r}, or it ended long ago")
        view = views[0]
    else:
        with plain_errors(), RingwatchClient.from_environment(url) as client:
            view = client.mandate(which)
    if as_json:
        print(json.dumps(view))
        return
    for name, value in view.items():
        if value is not None and name != "payments":
            shown = json.dumps(value) if isinstance(value, dict | list) else str(value)
            out.print(f"{name:12} {shown}", markup=False, highlight=False, soft_wrap=True)
    for held in view["payments"]:
        said = "approved" if held["approved"] else "reserved"
        out.print(f"  {held['transaction_id']}  {held['amount']:,}  {said}", markup=False, highlight=False)


def add(
    file: Annotated[Path, typer.Argument(help="The mandate as JSON, as POST /v1/mandates takes it.")], url: Url = URL
) -> None:
    """Grant a mandate, or the next version of one."""
    from serve.http.client import RingwatchClient

    try:
        mandate = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        fail(f"{file}: cannot be read as JSON: {error}")
    with plain_errors(), RingwatchClient.from_environment(url) as client:
        _granted(client.grant(mandate))


def revoke(which: Which, url: Url = URL) -> None:
    """Revoke a mandate, for good: what its agent pays from now on is declined."""
    from serve.http.client import RingwatchClient

    with plain_errors(), RingwatchClient.from_environment(url) as client:
        _granted(client.revoke(which))


def _granted(done: dict[str, Any]) -> None:
    before = ", as it was before" if done["repeated"] else ""
    said = f"mandate {done['mandate_id']!r} version {done['version']}: {done['state']}{before}"
    out.print(said, markup=False, highlight=False, soft_wrap=True)


def _views(journal: Path) -> list[dict[str, Any]]:
    from data.journal.sqlite import SqliteJournal
    from serve.decide.mandates import MandateBook

    book = MandateBook()
    with plain_errors(), progress() as report, SqliteJournal(journal, readonly=True) as held:
        end = max(1, held.end)
        for events in held.replay():
            book.apply(events)
            report("reading the journal", (events.offset + len(events.batch)) / end)
    views = (mandate.view(name, book.clock) for name, mandate in book.listed())
    return [{**view, "as_of": datetime.fromtimestamp(view["as_of"] / 1e6, UTC).isoformat()} for view in views]
