"""The commands about what scores are worth."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from serve.cli.options import (
    Device,
    From,
    HistoryFrom,
    Journal,
    Labels,
    Model,
    Strict,
    Transactions,
    Until,
    example,
    file_option,
    reads,
)
from serve.terminal import Refusals, caution, err, out, plain_errors, progress, when

LEAKS = 1  # exit status of an audit that found what must not be there


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=example("evaluate --model var/model --transactions t.parquet --labels l.parquet --from 2018-08-08")
    )(reads(evaluate))
    app.command(
        epilog=example(
            "audit --transactions t.parquet --labels l.parquet --test-from 2018-08-08 --until 2018-08-15 "
            "--published handbook"
        )
    )(reads(audit))
    app.command(
        epilog=example(
            "card --model var/model --transactions t.parquet --labels l.parquet --from 2018-08-08 --out CARD.md"
        )
    )(reads(card))
    app.command(
        epilog=example(
            "prequential --transactions t.parquet --labels l.parquet --first 2018-06-06 --weeks 8 --every 2 "
            "--picture weeks.png"
        )
    )(reads(prequential))


def evaluate(
    model: Model,
    transactions: Transactions = None,
    labels: Labels = None,
    journal: Journal = None,
    start: From = None,
    until: Until = None,
    protocol: Annotated[
        str, typer.Option(help="plain, or handbook: without cards already known as fraudulent.")
    ] = "plain",
    truth: Annotated[
        Path | None, typer.Option(help="truth.parquet of a simulated world, for recall by kind of ring.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the metrics.")] = None,
    against: Annotated[
        bool,
        typer.Option(
            "--against",
            help="Compare with boosted trees, logistic regression, rules, and Snap ML if it is installed.",
        ),
    ] = False,
    device: Device = "auto",
    strict: Strict = False,
) -> None:
    """Measure a model on a history.

    Scores the payments as the service would have, and compares the scores with the labels that came later.
    """
    from gnn.evaluate.evaluate import evaluate as run
    from gnn.evaluate.metrics import as_table, reliability_table, to_dict
    from gnn.evaluate.protocols import check_protocol
    from gnn.model.artifact import load

    source = HistoryFrom(transactions, labels, journal)
    with plain_errors(), progress() as report:
        check_protocol(protocol)
        refusals, artifact, stop = Refusals(), load(model), when(until, "--until")
        history = source.read(stop=stop, strict=strict, on_refusal=refusals)
        options: dict[str, Any] = {
            "start": when(start, "--from"),
            "stop": stop,
            "protocol": protocol,
            "truth": truth,
            "device": device,
            "report": report,
        }
        if against:
            from gnn.rivals import comparison
            from gnn.score.rules import rules_score

            rules = {"rules": lambda state, rows: rules_score(state, rows)[0]}
            found = comparison.compare(artifact, history, rules=rules, **options)
            content, tables = comparison.to_dict(found), [comparison.as_table(found)]
            cautions = found.metrics[comparison.OURS].cautions
        else:
            metrics = run(artifact, history, **options)
            content, tables = to_dict(metrics), [as_table(metrics), reliability_table(metrics)]
            cautions = metrics.cautions
    refusals.summary()
    for table in tables:
        out.print(table)
    caution(cautions)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(content, indent=2) + "\n")


def audit(
    transactions: Transactions = None,
    labels: Labels = None,
    journal: Journal = None,
    start: From = None,
    until: Until = None,
    test_from: Annotated[
        str | None, typer.Option(help="Test on payments from here on; by default the last 30 %.", show_default=False)
    ] = None,
    published: Annotated[
        str, typer.Option(help="How published tables split this data: random, or handbook (the book's two weeks).")
    ] = "random",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the results.")] = None,
    strict: Strict = False,
) -> None:
    """Measure label leakage, and check that no score has any.

    The same boosted trees are evaluated three times: split as in published tables, split in time, and strictly causal
    (labels from their report on, features from before the payment). For a sample of payments the inputs are computed
    again from a journal that ends with the payment, and must be equal. Two leaks that are planted on purpose must be
    found. Exit status 1 if the strict inputs leak. Without a history, payments are simulated.
    """
    from gnn.quality.audit import as_tables, to_dict
    from gnn.quality.audit import audit as run

    given = (transactions, labels, journal) != (None, None, None)
    source = HistoryFrom(transactions, labels, journal) if given else None
    with plain_errors(), progress() as report, tempfile.TemporaryDirectory() as folder:
        if source is None:
            from data.world.synthetic import WorldConfig, simulate

            simulate(WorldConfig(transactions=60_000, seed=seed)).write(Path(folder))
            source = HistoryFrom(folder)
        refusals = Refusals()
        report("reading", 0.0)
        history = source.read(when(start, "--from"), when(until, "--until"), strict, refusals)
        test_start = when(test_from, "--test-from")
        found = run(history, published=published, test_start=test_start, seed=seed, report=report)
    refusals.summary()
    for table in as_tables(found):
        out.print(table)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(to_dict(found), indent=2) + "\n")
    out.print("nothing from the future reaches the scores" if found.sound else "LEAKS: see above", markup=False)
    if not found.sound:
        sys.exit(LEAKS)


def card(
    model: Model,
    out_file: Annotated[Path, file_option("Markdown file to write.", "--out")],
    transactions: Transactions = None,
    labels: Labels = None,
    journal: Journal = None,
    start: From = None,
    until: Until = None,
    protocol: Annotated[
        str, typer.Option(help="plain, or handbook: without cards already known as fraudulent.")
    ] = "plain",
    truth: Annotated[
        Path | None, typer.Option(help="truth.parquet of a simulated world, for recall by kind of ring.")
    ] = None,
    device: Device = "auto",
    strict: Strict = False,
) -> None:
    """Write a model card.

    Training data, quality on later payments and on groups of them, calibration, limits.
    """
    from gnn.evaluate.protocols import check_protocol
    from gnn.model.artifact import load
    from gnn.quality.card import make_card, markdown

    source = HistoryFrom(transactions, labels, journal)
    with plain_errors(), progress() as report:
        check_protocol(protocol)
        refusals, artifact, stop = Refusals(), load(model), when(until, "--until")
        made = make_card(
            artifact,
            source.read(stop=stop, strict=strict, on_refusal=refusals),
            start=when(start, "--from"),
            stop=stop,
            protocol=protocol,
            truth=truth,
            device=device,
            report=report,
        )
    refusals.summary()
    out_file.parent.mkdir(parents=True, exist_ok=True)
    out_file.write_text(markdown(made))
    caution(made.metrics.cautions)
    out.print(f"card of {made.artifact.version} in {out_file}", markup=False)


def prequential(
    first: Annotated[str, typer.Option(help="First day of the first week to evaluate.", show_default=False)],
    transactions: Transactions = None,
    labels: Labels = None,
    journal: Journal = None,
    weeks: Annotated[int, typer.Option(min=1, help="Number of weeks.")] = 4,
    every: Annotated[int, typer.Option(min=1, help="Weeks from one training to the next.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Maximum number of epochs of each layer.")] = 8,
    label_delay: Annotated[
        float | None,
        typer.Option(
            help="Days until a payment without a label counts as legitimate; by default learnt from the labels."
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="plain, or handbook: without cards already known as fraudulent.")
    ] = "plain",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="PNG file for a picture of the results.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the results.")] = None,
    strict: Strict = False,
) -> None:
    """Train and evaluate week by week.

    Each week is evaluated with a model that was trained on what was known before it.
    """
    from rich.table import Table

    from gnn.evaluate.metrics import to_dict
    from gnn.evaluate.protocols import check_protocol
    from gnn.quality.prequential import WEEK, draw
    from gnn.quality.prequential import prequential as run
    from gnn.train.targets import TrainConfig

    source = HistoryFrom(transactions, labels, journal)
    with plain_errors(), progress() as report:
        check_protocol(protocol)
        refusals = Refusals()
        begin = when(first, "--first")
        assert begin is not None
        found = run(
            source.read(stop=begin + weeks * WEEK, strict=strict, on_refusal=refusals),
            first=begin,
            weeks=weeks,
            every=every,
            config=TrainConfig(epochs=epochs, label_delay_days=label_delay, seed=seed),
            protocol=protocol,
            report=report,
        )
    refusals.summary()
    table = Table("week from", "trained up to", "payments", "frauds", "AP", "ROC AUC", title="week by week")
    for week in found:
        when_of = str(week.start.date()), str(week.trained.date())
        if m := week.metrics:
            figures = f"{m.payments:,}", f"{m.frauds:,}", f"{m.average_precision:.3f}", f"{m.roc_auc:.3f}"
        else:
            err.print(f"week from {when_of[0]}: {week.reason}", style="yellow", markup=False, soft_wrap=True)
            figures = "", "", "not judged", ""
        table.add_row(*when_of, *figures)
    out.print(table)
    if picture:
        curve = {str(w.start.date()): w.metrics.average_precision for w in found if w.metrics}
        draw({"ringwatch": curve}, picture)
        out.print(f"picture in {picture}", markup=False)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        weeks_found = [
            {"week": str(w.start.date()), "trained": str(w.trained.date()), **(to_dict(w.metrics) if w.metrics else {})}
            for w in found
        ]
        json_file.write_text(json.dumps(weeks_found, indent=2) + "\n")
