"""The commands about keys."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from serve.cli.options import example
from serve.keys import SCOPES, add_key, read_keys, revoke_key
from serve.terminal import err, out, plain_errors

KeysFile = Annotated[Path, typer.Option("--file", envvar="RINGWATCH_KEYS_FILE", help="File of named keys.")]
WHERE = Path("var/keys.json")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(
        help="Make, list and revoke named keys.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
    )
    commands.callback()(_group)
    commands.command(epilog=example("keys add iris --scope investigate"))(add)
    commands.command("list", epilog=example("keys list"))(list_)
    commands.command(epilog=example("keys revoke iris"))(revoke)
    app.add_typer(commands, name="keys")


def _group() -> None:
    """Make, list and revoke named keys. Services that run take up a change within a second."""


def add(
    name: Annotated[str, typer.Argument(help="Who or what it is for: what is done with it is kept under this name.")],
    scope: Annotated[
        list[str], typer.Option(help=f"What it may do: {', '.join(SCOPES)} (all of it). May be repeated.")
    ],
    file: KeysFile = WHERE,
) -> None:
    """Make a key and print it. It is shown this once: only its hash is kept."""
    with plain_errors():
        key = add_key(file, name, scope)
    err.print(f"key {escape(name)!r} for {', '.join(scope)}; it will not be shown again:", soft_wrap=True)
    print(key)


def list_(
    file: KeysFile = WHERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List keys: names and scopes, never the keys themselves."""
    with plain_errors():
        keys = read_keys(file)
    if as_json:
        print(json.dumps([{k: v for k, v in asdict(key).items() if k != "sha256"} for key in keys]))
        return
    table = Table("name", "scopes", "made", "revoked")
    for key in keys:
        table.add_row(escape(key.name), ", ".join(key.scopes), key.created_at, key.revoked_at or "")
    out.print(table)


def revoke(name: Annotated[str, typer.Argument(help="Of the key.")], file: KeysFile = WHERE) -> None:
    """Make a key good for nothing, within a second, in every service that reads the file."""
    with plain_errors():
        revoke_key(file, name)
    out.print(f"key {escape(name)!r} is revoked", soft_wrap=True)
