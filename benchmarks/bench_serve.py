"""One score over HTTP beside a POST that does nothing, through the same Ray Serve path, in turn in one run.

Example: python -m benchmarks.bench_serve --requests 2000
"""

import argparse
import http.client
import json
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.report import Figure, show, write
from gnn.model.artifact import untrained
from serve.cli.demo import service


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    n = parser.parse_args().requests
    times: dict[str, list[float]] = {"score": [], "noop": []}
    stages: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        untrained(("account", "merchant", "device")).save(folder / "model")
        with service(folder / "model", folder / "journal.sqlite", "--insecure") as client:
            connection = http.client.HTTPConnection(urlsplit(client.url).netloc)
            rng = np.random.default_rng(0)
            for i in range(n):
                payment = {
                    "transaction_id": f"b{i}",
                    "timestamp": 1_760_000_000_000_000 + i * 1_000_000,
                    "account_id": f"a{rng.integers(500)}",
                    "merchant_id": f"m{rng.integers(50)}",
                    "device_id": f"d{rng.integers(400)}",
                    "amount": int(rng.integers(100_000)),
                    "currency": "EUR",
                }
                body = json.dumps(payment).encode()
                for what, path in (("noop", "/v1/noop"), ("score", "/v1/score")):
                    begin = time.perf_counter()
                    connection.request("POST", path, body, {"content-type": "application/json"})
                    answer = connection.getresponse().read()
                    times[what].append((time.perf_counter() - begin) * 1e3)
                for stage, value in json.loads(answer)["timings"].items():
                    stages.setdefault(stage, []).append(value)
    p50 = {what: float(np.median(values[n // 10 :])) for what, values in times.items()}
    figures = {
        "score_over_noop_p50": Figure(p50["score"] / p50["noop"], "ratio", 5, "lower", {"noop p50, ms": p50["noop"]}),
        "score_p50": Figure(p50["score"], "ms", None, "lower"),
        "score_p99": Figure(
            float(np.quantile(times["score"], 0.99)),
            "ms",
            None,
            "lower",
            {"noop p99, ms": float(np.quantile(times["noop"], 0.99))},
        ),
        **{f"stage_{s}_p50": Figure(float(np.median(v)), "ms", None, "lower") for s, v in stages.items()},
    }
    write("serve", figures)
    show("serve", figures)


if __name__ == "__main__":
    main()
