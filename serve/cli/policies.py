"""The commands about policies: check a file, try it on recorded payments, roll it out, and roll it back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from serve.cli.options import HistoryFrom, Labels, Model, Strict, Transactions, example, file_option, reads
from serve.cli.policy_fees import fees
from serve.cli.policy_value import value
from serve.terminal import BAD_INPUT, Refusals, err, fail, out, plain_errors, progress, when

if TYPE_CHECKING:
    from serve.decide.policies.book import PolicyBook
    from serve.decide.policies.life import PolicyEvent
    from serve.decide.policies.model import PolicyFile

PolicyPath = Annotated[Path, typer.Argument(help="Policy file, see docs/policy.md.", show_default=False)]
JournalPath = Annotated[Path | None, typer.Option(help="Journal of a service; it may be in use.", show_default=False)]
Url = Annotated[
    str | None,
    typer.Option(help="Address of a service; its key, of scope admin, is in RINGWATCH_API_KEY.", show_default=False),
]
By = Annotated[str, typer.Option(help="Who does it, for people.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(
        help="Check, try, activate and roll back policies.",
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
    )
    commands.callback()(_group)
    commands.command(epilog=example("policy check docs/policy.yaml"))(check)
    commands.command("fields", epilog=example("policy fields --like card"))(fields_)
    trial = example(
        "policy simulate docs/policy.yaml --journal var/journal.sqlite --model var/model --html var/trial.html"
    )
    commands.command(epilog=trial)(reads(simulate))
    commands.command(epilog=example("policy activate docs/policy.yaml --journal var/journal.sqlite --shadow"))(activate)
    commands.command(epilog=example("policy rollback --journal var/journal.sqlite"))(rollback)
    priced = example("policy fees by-cost.yaml --transactions t.parquet --scores var/scores --by country")
    commands.command(epilog=priced)(fees)
    commands.command(epilog=example("policy value var/log.parquet"))(value)
    commands.command("list", epilog=example("policy list --journal var/journal.sqlite"))(list_)
    app.add_typer(commands, name="policy")


def _group() -> None:
    """Check, try, activate and roll back policies."""


def check(file: PolicyPath, as_json: AsJson = False) -> None:
    """Check a policy file. Every mistake is told with its line, its column and how to mend it; status 2 if any."""
    with plain_errors():
        found = read_policy(file, as_json)
    if as_json:
        print(json.dumps({"ok": True, "version": found.version, "rules": [rule.id for rule in found.rules]}))
        return
    out.print(f"{file}: {found.version}: {len(found.rules)} rules, no mistake", markup=False, highlight=False)


def fields_(
    like: Annotated[str, typer.Option(help="Only those with this text in their name or meaning.")] = "",
    as_json: AsJson = False,
) -> None:
    """List what the conditions of a policy can be about."""
    from serve.decide.policies.fields import fields

    found = [f for f in fields().values() if like in f.name or like in f.meaning]
    if as_json:
        print(json.dumps([{"name": f.name, "compared_with": f.sort.value, "meaning": f.meaning} for f in found]))
        return
    table = Table("field", "compared with", "meaning")
    for field in found:
        table.add_row(field.name, escape(field.sort.value), field.meaning)
    out.print(table)


def activate(
    file: PolicyPath,
    journal: JournalPath = None,
    url: Url = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="Only ask it about every payment, and count.")] = False,
    draft: Annotated[bool, typer.Option("--draft", help="Only keep it.")] = False,
    share: Annotated[
        float | None,
        typer.Option(help="Let it decide for this share of the accounts, 0.1 for 10 %.", show_default=False),
    ] = None,
    by: By = "",
) -> None:
    """Have a policy decide from the next payment on: for all accounts, a share of them, or in shadow."""
    from serve.decide.policies.life import PolicyEvent, PolicyState

    if sum((shadow, draft, share is not None)) > 1:
        fail("give one of --shadow, --draft and --share")
    if share is not None and not 0 < share <= 1:
        fail(f"--share is {share:g}: give a share above 0 and up to 1, such as 0.1 for 10 %")
    state = PolicyState.SHADOW if shadow else PolicyState.DRAFT if draft else PolicyState.LIVE
    state = state if share is None else PolicyState.ROLLOUT
    with plain_errors():
        found = read_policy(file)
        if _is_remote(journal, url):
            body = {"content": found.text, "state": state, "share": share or 1.0, "by": by}
            _said(_call(url, "POST", "/v1/policies", body))
        else:
            with _writing(journal) as (book, write):
                event = PolicyEvent.of(found, state, share or 1.0, by)
                book.refuse(event)
                _said(write(event, book.stands(event)))


def simulate(
    file: PolicyPath,
    model: Model,
    journal: JournalPath = None,
    transactions: Transactions = None,
    labels: Labels = None,
    since: Annotated[
        str | None, typer.Option(help="Judge payments from this time on (ISO 8601, UTC).", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Judge payments before this time (ISO 8601, UTC).", show_default=False)
    ] = None,
    html: Annotated[Path | None, file_option("Page to write: the whole report, with the cost curve.")] = None,
    as_json: AsJson = False,
    strict: Strict = False,
) -> None:
    """Try a policy on recorded payments, beside what was live.

    Every payment is scored and decided again as of its own place in the journal, so with what was known then; it is
    judged with the labels known by now. Nothing is recorded.
    """
    from gnn.model.artifact import load as load_model
    from serve.batch.backtest import backtest, summary
    from serve.batch.backtest_report import backtest_page, backtest_tables

    source = HistoryFrom(transactions, labels, journal, labelled=False)
    with plain_errors(), progress() as report:
        policy, artifact, refusals = read_policy(file), load_model(model), Refusals()
        history = source.read(strict=strict, on_refusal=refusals)
        found = backtest(artifact, history, policy, when(since, "--since"), when(until, "--until"), report)
        figures = summary(found, None if policy.economics is None else policy.economics.costs)
        if html is not None:
            html.parent.mkdir(parents=True, exist_ok=True)
            html.write_text(backtest_page(figures), encoding="utf-8")
    if as_json:
        print(json.dumps(figures))
    else:
        for table in backtest_tables(figures):
            out.print(table)
        if html is not None:
            out.print(escape(str(html)))
    refusals.summary()


def rollback(
    journal: JournalPath = None,
    url: Url = None,
    version: Annotated[
        str | None, typer.Option(help="Which; by default a rollout, else what is live.", show_default=False)
    ] = None,
    by: By = "",
) -> None:
    """End a rollout or a shadow, or return to the policy that was live before."""
    with plain_errors():
        if _is_remote(journal, url):
            _said(_call(url, "POST", "/v1/policies/rollback", {"version": version, "by": by}))
        else:
            with _writing(journal) as (book, write):
                _said(write(book.rollback(version, by), False))


def list_(journal: JournalPath = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the policies of a journal, the newest first."""
    with plain_errors():
        if _is_remote(journal, url):
            found = _call(url, "GET", "/v1/policies")
        else:
            with _reading(journal) as book:
                found = [
                    {
                        "name": r.event.name,
                        "version": r.event.version,
                        "state": r.state,
                        "share": r.event.share,
                        "by": r.event.by,
                        "at": datetime.fromtimestamp(r.event.at / 1e6, UTC).isoformat().replace("+00:00", "Z"),
                        "offset": r.offset,
                    }
                    for r in book.records()
                ]
    if as_json:
        print(json.dumps(found))
        return
    table = Table("policy", "state", "share", "since", "by", "offset")
    for one in found:
        share = f"{one['share']:.0%}" if one["state"] == "rollout" else ""
        table.add_row(one["version"], one["state"], share, one["at"][:19], escape(one["by"]), f"{one['offset']:,}")
    out.print(table)


def _said(done: dict[str, Any]) -> None:
    state = done["state"].replace("_", " ")
    repeated = " (it was already)" if done.get("repeated") else ""
    out.print(f"{done['version']} is {state}{repeated}", markup=False, highlight=False, soft_wrap=True)


def _is_remote(journal: Path | None, url: str | None) -> bool:
    if (journal is None) == (url is None):
        fail("give either --journal or --url")
    return url is not None


def _call(url: str | None, method: str, path: str, body: Any = None) -> Any:
    from serve.http.client import RingwatchClient

    with RingwatchClient.from_environment(url or "") as client:
        return client.call(method, path, body)


@contextmanager
def _reading(path: Path | None) -> "Iterator[PolicyBook]":
    """The policies that a journal holds."""
    from data.journal.sqlite import SqliteJournal
    from serve.decide.policies.activation import policies_of

    if path is None or not path.exists():
        fail(f"no journal at {path}")
        return
    journal = SqliteJournal(path, readonly=True)
    try:
        yield policies_of(journal)
    finally:
        journal.close()


@contextmanager
def _writing(path: Path | None) -> "Iterator[tuple[PolicyBook, Any]]":
    """The policies that a journal holds, and what writes an event to it."""
    from data.journal.sqlite import SqliteJournal
    from serve.decide.policies.activation import policies_of, record

    if path is None or not path.exists():
        fail(f"no journal at {path}")
        return
    journal = SqliteJournal(path)

    def write(event: "PolicyEvent", stands: bool) -> dict[str, Any]:
        if not stands:
            record(journal, event)
        return {"version": event.version, "state": event.state, "repeated": int(stands)}

    try:
        yield policies_of(journal), write
    finally:
        journal.close()


def read_policy(file: Path, as_json: bool = False) -> "PolicyFile":
    """A policy from a file. What is wrong with it is told, a line for each mistake or as JSON, and ends the command."""
    from serve.decide.policies.parsing import load
    from serve.decide.policies.reading import PolicyError

    try:
        return load(file)
    except PolicyError as error:
        if as_json:
            mistakes = [{**asdict(m.place), "reason": m.reason, "mend": m.mend} for m in error.mistakes]
            print(json.dumps({"ok": False, "mistakes": mistakes}))
        for line in str(error).splitlines():
            err.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from None
