"""The service's settings: arguments first, then the environment (RINGWATCH_*), then defaults."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from data.errors import JournalError
from serve.errors import ServeError

PREFIX = "RINGWATCH_"


class Settings(BaseSettings):
    """Everything that can be set: `port` by an argument or by RINGWATCH_PORT.

    Keys are read from RINGWATCH_API_KEYS, separated by commas or line breaks, or from the file that
    RINGWATCH_API_KEYS_FILE names. They are never shown.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", protected_namespaces=())

    model: Path
    journal: Path = Path("var/journal.sqlite")  # a file, or kafka://host:port/topic: then the file is its local copy
    journal_topic: str | None = None  # kafka://host:port/topic, where `journal` names the local copy
    kafka_options: Path | None = None  # file of librdkafka's settings, `name=value` on each line: logins, certificates
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1024, le=65535)
    replicas: int = Field(1, ge=1, le=64)
    device: str = "auto"
    insecure: bool = False
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    api_keys_file: Path | None = None  # where the keys are, in place of `api_keys`; read once, at the start
    keys_file: Path | None = None  # of named keys with scopes (`serve.keys`), beside those; read again when it changes
    challenge: float = Field(0.05, ge=0, le=1)
    review: float = Field(0.2, ge=0, le=1)
    decline: float = Field(0.6, ge=0, le=1)
    deadline_ms: float = Field(50, gt=0)  # for one payment, where its caller names none (x-ringwatch-deadline-ms)
    bulk_deadline_ms: float = Field(30_000, gt=0)  # for a call of many payments, or of labels
    queue_rows: int = Field(20_000, ge=1)  # payments and labels that may wait; more are turned away at once
    batch_rows: int = Field(4_096, ge=1)  # of one micro-batch
    max_items: int = Field(10_000, ge=1)  # of one call
    max_body: int = Field(16 << 20, ge=1)  # bytes
    max_bodies: int = Field(256 << 20, ge=1)  # bytes of all bodies in hand; further ones are turned away
    open_metrics: bool = False  # whether /metrics asks for no key: for a scraper that cannot send one
    max_lag: int = Field(10_000, ge=0)  # events of the journal a replica may be behind and still be ready
    max_future_s: float = Field(300, ge=0)  # how far ahead of the wall clock a timestamp may be: clocks differ
    answers_days: float = Field(30, ge=0)  # how long answers are kept for payments that are sent again, by their time
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

    def kafka_settings(self) -> dict[str, str]:
        """What `kafka_options` holds, by name. Values may be secret: they are never shown.

        Raises:
            ServeError: The file cannot be read, or a line is no setting.
        """
        if (path := self.kafka_options) is None:
            return {}
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ServeError(f"{PREFIX}KAFKA_OPTIONS: cannot read {path}: {error}") from None
        found: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            name, equals, value = line.partition("=")
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if not equals or not name.strip():
                raise ServeError(f"{PREFIX}KAFKA_OPTIONS: {path}, line {number}: write name=value")
            found[name.strip()] = value.strip()
        return found

    @model_validator(mode="before")
    @classmethod
    def _topic_of_address(cls, found: dict[str, Any]) -> dict[str, Any]:
        """A journal that is an address names a topic; its local copy lies where a journal would."""
        journal = found.get("journal")
        if not isinstance(journal, (str, Path)) or not str(journal).startswith("kafka:"):
            return found
        if found.get("journal_topic"):
            raise ValueError("name the topic once: as RINGWATCH_JOURNAL or as RINGWATCH_JOURNAL_TOPIC")
        topic = str(journal)
        return {**found, "journal": Path("var") / f"{topic.rpartition('/')[2]}.sqlite", "journal_topic": topic}

    @field_validator("journal_topic")
    @classmethod
    def _is_an_address(cls, topic: str | None) -> str | None:
        if topic is None:
            return None
        from data.journal.kafka_topic import Address

        try:
            return str(Address.parse(topic))
        except JournalError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _keys_of_file(cls, found: dict[str, Any]) -> dict[str, Any]:
        if not (file := found.get("api_keys_file")):
            return found
        if found.get("api_keys"):
            raise ValueError("give either RINGWATCH_API_KEYS or RINGWATCH_API_KEYS_FILE, not both")
        try:
            return {**found, "api_keys": Path(file).read_text(encoding="utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ValueError(f"RINGWATCH_API_KEYS_FILE: cannot read {file}: {reason}") from None

    @field_validator("api_keys", mode="before")
    @classmethod
    def _one_by_one(cls, keys: object) -> object:
        """Keys from one text; blanks and line breaks around a key are no part of it."""
        if not isinstance(keys, str):
            return keys
        return tuple(key.strip() for line in keys.splitlines() for key in line.split(",") if key.strip())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.challenge <= self.review <= self.decline:
            raise ValueError("thresholds must rise: challenge <= review <= decline")
        if self.insecure:
            return self
        if not self.api_keys and self.keys_file is None:
            raise ValueError(
                "set RINGWATCH_API_KEYS to one or more keys, or RINGWATCH_KEYS_FILE to a file that "
                "'ringwatch keys add' makes, or give --insecure to ask for none"
            )
        if self.keys_file is not None and not self.keys_file.is_file():
            raise ValueError(f"RINGWATCH_KEYS_FILE: no file {self.keys_file}: 'ringwatch keys add' makes it")
        return self

    @classmethod
    def from_environment(cls, **given: Any) -> Self:
        """Settings from arguments and the environment.

        Raises:
            ServeError: A value is out of range, contradicts another, or the file of keys cannot be read.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            reasons = [
                f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors(include_input=False)
            ]
            raise ServeError("; ".join(reasons)) from None
