"""`ringwatch policy value`: what a policy that never ran would have earned, from the log of another."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serve.terminal import out, plain_errors

LogPath = Annotated[
    Path,
    typer.Argument(
        help="Parquet: action, propensity, reward, target.ACTION for each action, and perhaps model.ACTION.",
        show_default=False,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def value(
    log: LogPath,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Estimate what a policy or a router would have earned, from the log of another one: docs/costs.md."""
    from serve.decide.logs import read_log
    from serve.decide.off_policy import values

    with plain_errors():
        read, actions = read_log(log)
        found = values(read, seed)
    payments, mean = len(read.reward), float(read.reward.mean())
    if as_json:
        estimates = [asdict(one) for one in found]
        print(json.dumps({"payments": payments, "actions": actions, "logged": mean, "values": estimates}))
        return
    table = Table("method", "value", "95 % interval", "bootstrap", "worth payments")
    for one in found:
        table.add_row(
            one.method.replace("_", " "),
            f"{one.value:,.4g}",
            f"{one.low:,.4g} to {one.high:,.4g}",
            f"{one.bootstrap_low:,.4g} to {one.bootstrap_high:,.4g}",
            f"{one.effective:,.0f}",
        )
    out.print(table)
    out.print(f"{payments:,} payments; the log itself earned {mean:,.4g} on the mean", highlight=False)
