"""Processes of our own that import our own packages, whatever modules lie in the working directory."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]


def command(*words: str) -> list[str]:
    """The command line `ringwatch WORDS` for a child process: `-P` keeps the working directory off its path."""
    return [sys.executable, "-P", "-m", "serve", *words]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which Python finds our packages even where they are not installed."""
    found = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [str(ROOT), *(folder for folder in found if folder and folder != str(ROOT))]
    return {**os.environ, **more, "PYTHONPATH": os.pathsep.join(path)}


@contextlib.contextmanager
def safe_folder() -> Iterator[None]:
    """Start Ray inside: it puts the working directory first on its workers' path, so be in one without modules.

    Its processes stay there: paths that they are given must be absolute.
    """
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]
    with contextlib.chdir(ROOT / "ringwatch"):
        yield
