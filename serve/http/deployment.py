"""The service on Ray Serve: replicas placed and replaced by Ray, requests straight to the replica that scores them."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data.digests import key_from_environment, key_is_secret
from gnn.model.artifact import load
from serve.children import safe_folder
from serve.errors import ServeError
from serve.http.listener import Listener, listen
from serve.http.logs import log_to
from serve.ray_address import check_address
from serve.replica.journals import open_journal
from serve.settings import Settings
from serve.terminal import out, warn

if TYPE_CHECKING:
    from serve.replica.replica import Replica

CPUS = 0.5  # of a replica: a fraction, so that replicas start on small machines
RETRY_S = 0.2  # between two looks for a free port: the process that has it is on its way out

log = logging.getLogger("ringwatch")
S = TypeVar("S", bound=Settings)


def run_service(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Each replica listens itself, on the first of the ports `settings.port`, `settings.port + 1`, ... that no other
    replica of the machine has: a replica that takes the place of another takes its port. Put a balancer in front of
    several. Ray's own proxy is not started.

    Args:
        settings: How to run.

    Raises:
        ModelError: There is no readable model.
        JournalError: The journal cannot be opened, or is none.
        DataError: The key of ids is none.
        ServeError: An address cannot be listened on, or RAY_ADDRESS names a cluster that does not answer.
    """
    _check(settings)
    if not key_is_secret():
        warn(
            "RINGWATCH_ID_KEY is not set: the graph and its snapshots hold digests of ids under a key that everybody "
            "knows. Set it to 32 random hexadecimal digits (openssl rand -hex 16) and keep it; the next start then "
            "replays the journal once"
        )
    settings = absolute(settings)

    def application(gpus: int) -> Any:
        return deployment(settings, share(settings, gpus))

    lines = [f"scoring on http://{settings.host}:{p}; its log: {log_file(settings, p)}" for p in ports(settings)]
    serve_until_stopped("ringwatch", application, lines)


def serve_until_stopped(name: str, application: Callable[[int], Any], lines: Sequence[str]) -> None:
    """Run an application on Ray Serve until SIGINT or SIGTERM. Ray's own proxy is not started.

    Args:
        name: Of the application.
        application: Makes it, bound, from the number of GPUs of the cluster.
        lines: To print once it is placed.

    Raises:
        ServeError: RAY_ADDRESS names a cluster that does not answer.
    """
    check_address()
    os.environ.update(environment())
    import ray
    from ray import serve as ray_serve

    stop = threading.Event()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with safe_folder():
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    for number in (signal.SIGINT, signal.SIGTERM):  # behind Ray's own, which writes a stack to the terminal
        signal.signal(number, lambda *_: stop.set())
    try:
        ray_serve.start(proxy_location="Disabled")
        ray_serve.run(application(int(ray.cluster_resources().get("GPU", 0))), name=name, route_prefix=None)
        for line in lines:
            out.print(line, soft_wrap=True)
        stop.wait()
    finally:
        ray_serve.delete(name)  # the replicas end in good order; Serve itself may be others' too
        ray.shutdown()


def ports(settings: Settings) -> range:
    """The ports of the replicas of one machine."""
    return range(settings.port, settings.port + settings.replicas)


def log_file(settings: Settings, port: int) -> Path:
    """Where the replica on a port writes its log."""
    return settings.journal.with_name(f"{settings.journal.stem}-{port}.log")


def absolute(settings: S) -> S:
    """Paths that mean the same in a replica, whose working directory is another."""
    paths = {"model": settings.model, "journal": settings.journal, "snapshots": settings.snapshots}
    paths |= {"keys_file": settings.keys_file, "kafka_options": settings.kafka_options}
    return settings.model_copy(update={name: path and path.resolve() for name, path in paths.items()})


def environment() -> dict[str, str]:
    """What Ray reads when it is imported, here and in its workers, which inherit the environment."""
    return {
        "RAY_worker_niceness": "0",  # a replica must not wait for whatever else the machine does
        "RAY_DEDUP_LOGS": "0",
    }


def _check(settings: Settings) -> None:
    """Say what is wrong here and now: a replica would say it in a traceback, and be started again for ever."""
    load(settings.model)
    key_from_environment()
    open_journal(settings).close()
    for port in ports(settings):
        listen(settings.host, [port]).close()


def share(settings: Settings, cards: int) -> float:
    """What each replica asks Ray for: a card of its own, or an equal part of one where there are more replicas.

    Args:
        settings: The service's.
        cards: GPUs of the cluster.

    Raises:
        ServeError: Replicas would share a card without a budget of its memory for each, or CUDA is asked for and there
            is no card.
    """
    if settings.device == "cpu" or (cards == 0 and settings.device == "auto"):
        return 0.0
    if cards == 0:
        raise ServeError("--device cuda: the cluster has no GPU; use --device auto or cpu")
    together = -(-settings.replicas // cards)  # on the fullest card
    if together > 1 and settings.cuda_memory is None:
        raise ServeError(
            f"{settings.replicas} replicas on {cards} GPU(s) share a card: set RINGWATCH_CUDA_MEMORY to the GiB of it "
            "that each may take"
        )
    return int(10_000 / together) / 10_000  # Ray counts to four places


def deployment(settings: Settings, gpus: float = 0.0, make: "Callable[[Settings], Replica] | None" = None) -> Any:
    """The Ray Serve application: the scoring replica is the ingress.

    Args:
        settings: How it runs.
        gpus: GPUs of each replica, a share of one included; 0 where the cluster has none, or it would wait for ever.
        make: Makes what a replica holds; by default from the settings.
    """
    from ray import serve as ray_serve

    @ray_serve.deployment(
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": CPUS, "num_gpus": gpus},
        graceful_shutdown_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=2,
    )
    class ScoringReplica:
        """Holds the graph, follows the journal, scores what it is sent. Nothing of it is pickled but the settings."""

        def __init__(self) -> None:
            self._process = ReplicaProcess(settings, make)

        def check_health(self) -> None:
            """Ray replaces a replica that fails this, once it has answered what it has taken on."""
            if reason := self._process.unhealthy:
                raise RuntimeError(reason)

        def __del__(self) -> None:
            """Ray calls this where it stops a replica."""
            self._process.stop()

    application: Any = ScoringReplica
    return application.bind()


class ReplicaProcess:
    """What runs in a replica's process: the application, on a port of its own as soon as one is free, and its log.

    Args:
        settings: How it runs.
        make: Makes what the replica holds; by default from the settings.
    """

    def __init__(self, settings: Settings, make: "Callable[[Settings], Replica] | None" = None) -> None:
        from serve.http.app import build_app

        self._settings = settings
        self._app = build_app(settings, make(settings) if make is not None else None)
        self._listener: Listener | None = None
        self._stopped = threading.Event()
        self._starting = threading.Thread(target=self._start, name="ringwatch-start", daemon=True)
        self._starting.start()

    @property
    def unhealthy(self) -> str | None:
        """Why this replica is to be replaced, if it is."""
        held = getattr(self._app.state, "replica", None)
        return None if held is None else held.unhealthy

    def stop(self) -> None:
        """Answer what has been taken on, then let the port go."""
        self._stopped.set()
        self._starting.join(60)
        if self._listener is not None:
            self._listener.stop()
        logging.shutdown()

    def _start(self) -> None:
        waits = False
        while not self._stopped.is_set():
            try:
                sock = listen(self._settings.host, ports(self._settings))
            except ServeError as error:
                if not waits:
                    log.warning("%s; waiting for one of them", error)
                waits = True
                self._stopped.wait(RETRY_S)
                continue
            port = sock.getsockname()[1]
            log_to(log_file(self._settings, port))
            self._listener = Listener(self._app, sock, express=self._app.state.express)
            self._listener.start()
            log.info("process %s listens on %s port %s", os.getpid(), self._settings.host, port)
            return
