"""Ray replaces a replica whose GPU failed, and whoever asks meanwhile gets an answer."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gnn.model.artifact import untrained
from tests.cuda_host.host import GXX
from tests.serve.http.test_service import ROLES

ROOT = Path(__file__).resolve().parents[3]
NEEDS_GXX = pytest.mark.skipif(GXX is None, reason="no g++ here to compile the CUDA sources for the CPU")

SERVICE = """
    import json
    import os
    import sys
    import time
    from pathlib import Path

    from serve.http.deployment import deployment, environment
    from serve.settings import Settings

    folder, port, fault = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    settings = Settings(
        model=folder / "model", journal=folder / "journal.sqlite", insecure=True, port=port, capacity=1 << 13,
        cuda_wait_ms=2000,
    )
    os.environ.update(environment())
    import httpx
    import ray
    from ray import serve as ray_serve

    class Failing:  # a GPU that fails for good at the sixth payment
        device_name, ready, lost = "cuda", True, False

        def __init__(self, cpu):
            self.cpu, self.cache = cpu, cpu.cache

        def __getattr__(self, name):
            return getattr(self.cpu, name)

        def score(self, first, last):
            if last > 5:
                self.lost, self.ready = True, False
                raise RuntimeError("cudaErrorIllegalAddress")
            return self.cpu.score(first, last)

    def hung(cpu, settings):  # a GPU with a kernel that never returns, at the sixth payment
        from gnn.score.cuda_scorer import CudaScorer
        from tests.cuda_host.streams import StreamDevice

        device = StreamDevice()
        device.stuck = lambda name: name == "attend_one" and cpu.state.store.rows > 5
        return CudaScorer(cpu, device, buckets=(1,), patience_s=settings.cuda_wait_ms / 1e3)

    def replica(settings):
        from gnn.model.artifact import load
        from gnn.score.cpu_scorer import CpuScorer
        from serve.replica.replica import Replica

        first = not (folder / "begun").exists()  # the replacement has a GPU that works
        (folder / "begun").touch()

        def scorers(model, state):
            cpu = CpuScorer(model, state)
            broken = hung(cpu, settings) if fault == "hung" else Failing(cpu)
            return [broken, cpu] if first else [cpu]

        return Replica(load(settings.model), settings, scorers)

    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    ray_serve.start(proxy_location="Disabled")
    ray_serve.run(deployment(settings, 0.0, replica), name="ringwatch", route_prefix=None)
    answers, broken, begin = [], [], time.monotonic()
    strict = {"prefer": "handling=strict", "x-ringwatch-deadline-ms": "9000"}
    with httpx.Client(timeout=10) as client:
        while time.monotonic() - begin < 120 and len([a for a in answers if not a["degraded"]]) < 10:
            body = {
                "transaction_id": f"p{len(answers)}", "timestamp": "2026-01-02T03:04:05Z", "account_id": "a1",
                "merchant_id": "m1", "amount": 100, "currency": "EUR",
            }
            try:
                answer = client.post(f"http://127.0.0.1:{port}/v1/score", json=body, headers=strict)
            except httpx.ConnectError:
                pass  # the old one has gone, the new one is on its way to the same port
            except httpx.HTTPError as error:
                broken.append(repr(error))
            else:
                if answer.status_code == 200:
                    answers.append(answer.json())
                elif answer.status_code != 503:  # not ready yet, or about to go
                    broken.append(answer.text)
            time.sleep(0.05)
    (folder / "found.json").write_text(json.dumps({"answers": answers, "broken": broken}))
    ray_serve.shutdown()
    ray.shutdown()
"""


@pytest.mark.ray
@pytest.mark.parametrize("fault", ["failing", pytest.param("hung", marks=NEEDS_GXX)])
def test_ray_replaces_a_replica_that_lost_its_gpu_and_no_request_is_lost(tmp_path: Path, fault: str) -> None:
    untrained(ROLES, neighbours=4, window_rows=1 << 12).save(tmp_path / "model")
    script = tmp_path / "service.py"
    script.write_text(textwrap.dedent(SERVICE))
    made = subprocess.run(
        [sys.executable, script, tmp_path, str(21_000 + os.getpid() % 5000), fault],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["broken"] == []
    who = [(a["scored_by"], a["degraded"]) for a in found["answers"]]
    assert who[:5] == [("cuda", False)] * 5
    assert who[5] == ("cpu", True)
    assert who[-1] == ("cpu", False)  # by the replacement
    assert sorted(who, key=lambda w: (w[0] != "cuda", not w[1])) == who  # one after the other
    assert [a["journal_offset"] for a in found["answers"]] == list(range(len(who)))
