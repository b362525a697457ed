"""The RayJob in the documents has fields that a RayJob has (KubeRay's API reference, ray.io/v1)."""

import re
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).resolve().parents[3] / "docs" / "batch.md"
JOB = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
CLUSTER = {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"rayStartParams", "template"}
WORKERS = GROUP | {"groupName", "replicas", "minReplicas", "maxReplicas"}
CONTAINER = {"name", "image", "resources", "volumeMounts"}


def test_the_manifest_is_a_ray_job_whose_pods_share_a_volume():
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    job: dict[str, Any] = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) == JOB
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == CLUSTER
    [workers] = cluster["workerGroupSpecs"]
    assert set(cluster["headGroupSpec"]) == GROUP
    assert set(workers) == WORKERS
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        [container] = pod["containers"]
        assert set(container) == CONTAINER
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert spec["entrypoint"].startswith("ringwatch rescore ")
