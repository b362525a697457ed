"""The command that shows what an account usually does, what it will do next, and what its owner should know."""

from typing import Annotated

import typer
from rich.markup import escape

from serve.cli.options import HistoryFrom, Journal, Labels, Strict, Transactions, example, reads
from serve.terminal import Refusals, fail, out, plain_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("account a-1042 --journal var/journal.sqlite --balance EUR:125000"))(reads(account))


def account(
    account_id: Annotated[str, typer.Argument(help="The account's identifier.", show_default=False)],
    journal: Journal = None,
    transactions: Transactions = None,
    labels: Labels = None,
    balance: Annotated[
        list[str] | None,
        typer.Option(help="What it holds, in minor units: EUR:125000 is 1,250.00 EUR. One for each currency."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    strict: Strict = False,
) -> None:
    """Show an account's recurring payments and income, its next payment, and what its owner should be told.

    As of the last payment of the history; it needs no model. Intervals are checked on other accounts of the history.
    """
    from serve.batch.account import account_of, advice_table, next_lines, recurring_table
    from serve.cases.spending_wire import guidance_out, profile_out
    from serve.console.account_routes import balances
    from serve.problems import Problem

    source = HistoryFrom(transactions, labels, journal, labelled=False)
    try:
        held = balances(balance or [])
    except Problem as problem:
        fail(f"--{problem.detail}")
    with plain_errors():
        refusals = Refusals()
        history = source.read(strict=strict, on_refusal=refusals)
        known, advice = account_of(history, account_id, held, journal)
    if as_json:
        whole = {"profile": profile_out(known), "guidance": guidance_out(account_id, advice)}
        print("{" + ", ".join(f'"{name}": {part.model_dump_json()}' for name, part in whole.items()) + "}")
    else:
        out.print(f"account {escape(account_id)}: {known.payments} payments")
        out.print(recurring_table("recurring payments", known.recurring))
        out.print(recurring_table("income", known.income))
        for line in (*next_lines(known), *(one.reason for one in known.unusual)):
            out.print(escape(line))
        out.print(advice_table(advice) if advice else "Nothing certain enough to tell its owner.")
    refusals.summary()
