"""How the console runs."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serve.errors import ServeError

SHORTEST: Final = 32  # characters of a secret


@dataclass(frozen=True)
class ConsoleSettings:
    """How the console runs.

    Attributes:
        secret: Signs the session's cookie; `read_secret` makes or reads one.
        https: Whether browsers reach it by HTTPS: the cookie is then never sent without.
        insecure: Nobody has to sign in; acts are kept under `somebody`. For a trial on one's own
            machine: only requests to 127.0.0.1 and localhost are answered then.
        hours: How long a session lasts.
        somebody: The name of whoever acts where nobody signs in.
    """

    secret: str = field(repr=False)
    https: bool = False
    insecure: bool = False
    hours: float = 12.0
    somebody: str = "investigator"

    def __post_init__(self) -> None:
        if len(self.secret) < SHORTEST:
            raise ServeError(f"the console's secret needs at least {SHORTEST} characters")


def read_secret(file: Path) -> str:
    """The secret in a file; where there is no file, one is made with a new secret, readable by its owner alone.

    Raises:
        ServeError: It can be neither read nor made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return file.read_text(encoding="utf-8").strip()
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(secrets.token_urlsafe(48) + "\n")
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"the console's secret in {file}: {getattr(error, 'strerror', None) or 'no text'}") from None
