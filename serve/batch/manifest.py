"""What a run of re-scoring has done so far, on disk: the one thing that decides what is done.

A file of scores counts once the manifest names it. Files are written under other names and renamed, and the manifest
after them, so a run that is killed at any byte has a manifest that is true and perhaps some files that no one names:
these are removed when the same command goes on.
"""

import json
import os
import re
import shutil
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from serve.errors import ServeError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
SUCCESS: Final = "_SUCCESS"
STATE: Final = "_state"
_OWN: Final = re.compile(r"\.?part-\d{12}\.parquet(\.tmp)?")
_WORDS: Final = {
    "model": "the model",
    "input": "the input",
    "decisions": "the thresholds",
    "output": "what is written",
    "since": "the run that it goes on from (--since)",
}


@dataclass(frozen=True)
class Block:
    """Rows [first, last) that are done.

    Attributes:
        first: First row.
        last: One past the last.
        parts: Files of scores, with `path`, `rows`, `bytes` and `crc32` of each.
        kept: Bytes and checksum of the file that keeps the block's keys and values.
    """

    first: int
    last: int
    parts: list[dict[str, Any]]
    kept: dict[str, int]


@dataclass
class Manifest:
    """What was asked for, and what is done.

    Attributes:
        asked: Model, input, thresholds and shape of the output: all that the scores depend on.
        begins: Row and journal offset that the run began with; not 0 where it goes on from another run.
        blocks: Done, in order of their rows.
        facts: Of a run that is done: who scored, how many events it had read, and what it had read up to its last
            payment (`serve.batch.source.Passed`), for a run that goes on from it.
        before: Blocks of the run that this one goes on from, as far as their keys and values are in the window.
    """

    asked: dict[str, Any]
    begins: dict[str, int] = field(default_factory=lambda: {"row": 0, "offset": 0})
    blocks: list[Block] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    before: list[Block] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """One past the last row that is done."""
        return self.blocks[-1].last if self.blocks else self.begins["row"]


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, None where it has none.

    Raises:
        ServeError: It is damaged, or of another version.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ServeError(
                f"{path} has format {found['format']}, and this version reads {FORMAT}: take another --out"
            )
        blocks, before = ([Block(**block) for block in found.get(name, ())] for name in ("blocks", "before"))
        return Manifest(found["asked"], found["begins"], blocks, found["facts"], before)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServeError(f"{path} is damaged ({error!r}): take another --out, or --restart") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the one before, durably."""
    content = {"format": FORMAT, **asdict(manifest)}
    replace_file(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under another name, flush it to disk, and rename it."""
    staged = path.with_name(f".{path.name}.tmp")
    with staged.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    staged.replace(path)


def difference(before: dict[str, Any], now: dict[str, Any], within: str = "") -> str | None:
    """The first thing in which two requests differ, in words; None where they are alike."""
    for key in sorted({*before, *now}):
        name = f"{within}{key}"
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            return difference(old, new, f"{_WORDS.get(name, name)}: ")
        return f"{_WORDS.get(name, name)} was {_short(old)}, and is {_short(new)} now"
    return None


def checksum(path: Path) -> dict[str, int]:
    """Size and CRC-32 of a file."""
    crc = size = 0
    with path.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
    return {"bytes": size, "crc32": crc}


def remove_orphans(folder: Path, manifest: Manifest) -> list[str]:
    """Remove files of scores that a killed run left, and that the manifest does not name; returns their paths."""
    named = {part["path"] for block in manifest.blocks for part in block.parts}
    gone = []
    for day in folder.glob("date=*"):
        for path in day.iterdir():
            name = path.relative_to(folder).as_posix()
            if _OWN.fullmatch(path.name) and name not in named:
                path.unlink()
                gone.append(name)
        if not any(day.iterdir()):
            day.rmdir()
    return sorted(gone)


def check_parts(folder: Path, manifest: Manifest) -> None:
    """Raise where a file that the manifest names is missing or has another size.

    Raises:
        ServeError: One is.
    """
    for block in manifest.blocks:
        for part in block.parts:
            path = folder / part["path"]
            size = path.stat().st_size if path.is_file() else -1
            if size != part["bytes"]:
                what = "is missing" if size < 0 else f"has {size:,} bytes and not {part['bytes']:,}"
                raise ServeError(f"{path} {what}: somebody changed the scores of this run; use --restart to begin anew")


def remove_run(folder: Path) -> None:
    """Remove everything that a run wrote into a folder, and nothing else."""
    remove_orphans(folder, Manifest({}))
    for name in (MANIFEST, f".{MANIFEST}.tmp", SUCCESS, "summary.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / STATE, ignore_errors=True)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
