"""The service on Ray Serve: replicas placed and replaced by Ray, requests straight to the replica that scores them."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from data.journal.sqlite import SqliteJournal
from gnn.model.artifact import load
from serve.children import safe_folder
from serve.errors import ServeError
from serve.settings import Settings
from serve.terminal import out

if TYPE_CHECKING:
    from serve.replica.replica import Replica

CPUS = 0.5  # of a replica: a fraction, so that replicas start on small machines


def run_service(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Each replica listens itself (direct ingress), the first on `settings.port`, further ones on the ports after it; put
    a balancer in front of several. Ray's own default proxy listens on the loopback at a port that nothing uses.

    Args:
        settings: How to run.

    Raises:
        ModelError: There is no readable model.
        JournalError: The journal cannot be opened, or is none.
        ServeError: The address cannot be listened on.
    """
    _check(settings)
    os.environ.update(environment(settings))
    import ray
    from ray import serve as ray_serve

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = _absolute(settings)
    with safe_folder():
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        proxy = settings.port + 1000 if settings.port < 64000 else settings.port - 1000
        # gRPC and the proxy are not used; the proxy cannot be left out without the replicas' own listeners.
        ray_serve.start(http_options={"host": settings.host, "port": proxy})
        gpus = share(settings, int(ray.cluster_resources().get("GPU", 0)))
        ray_serve.run(deployment(settings, gpus), name="ringwatch", route_prefix="/")
        out.print(f"scoring on http://{settings.host}:{settings.port}", soft_wrap=True)
        stop.wait()
    finally:
        ray_serve.shutdown()
        ray.shutdown()


def _absolute(settings: Settings) -> Settings:
    """Paths that mean the same in a replica, whose working directory is another."""
    paths = {"model": settings.model, "journal": settings.journal, "snapshots": settings.snapshots}
    return settings.model_copy(update={name: path and path.resolve() for name, path in paths.items()})


def environment(settings: Settings) -> dict[str, str]:
    """What Ray reads when it is imported, here and in its workers, which inherit the environment."""
    return {
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(settings.port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(settings.port + max(8, 2 * settings.replicas)),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_DEDUP_LOGS": "0",
    }


def _check(settings: Settings) -> None:
    """Say what is wrong here and now: a replica would say it in a traceback, and be started again for ever."""
    load(settings.model)
    SqliteJournal(settings.journal).close()
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:  # Ray would quietly take the next port
            raise ServeError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}"
            ) from None


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

    def build() -> Any:  # runs in the replica: nothing of it is pickled but the settings
        from serve.http.app import build_app

        return build_app(settings, make(settings) if make is not None else None)

    @ray_serve.deployment(
        num_replicas=settings.replicas,
        max_ongoing_requests=4096,
        ray_actor_options={"num_cpus": CPUS, "num_gpus": gpus},
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=2,
    )
    @ray_serve.ingress(build)
    class ScoringReplica:
        """Holds the graph, follows the journal, scores what it is sent."""

        def check_health(self) -> None:
            """Ray replaces a replica that fails this, once it has answered what it has taken on."""
            held = getattr(self.app.state, "replica", None)  # type: ignore[attr-defined]
            if held is not None and (reason := held.unhealthy):
                raise RuntimeError(reason)

    application: Any = ScoringReplica
    return application.bind()
