"""The service's settings: arguments first, then the environment (RINGWATCH_*), then defaults."""

import os
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from serve.errors import ServeError

PREFIX = "RINGWATCH_"


class Settings(BaseModel):
    """Everything that can be set.

    Keys are read from RINGWATCH_API_KEYS alone, separated by commas, and are never shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: Path
    journal: Path = Path("var/journal.sqlite")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1024, le=65535)
    replicas: int = Field(1, ge=1, le=64)
    device: str = "auto"
    insecure: bool = False
    api_keys: tuple[SecretStr, ...] = ()
    challenge: float = Field(0.05, ge=0, le=1)
    review: float = Field(0.2, ge=0, le=1)
    decline: float = Field(0.6, ge=0, le=1)
    deadline_ms: float = Field(2_000, gt=0)  # a caller that asks for none waits no longer than this
    queue_rows: int = Field(20_000, ge=1)  # payments and labels that may wait; more are turned away at once
    batch_rows: int = Field(4_096, ge=1)  # of one micro-batch
    max_items: int = Field(10_000, ge=1)  # of one call
    max_body: int = Field(16 << 20, ge=1)  # bytes
    max_lag: int = Field(10_000, ge=0)  # events of the journal a replica may be behind and still be ready
    max_future_s: float = Field(86_400, ge=0)  # how far ahead of the wall clock a timestamp may be
    # Rows of the graph's buffer, at least; 0: as many as a model that joins late needs to be exact (`late_capacity`).
    capacity: int = Field(0, ge=0)

    cuda_memory: float | None = Field(None, gt=0)  # GiB of a GPU for one replica; needed where replicas share one
    cuda_wait_ms: float = Field(500, gt=0)  # a GPU that has not answered for so long is taken for gone

    snapshots: Path | None = None  # folder; beside the journal if not given
    snapshot_every: int = Field(1_000_000, ge=0)  # events between snapshots; 0 makes none

    @property
    def snapshot_folder(self) -> Path:
        """Where snapshots are kept."""
        return self.snapshots or self.journal.with_suffix(".snapshots")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.challenge <= self.review <= self.decline:
            raise ValueError("thresholds must rise: challenge <= review <= decline")
        if not self.insecure and not self.api_keys:
            raise ValueError("set RINGWATCH_API_KEYS to one or more keys, or give --insecure to ask for none")
        return self

    @classmethod
    def from_environment(cls, **given: Any) -> Self:
        """Settings from arguments and the environment.

        Raises:
            ServeError: A value is out of range or contradicts another.
        """
        found: dict[str, Any] = {}
        for name in cls.model_fields:
            if name != "api_keys" and (text := os.environ.get(PREFIX + name.upper())) is not None:
                found[name] = text
        found["api_keys"] = tuple(k for k in os.environ.get(PREFIX + "API_KEYS", "").split(",") if k)
        try:
            return cls.model_validate({**found, **given})
        except ValidationError as error:
            reasons = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
            raise ServeError("; ".join(reasons)) from None
