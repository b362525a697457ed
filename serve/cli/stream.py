"""The command that takes payments and labels from a stream."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from serve.cli.options import Model, example
from serve.terminal import out, plain_errors, progress


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("stream --model var/model --source kafka://localhost:9092/payments --answers answers"))(
        stream
    )


def stream(
    model: Model,
    source: Annotated[
        str, typer.Option(help="Payments and labels: kafka://host:port/topic, in JSON as the API takes it, or Arrow.")
    ],
    answers: Annotated[
        str | None, typer.Option(help="Topic for answers, on the same brokers; without it none are sent.")
    ] = None,
    group: Annotated[str, typer.Option(help="Name of the readers that share the source.")] = "ringwatch",
    journal: Annotated[
        str,
        typer.Option(
            envvar="RINGWATCH_JOURNAL",
            help="Journal of payments and labels: a file, or kafka://host:port/topic; made if it is missing.",
        ),
    ] = "var/journal.sqlite",
    options: Annotated[
        Path | None,
        typer.Option(
            envvar="RINGWATCH_KAFKA_OPTIONS", help="File of librdkafka's settings, one name=value on each line."
        ),
    ] = None,
    reasons: Annotated[bool, typer.Option(help="Whether answers say why.")] = True,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1 for Prometheus' metrics; 0 for none.")
    ] = 0,
) -> None:
    """Score payments from a stream until stopped: each is journalled, scored and answered.

    Messages are confirmed once their answers are with the broker. Those that are no payments or labels go to the topic
    SOURCE.dead-letters, with the reason.
    """
    from prometheus_client import start_http_server

    from gnn.model.artifact import load
    from serve.replica.replica import Replica
    from serve.settings import Settings
    from serve.stream.kafka import KafkaSource
    from serve.stream.streamer import Streamer

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with plain_errors():
        # No key guards it: it listens nowhere but for metrics.
        settings = Settings.from_environment(model=model, journal=journal, kafka_options=options, insecure=True)
        replica = Replica(load(model), settings)
        try:
            with progress() as report:
                replica.open(report)
            taken = KafkaSource(source, answers, group, settings.kafka_settings())
            streamer = Streamer(replica, taken, reasons=reasons)
            if metrics_port:
                start_http_server(metrics_port, "127.0.0.1", streamer.metrics.registry)
            out.print(f"reading {source}; stop with Ctrl-C", markup=False, highlight=False, soft_wrap=True)
            try:
                streamer.run(stopped.is_set)
            finally:
                streamer.close()
        finally:
            replica.close()
