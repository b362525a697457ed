"""The life of a policy: the event that begins each part of it, and who decides as of a place in the journal."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

import pyarrow as pa

from data.journal.protocol import SCHEMAS, Kind
from serve.decide.policies.model import PolicyFile

MOST_CONTENT: Final = 1 << 18  # characters of a policy in a journal


class PolicyState(StrEnum):
    """What a policy does from an event on."""

    DRAFT = "draft"
    """It is kept, and decides nothing."""
    SHADOW = "shadow"
    """It is asked about every payment and counted; answers do not show it."""
    ROLLOUT = "rollout"
    """It decides for a share of the accounts."""
    LIVE = "live"
    """It decides for every account."""
    ROLLED_BACK = "rolled_back"
    """It decides no more: what decided before it does again."""


def now_us() -> int:
    """This moment, UTC microseconds."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    """One row of `Kind.POLICY`.

    Attributes:
        name: Of the policy.
        version: Its name and the digest of its text.
        state: What it does from here on.
        share: Of the accounts, above 0 and up to 1; 1 but for a rollout.
        content: Its text; empty where it is rolled back.
        by: Who did it.
        at: When, UTC microseconds.
    """

    name: str
    version: str
    state: str
    share: float
    content: str
    by: str
    at: int

    @classmethod
    def of(cls, file: PolicyFile, state: PolicyState, share: float = 1.0, by: str = "") -> "PolicyEvent":
        """The event that gives a policy a state, now."""
        return cls(file.name, file.version, state, share, file.text, by, now_us())

    def batch(self) -> pa.RecordBatch:
        """The row."""
        row = {name: getattr(self, name) for name in SCHEMAS[Kind.POLICY].names}
        return pa.RecordBatch.from_pylist([row], SCHEMAS[Kind.POLICY])

    @classmethod
    def rows(cls, batch: pa.RecordBatch) -> "list[PolicyEvent]":
        """The events of a batch of `Kind.POLICY`."""
        columns = [
            column.cast(pa.int64()).to_pylist() if pa.types.is_timestamp(column.type) else column.to_pylist()
            for column in batch.columns
        ]
        return [cls(*row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class Roster:
    """Who decides as of a place in the journal; policies by their versions.

    Attributes:
        live: Decides; None where no policy was ever live.
        rollout: Decides for a share of the accounts in its place; None without one.
        share: That share.
        shadows: Asked and counted.
        before: Those that were live before, the newest last.
    """

    live: str | None = None
    rollout: str | None = None
    share: float = 0.0
    shadows: tuple[str, ...] = ()
    before: tuple[str | None, ...] = ()

    def after(self, event: PolicyEvent) -> "Roster":
        """Who decides after an event."""
        version = event.version
        shadows = tuple(v for v in self.shadows if v != version)
        rollout = None if self.rollout == version else self.rollout
        rest = replace(self, shadows=shadows, rollout=rollout, share=self.share if rollout else 0.0)
        if event.state == PolicyState.SHADOW:
            return replace(rest, shadows=(*shadows, version))
        if event.state == PolicyState.ROLLOUT:
            return replace(rest, rollout=version, share=event.share)
        if event.state == PolicyState.LIVE and self.live != version:
            return replace(rest, live=version, before=(*self.before, self.live))
        if event.state == PolicyState.ROLLED_BACK and self.live == version and self.before:
            return replace(rest, live=self.before[-1], before=self.before[:-1])
        return rest

    @property
    def current(self) -> tuple[str, ...]:
        """All that are asked, those that decide first."""
        deciding = (v for v in (self.live, self.rollout) if v is not None)
        return (*deciding, *self.shadows)

    def state_of(self, version: str) -> str:
        """What a policy does."""
        if version == self.live:
            return PolicyState.LIVE
        if version == self.rollout:
            return PolicyState.ROLLOUT
        return PolicyState.SHADOW if version in self.shadows else ""

    def to_roll_back(self) -> str | None:
        """What a rollback ends: a rollout, else what is live; None where there is neither."""
        return self.rollout or self.live


def in_share(name: str, account: str, share: float) -> bool:
    """Whether an account is among the share of accounts that a policy is rolled out to.

    It depends on the policy's name and not on its version: accounts stay in when the share grows.
    """
    digest = blake2b(f"{name}\x1f{account}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def plain(event: PolicyEvent, offset: int) -> Mapping[str, Any]:
    """An event and its place as JSON."""
    return {"offset": offset, **{name: getattr(event, name) for name in PolicyEvent.__slots__}}
