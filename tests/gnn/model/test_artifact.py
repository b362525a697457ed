"""A model on disk is what was saved: nothing that was edited, cut or no number is loaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gnn.errors import ModelError
from gnn.model.artifact import Artifact, load, untrained


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    untrained(("account", "merchant"), layers=1, width=8, heads=2).save(tmp_path)
    return tmp_path


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))
    return folder


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    artifact = load(saved)
    again = saved / "again"
    artifact.save(again)
    assert load(again).manifest == artifact.manifest
    assert (again / "weights.safetensors").read_bytes() == (saved / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["calibration"].update(slope=3.0),
        lambda m: m["config"].update(settle_us=1),
        lambda m: m.update(name="another"),
        lambda m: m.update(training={"frauds": 10**6}),
    ],
)
def test_a_manifest_edited_by_hand_is_refused(saved: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(ModelError, match="edited after it was written"):
        load(edited(saved, edit))


def test_a_manifest_laid_out_anew_or_of_before_it_had_a_digest_is_taken(saved: Path) -> None:
    assert load(edited(saved, lambda m: None)).roles == ("account", "merchant")
    assert load(edited(saved, lambda m: m.pop("manifest_sha256"))).roles == ("account", "merchant")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    artifact = untrained(("account", "merchant"), layers=1, width=8, heads=2)
    with torch.no_grad():
        next(artifact.net.parameters()).view(-1)[0] = value
    artifact.save(tmp_path)
    with pytest.raises(ModelError, match="no numbers"):
        load(tmp_path)


def test_a_calibration_that_is_no_number_is_refused(tmp_path: Path) -> None:
    good = untrained(("account", "merchant"), layers=1, width=8, heads=2)
    calibration = type(good.calibration)(float("nan"), 0.0)
    Artifact(good.config, good.net, calibration).save(tmp_path)
    with pytest.raises(ModelError, match="calibration"):
        load(tmp_path)


def test_weights_of_another_model_are_refused(saved: Path, tmp_path: Path) -> None:
    untrained(("account", "merchant"), seed=1, layers=1, width=8, heads=2).save(tmp_path / "other")
    (saved / "weights.safetensors").write_bytes((tmp_path / "other/weights.safetensors").read_bytes())
    with pytest.raises(ModelError, match="SHA-256 differs"):
        load(saved)
