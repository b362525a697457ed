"""A trained model on disk: `weights.safetensors` and `manifest.json`. Nothing in it is ever executed."""

import hashlib
import importlib.metadata
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch

from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from gnn.errors import ModelError
from gnn.model.calibration import PlattScaling
from gnn.model.network import ModelConfig, RingwatchNet
from gnn.model.trees import random_trees, read_trees
from graph.dag.features import feature_names
from graph.dag.memory import head_names

FORMAT = 2
HEAD = "head."
OWN_DIGEST = "manifest_sha256"  # a key of the manifest; those of earlier versions lack it


@dataclass(frozen=True)
class Artifact:
    """A model as the service runs it.

    Attributes:
        config: Shape of the network.
        net: The network, on the CPU, in evaluation mode.
        calibration: From log-odds to probability.
        facts: What is known of its making: training window, metrics, seeds.
        sha256: Of the weights file.

    Example:
        `gnn.train.trainer.train` makes one from a history; here it has random weights instead.

        >>> import tempfile
        >>> artifact = untrained(("account", "merchant"), layers=1, width=8, heads=2)
        >>> artifact.roles
        ('account', 'merchant')
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     artifact.save(folder)
        ...     again = load(folder)  # checked: digest, schema, features
        >>> again.version == artifact.version == artifact.sha256[:12]
        True
        >>> round(float(again.calibration.probability(0.0)), 2)  # log-odds of 0, not yet calibrated
        0.5
    """

    config: ModelConfig
    net: RingwatchNet
    calibration: PlattScaling
    facts: dict[str, Any] = field(default_factory=dict)
    name: str = "ringwatch-dag-attention"

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the graph the model reads."""
        return self.config.roles

    @property
    def _bytes(self) -> bytes:
        tensors = {name: tensor.contiguous() for name, tensor in self.net.state_dict().items()}
        head = {f"{HEAD}{name}": torch.from_numpy(array.copy()) for name, array in self.net.trees._asdict().items()}
        return safetensors_torch.save(tensors | head)

    @cached_property
    def sha256(self) -> str:
        """Digest of the weights file."""
        return hashlib.sha256(self._bytes).hexdigest()

    @property
    def version(self) -> str:
        """Names this model in every answer: the beginning of the digest, and how keys and values are kept."""
        return self.sha256[:12] + ("" if self.config.cache == "float32" else f"-{self.config.cache}")

    @property
    def manifest(self) -> dict[str, Any]:
        """Everything but the weights."""
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "code_version": _code_version(),
            "config": asdict(self.config),
            "features": list(feature_names(self.roles)),
            "beside": list(head_names(self.roles)),
            "schema": {
                "transactions": {f.name: str(f.type) for f in TRANSACTION_SCHEMA},
                "labels": {f.name: str(f.type) for f in LABEL_SCHEMA},
            },
            "calibration": asdict(self.calibration),
            "weights_sha256": self.sha256,
            **self.facts,
        }

    def save(self, folder: Path | str) -> None:
        """Write the artifact; the manifest last, so that a folder with a manifest is whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.safetensors").write_bytes(self._bytes)
        manifest = json.loads(json.dumps(self.manifest, default=str))
        manifest[OWN_DIGEST] = _manifest_digest(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def load(folder: Path | str) -> Artifact:
    """Read an artifact and check it against its manifest and this code.

    Raises:
        ModelError: A file is missing, damaged or was edited, the weights are not those of the manifest or are no
            numbers, or the features are not those that this version computes.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        blob = (folder / "weights.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"no readable model in {folder}: {error}") from error
    try:
        if manifest["format"] != FORMAT:
            raise ModelError(f"{folder}: format {manifest['format']} is not {FORMAT}")
        if OWN_DIGEST in manifest and manifest.pop(OWN_DIGEST) != _manifest_digest(manifest):
            raise ModelError(f"{folder}: manifest.json was edited after it was written: train, or save the model, anew")
        if hashlib.sha256(blob).hexdigest() != manifest["weights_sha256"]:
            raise ModelError(
                f"{folder}: weights.safetensors is not the file that manifest.json names (SHA-256 differs)"
            )
        config = ModelConfig(**{**manifest["config"], "roles": tuple(manifest["config"]["roles"])})
        # Trees of a model from before there was anything beside the features read nothing of it.
        beside = list(head_names(config.roles))
        if manifest["features"] != list(feature_names(config.roles)) or manifest.get("beside", beside) != beside:
            raise ModelError(
                f"{folder}: trained on other features than this version of Ringwatch computes; train it again"
            )
        net = RingwatchNet(config)
        tensors = safetensors_torch.load(blob)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not _are_numbers(name, tensor):
                raise ModelError(f"{folder}: the weights {name} hold values that are no numbers: the training diverged")
        net.trees = read_trees(
            {n.removeprefix(HEAD): tensors.pop(n).numpy() for n in list(tensors) if n.startswith(HEAD)},
            config.inputs + config.beside,
        )
        net.load_state_dict(tensors)
        calibration = PlattScaling(**manifest["calibration"])
        if not (math.isfinite(calibration.slope) and math.isfinite(calibration.intercept)):
            raise ModelError(f"{folder}: the calibration of manifest.json is no number")
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: manifest.json and weights.safetensors do not fit: {error}") from error
    facts = {k: v for k, v in manifest.items() if k in ("training", "metrics", "seed")}
    net.eval()
    net.requires_grad_(False)
    return Artifact(config, net, calibration, facts, manifest["name"])


def _manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its own digest, whatever its layout."""
    held = {key: value for key, value in manifest.items() if key != OWN_DIGEST}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def _are_numbers(name: str, tensor: torch.Tensor) -> bool:
    """Whether all values can be reckoned with. A threshold of a tree may be infinite: all goes to one side then."""
    good = ~torch.isnan(tensor) if name == f"{HEAD}threshold" else torch.isfinite(tensor)
    return bool(good.all())


def _code_version() -> str:
    try:
        return importlib.metadata.version("ringwatch")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed, as on a GPU machine
        return "uninstalled"


def untrained(roles: tuple[str, ...] = ("account", "merchant", "device"), seed: int = 0, **shape: Any) -> Artifact:
    """Random weights of any shape: what tests and benchmarks of everything but quality need."""
    torch.manual_seed(seed)
    net = RingwatchNet(ModelConfig(roles, **shape), seed).eval()
    net.requires_grad_(False)
    with torch.no_grad():
        net.mean.uniform_(-1, 3)
        net.scale.uniform_(0.2, 1)
        if net.config.cache != "float32":
            for number in range(net.config.layers):
                net.layer(number).kv_scale.uniform_(0.02, 0.06)
    net.trees = random_trees(net.config.inputs, seed, beside=net.config.beside)
    return Artifact(net.config, net, PlattScaling(1.0, 0.0))
