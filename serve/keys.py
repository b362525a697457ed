"""Named keys with scopes: who may call what, and in whose name an act is kept.

Keys live in one JSON file, hashed, mode 0600. A scoring replica and the console read the same file, and take up a
change within a second: revoking needs no restart. It is no table of the cases' database, since a replica must not need,
or wait for, a database that only investigators use.

A key is 256 random bits, so one SHA-256 of it is enough: nothing that is slow on purpose (scrypt, Argon2) makes random
bits harder to guess, and it would cost a replica more than a score.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from serve.errors import ServeError

log = logging.getLogger("ringwatch")
SCOPES: Final = ("score", "label", "mandate", "investigate", "admin")
PLAIN_SCOPES: Final = frozenset(("score", "label"))
"""What keys without a name may do (RINGWATCH_API_KEYS): what they could before there were scopes."""
PREFIX: Final = "rw_"  # tells secret scanners and people what it is
MAX_NAME: Final = 64
EVERY_S: Final = 1.0  # between two looks at the file


@dataclass(frozen=True)
class Key:
    """A key on file.

    Attributes:
        name: Who it is: acts are kept under it. A name is given once, ever.
        sha256: Of the key, in hexadecimal.
        scopes: What it may do.
        created_at: ISO 8601.
        revoked_at: ISO 8601; None while it is good.
    """

    name: str
    sha256: str
    scopes: tuple[str, ...]
    created_at: str
    revoked_at: str | None = None


@dataclass(frozen=True)
class Holder:
    """Who brings a key.

    Attributes:
        name: Theirs.
        scopes: What they may do.
        digest: SHA-256 of the key.
    """

    name: str
    scopes: frozenset[str]
    digest: bytes

    @property
    def mark(self) -> str:
        """What tells this key from a later one of the same name, and says nothing of it: for a session's cookie."""
        return hashlib.sha256(self.digest).hexdigest()[:16]

    def may(self, *scopes: str) -> bool:
        """Whether one of the scopes is theirs; `admin` has all."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)


class KeyRing:
    """The keys that are good now. Any thread may ask.

    Args:
        plain: Keys without a name; they have `PLAIN_SCOPES`.
        file: Of named keys; read again when it changes.

    Raises:
        ServeError: The file cannot be read. Later, one that is gone has no keys; one that is damaged changes nothing,
            and is logged.
    """

    def __init__(self, plain: Sequence[bytes] = (), file: Path | None = None) -> None:
        self._plain = tuple(Holder("api key", PLAIN_SCOPES, hashlib.sha256(key).digest()) for key in plain)
        self._file, self._seen, self._looked = file, _state(file), time.monotonic()
        self._holders = self._plain if file is None else (*self._plain, *_holders(read_keys(file)))

    def find(self, key: bytes) -> Holder | None:
        """Whose key it is; None if it is nobody's."""
        self._look()
        # Every key is compared, in constant time, so that time tells nothing of how near a guess was.
        digest, found = hashlib.sha256(key).digest(), None
        for holder in self._holders:
            if hmac.compare_digest(digest, holder.digest):
                found = holder
        return found

    def of(self, headers: Mapping[bytes, bytes]) -> Holder | None:
        """Who sends a request: the key of its header `Authorization: Bearer ...`.

        Args:
            headers: Names in lower case.
        """
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        return self.find(key.strip()) if scheme.lower() == b"bearer" else None

    def still(self, name: str, mark: str) -> Holder | None:
        """The holder of that name, if their key is good and still the one with this mark."""
        self._look()
        for holder in self._holders:
            if holder.name == name and hmac.compare_digest(mark.encode(), holder.mark.encode()):
                return holder
        return None

    def _look(self) -> None:
        """Read the file again if it is another one than it was."""
        if self._file is None or time.monotonic() - self._looked < EVERY_S:
            return
        self._looked = time.monotonic()
        state = _state(self._file)
        if state == self._seen:
            return
        try:
            found = () if state is None else _holders(read_keys(self._file))
        except ServeError as error:
            log.error("keys stay as they were: %s", error)
        else:
            self._holders = (*self._plain, *found)
        self._seen = state


def add_key(file: Path, name: str, scopes: Sequence[str]) -> str:
    """Make a key; returns it. It is nowhere else: what is kept is its hash.

    Raises:
        ServeError: The name is taken or no name, a scope is none, or the file cannot be written.
    """
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > MAX_NAME:
        raise ServeError(f"a key's name has 1 to {MAX_NAME} characters that can be seen, and no blank around it")
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        said = f"no scope {unknown[0]!r}" if unknown else "a key needs a scope"
        raise ServeError(f"{said}; there are {', '.join(SCOPES)}")
    key = PREFIX + secrets.token_urlsafe(32)
    with _changing(file) as keys:
        for old in keys:
            if old.name == name:
                state = f"was revoked at {old.revoked_at}" if old.revoked_at else "is in use"
                raise ServeError(f"the name {name!r} {state}: acts are kept under it, so choose another")
        digest = hashlib.sha256(key.encode()).hexdigest()
        keys.append(Key(name, digest, tuple(dict.fromkeys(scopes)), _now()))
    return key


def revoke_key(file: Path, name: str) -> None:
    """Make a key good for nothing; its name stays on file.

    Raises:
        ServeError: There is no such key, or it is revoked already.
    """
    with _changing(file) as keys:
        for i, old in enumerate(keys):
            if old.name == name:
                if old.revoked_at:
                    raise ServeError(f"the key {name!r} was revoked at {old.revoked_at}")
                keys[i] = Key(old.name, old.sha256, old.scopes, old.created_at, _now())
                return
        raise ServeError(f"no key named {name!r} in {file}")


def read_keys(file: Path) -> list[Key]:
    """All keys on file, revoked ones too.

    Raises:
        ServeError: It cannot be read, or is no file of keys.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        keys = [Key(**{**one, "scopes": tuple(one["scopes"])}) for one in found["keys"]]
        for key in keys:
            if len(bytes.fromhex(key.sha256)) != hashlib.sha256().digest_size:
                raise ValueError("a hash of another length")
        return keys
    except OSError as error:
        raise ServeError(
            f"cannot read the keys in {file}: {error.strerror}; 'ringwatch keys add' makes the file"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ServeError(f"{file} is no file of keys: 'ringwatch keys add' makes one") from None


def _holders(keys: Sequence[Key]) -> tuple[Holder, ...]:
    return tuple(Holder(k.name, frozenset(k.scopes), bytes.fromhex(k.sha256)) for k in keys if k.revoked_at is None)


@contextmanager
def _changing(file: Path) -> Iterator[list[Key]]:
    """The keys on file, to be changed; written as a whole, and by one process at a time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        raise ServeError(f"cannot write {file}: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = read_keys(file) if file.exists() else []
        yield keys
        _write(file, {"keys": [asdict(key) for key in keys]})
    finally:
        os.close(folder)


def _write(file: Path, content: object) -> None:
    """Put a whole new file in place of the old one, readable by its owner alone."""
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(content, out, indent=1, ensure_ascii=False)
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, file)
    except OSError as error:
        raise ServeError(f"cannot write {file}: {error.strerror}") from None


def _state(file: Path | None) -> tuple[int, int, int] | None:
    """What tells one content of a file from another, without reading it."""
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
