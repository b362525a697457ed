"""The command line. Each command is a thin door: it reads options, calls one function and shows what came of it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from data.files.options import ReadOptions
from serve.cli import account as cli_account
from serve.cli import batch as cli_batch
from serve.cli import investigate as cli_investigate
from serve.cli import journal as cli_journal
from serve.cli import keys as cli_keys
from serve.cli import mandates as cli_mandates
from serve.cli import policies as cli_policies
from serve.cli import quality as cli_quality
from serve.cli import rings as cli_rings
from serve.cli import stream as cli_stream
from serve.cli import training as cli_training
from serve.cli.options import (
    Cache,
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
    folder_option,
    reads,
)
from serve.terminal import Refusals, err, fail, one_of, out, plain_errors, progress, when

app = typer.Typer(
    name="ringwatch",
    help="Fraud detection on a graph of payments: scores, fraud rings and reasons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # an error is a line that can be searched for, not a box
)


@app.command(epilog=example("simulate --transactions 150000 --seed 7 --out var/world"))
def simulate(
    out_folder: Annotated[Path, folder_option("Folder to write to.", "--out")],
    transactions: Annotated[int, typer.Option(min=2_000, help="Number of payments.")] = 150_000,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same files.")] = 7,
    days: Annotated[int, typer.Option(min=30, help="Number of days.")] = 90,
    agents: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the accounts that let an agent pay; it may be hijacked.")
    ] = 0.0,
) -> None:
    """Simulate payments with fraud rings and late labels."""
    from data.world.synthetic import WorldConfig
    from data.world.synthetic import simulate as make

    with plain_errors():
        world = make(WorldConfig(transactions=transactions, seed=seed, days=days, agents=agents))
        world.write(out_folder)
    frauds = sum(world.truth["is_fraud"].to_pylist())
    out.print(f"{len(world.transactions):,} payments, {frauds:,} of them fraud, in {escape(str(out_folder))}")


@app.command(epilog=example("dataset handbook --source transactions_raw.parquet --out var/handbook"))
def dataset(
    name: Annotated[str, typer.Argument(help="Name of the data set: handbook or s-ffsd.")],
    source: Annotated[Path, typer.Option(help="The published file.", show_default=False)],
    out_folder: Annotated[Path, folder_option("Folder to write to.", "--out")],
) -> None:
    """Convert a public data set to Ringwatch's schema.

    Writes transactions.parquet and labels.parquet.
    """
    import pyarrow.parquet as pq

    from data.files import datasets

    readers = {"handbook": datasets.handbook, "s-ffsd": datasets.s_ffsd}
    if name not in readers:
        fail(f"no data set named {name!r}; there are {', '.join(readers)}")
    with plain_errors():
        transactions, labels = readers[name](source)
    out_folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(transactions, out_folder / "transactions.parquet")
    pq.write_table(labels, out_folder / "labels.parquet")
    out.print(f"{len(transactions):,} payments and {len(labels):,} labels in {escape(str(out_folder))}")


cli_training.register(app)
cli_quality.register(app)
cli_journal.register(app)
cli_keys.register(app)
cli_mandates.register(app)
cli_policies.register(app)
cli_investigate.register(app)
cli_account.register(app)
cli_batch.register(app)
cli_stream.register(app)


@app.command(epilog=example("serve --model var/model --insecure"))
def serve(
    model: Model,
    journal: Annotated[
        str,
        typer.Option(
            envvar="RINGWATCH_JOURNAL",
            help="Journal of payments and labels: a file, or kafka://host:port/topic; made if it is missing.",
        ),
    ] = "var/journal.sqlite",
    host: Annotated[str, typer.Option(envvar="RINGWATCH_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="RINGWATCH_PORT", min=1024, max=65535, help="Port to listen on.")] = 8000,
    replicas: Annotated[
        int,
        typer.Option(
            envvar="RINGWATCH_REPLICAS",
            min=1,
            help="Number of replicas; each listens on a port of its own, from --port on.",
        ),
    ] = 1,
    device: Annotated[
        str, typer.Option(envvar="RINGWATCH_DEVICE", help="Where to compute: auto, cpu or cuda.")
    ] = "auto",
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", envvar="RINGWATCH_INSECURE", help="Require no API key; otherwise set RINGWATCH_API_KEYS."
        ),
    ] = False,
) -> None:
    """Serve scores over HTTP on Ray Serve until stopped."""
    from gnn.score.devices import choose_device
    from serve.http.deployment import run_service
    from serve.settings import Settings

    with plain_errors():
        choose_device(device)
        run_service(
            Settings.from_environment(
                model=model, journal=journal, host=host, port=port, replicas=replicas, device=device, insecure=insecure
            )
        )


@app.command(epilog=example("snapshot --model var/model --journal var/journal.sqlite"))
def snapshot(
    model: Model,
    journal: Annotated[Path, typer.Option(envvar="RINGWATCH_JOURNAL", help="Journal of a service.")] = Path(
        "var/journal.sqlite"
    ),
    snapshots: Annotated[
        Path | None,
        typer.Option(envvar="RINGWATCH_SNAPSHOTS", help="Folder of snapshots; by default beside the journal."),
    ] = None,
) -> None:
    """Write a snapshot of a journal's graph.

    A service that starts from it replays little. A running service does this by itself.
    """
    from gnn.model.artifact import load
    from serve.replica.snapshots import bring_up_to_date
    from serve.settings import Settings

    with plain_errors(), progress() as report:
        if not journal.exists():
            fail(f"no journal at {journal}")
        settings = Settings.from_environment(model=model, journal=journal, insecure=True, snapshots=snapshots)
        path = bring_up_to_date(load(model), settings, report)
    out.print(
        f"snapshot {escape(str(path))}" if path else "nothing new to write, or another process is writing a snapshot"
    )


@app.command(epilog=example("capacity --transactions 300e6 --accounts 100e6 --merchants 5e6 --devices 80e6"))
def capacity(
    accounts: Annotated[float, typer.Option(min=0, help="Number of accounts.", show_default=False)],
    transactions: Annotated[
        float | None,
        typer.Option(min=1, help="Transactions held in memory.", show_default="what the window and the layers need"),
    ] = None,
    merchants: Annotated[float, typer.Option(min=0, help="Number of merchants.")] = 0,
    devices: Annotated[float, typer.Option(min=0, help="Number of devices.")] = 0,
    others: Annotated[float, typer.Option(min=0, help="Number of IPs, of cards and of locations, each.")] = 0,
    roles: Annotated[str, typer.Option(help="Roles in the graph, separated by commas.")] = "account,merchant,device",
    labels: Annotated[float, typer.Option(min=0, help="Labels held in memory.")] = 0,
    ties: Annotated[
        float | None, typer.Option(min=0, help="Pairs of an account and a device or card that it uses.")
    ] = None,
    window_rows: Annotated[float, typer.Option(min=1, help="How many payments back a payment sees.")] = 1 << 21,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the model.")] = 2,
    width: Annotated[int, typer.Option(min=4, help="Width of the model.")] = 32,
    cache: Cache = "int8",
    models: Annotated[int, typer.Option(min=0, help="Models that score at the same time.")] = 1,
) -> None:
    """Print the memory that a deployment needs.

    Also how many transactions it must hold, so that a model that is added later is exact at once.
    """
    from gnn.model.cache import CACHES
    from gnn.model.network import ModelConfig
    from serve.cli.capacity import capacity_table, planned

    names = tuple(roles.split(","))
    entities = {**dict.fromkeys(("ip", "card", "location"), others), "account": accounts, "merchant": merchants}
    with plain_errors():
        deployment = planned(names, {**entities, "device": devices}, transactions, labels, ties, window_rows, layers)
        model = ModelConfig(
            names, width=width, layers=layers, window_rows=int(window_rows), cache=one_of("--cache", cache, CACHES)
        )
        out.print(capacity_table(deployment, model, models))


@app.command(epilog=example("ingest --transactions day2.parquet --labels reported2.parquet --outcomes became2.csv"))
@reads
def ingest(
    transactions: Transactions = None,
    labels: Labels = None,
    outcomes: Annotated[
        Path | None,
        typer.Option(
            help="What became of payments: Parquet, CSV or JSON lines with the columns transaction_id, outcome and at, "
            "and amount, outcome_id and by where there are any. Sent behind the others.",
            show_default=False,
        ),
    ] = None,
    journal: Journal = None,
    url: Annotated[
        str, typer.Option(help="Address of the service; its key is read from RINGWATCH_API_KEY.")
    ] = "http://127.0.0.1:8000",
    start: From = None,
    until: Until = None,
    answers: Annotated[Path | None, file_option("Parquet file for the answers.")] = None,
    strict: Strict = False,
) -> None:
    """Send payments, labels and outcomes to a running service.

    From files, or with --transactions - from an Arrow IPC stream on standard input; in order of time. Labels may be of
    payments that came in other files, and may come alone: the service knows which payments there are.
    """
    from serve.http.client import RingwatchClient
    from serve.stream.ingest import ingest as run
    from serve.stream.ingest import rows_in
    from serve.stream.outcomes import read_outcomes, send_outcomes

    if outcomes is not None and (transactions, labels, journal) == (None, None, None):
        with plain_errors(), progress() as report, RingwatchClient.from_environment(url) as client:
            became = send_outcomes(client, read_outcomes(outcomes), strict=strict, report=report)
        out.print(became.summary())
        return
    source = HistoryFrom(transactions, labels, journal, labelled=False, sent=True)
    options = getattr(labels or transactions, "options", ReadOptions())
    with plain_errors():
        refusals = Refusals()
        with progress() as report, RingwatchClient.from_environment(url) as client:
            runs = source.stream(when(start, "--from"), when(until, "--until"), strict, refusals)
            total = rows_in(transactions) + rows_in(labels)
            done = run(client, runs, total=total, answers=answers, strict=strict, report=report)
            rows = [] if outcomes is None else read_outcomes(outcomes)
            became = send_outcomes(client, rows, strict=strict, report=report)
        refusals.summary()
        if done.unknown:
            unknown = (
                f"refused: the service knows no payment that {done.unknown:,} labels are of: {done.unknown_shown()}"
            )
            err.print(unknown, style="yellow", markup=False, highlight=False, soft_wrap=True)
        out.print(done.summary())
        if outcomes is not None:
            out.print(became.summary())
        done.judge(options.max_refused)


cli_rings.register(app)


@app.command(epilog=example("demo --out var/demo"))
@reads
def demo(
    out_folder: Annotated[Path, folder_option("Output folder.", "--out")] = Path("var/demo"),
    transactions: Annotated[
        str | None, typer.Option(help="Your own transactions instead of simulated ones.", show_default=False)
    ] = None,
    labels: Labels = None,
    start: From = None,
    until: Until = None,
    train_until: Annotated[
        str | None, typer.Option(help="Train on what was known before this time; by default --from.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="plain, or handbook: without cards already known as fraudulent.")
    ] = "plain",
    seed: Annotated[int, typer.Option(help="Random seed of the simulation and the model.")] = 7,
    epochs: Annotated[int, typer.Option(min=1, help="Maximum number of epochs of each layer.")] = 6,
    pretraining: Annotated[
        int,
        typer.Option(
            min=0, help="Pre-training steps of each layer, on predicting the next payments of accounts; 0 for none."
        ),
    ] = 0,
) -> None:
    """Run everything once and show which frauds were caught.

    Trains a model on a history, starts the service and sends it payments over HTTP.
    """
    from serve.cli.demo import DemoConfig, run_demo

    if (transactions is None) != (labels is None):
        fail("give --transactions and --labels together, or neither")
    options: dict[str, Any] = {
        "start": when(start, "--from"),
        "stop": when(until, "--until"),
        "train_until": when(train_until, "--train-until"),
    }
    with plain_errors():
        run_demo(
            DemoConfig(
                out=out_folder,
                transactions=transactions,
                labels=labels,
                protocol=protocol,
                seed=seed,
                epochs=epochs,
                pretraining=pretraining,
                **options,
            )
        )


def main() -> None:
    """Entry point."""
    app()
