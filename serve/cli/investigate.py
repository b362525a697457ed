"""The command that runs the investigator."""

from pathlib import Path
from typing import Annotated

import typer

from serve.cli.options import Model, example
from serve.terminal import fail, plain_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("investigate --model var/model --journal var/journal.sqlite --insecure"))(investigate)


def investigate(
    model: Model,
    journal: Annotated[
        str, typer.Option(envvar="RINGWATCH_JOURNAL", help="Journal of a service: a file, or kafka://host:port/topic.")
    ] = "var/journal.sqlite",
    cases: Annotated[
        str | None,
        typer.Option(
            envvar="RINGWATCH_CASES",
            help="Where cases are kept: a SQLite file, or an address such as postgresql+psycopg://user@host/name; by "
            "default a file beside the journal.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(envvar="RINGWATCH_CONSOLE_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="RINGWATCH_CONSOLE_PORT", min=1024, max=65535, help="Port to listen on.")
    ] = 8400,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", envvar="RINGWATCH_INSECURE", help="Require no key; otherwise see ringwatch keys."),
    ] = False,
) -> None:
    """Find fraud rings in a journal, and serve them to investigators until stopped.

    Follows the journal of a running service, or of one that is stopped; rings it finds are journalled, and the answers
    of the service carry them from then on.
    """
    from serve.console.service import run_investigator
    from serve.console.service_settings import InvestigatorSettings

    with plain_errors():
        if not journal.startswith("kafka:") and not Path(journal).exists():
            fail(f"no journal at {journal}")
        run_investigator(
            InvestigatorSettings.from_environment(
                model=model, journal=journal, cases=cases, host=host, port=port, insecure=insecure
            )
        )
