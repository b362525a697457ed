"""Where data lies: files, folders, globs and addresses of object stores, as a list of files to read in turn."""

import glob
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from data.errors import DataError

STDIN: Final = "-"
Source: TypeAlias = Path | str | pa.Table  # a file or many by one name, standard input, or rows in memory already
Where: TypeAlias = Source | Sequence[Source]

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # a Path makes one slash of several
_NATIVE: Final = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")  # read by Arrow itself, where it is built in
_HIVE_NULL: Final = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Place:
    """One file.

    Attributes:
        shown: How messages name it.
        filesystem: Where it lies; None for standard input and for a table.
        path: In that file system.
        partition: Columns that its folders name (`day=2020-01-31/`), and their values.
        table: Rows that are in memory already.
    """

    shown: str
    filesystem: fs.FileSystem | None
    path: str
    partition: tuple[tuple[str, str | None], ...] = ()
    table: pa.Table | None = None


def shown(where: Where) -> str:
    """How messages name a source."""
    if isinstance(where, pa.Table):
        return "<memory>"
    if not isinstance(where, Path | str):
        return ", ".join(shown(one) for one in where)
    return "<stdin>" if str(where) == STDIN else str(where)


def is_live(where: Where) -> bool:
    """Whether a source can be read once only, as it comes."""
    return isinstance(where, Path | str) and str(where) == STDIN


def find_places(where: Where) -> list[Place]:
    """The files of a source, in order of their names (numbers by value: day2 before day10).

    Args:
        where: A file, a folder (read with all below it; names that begin with `.` or `_` are left out), a glob, an
            address such as `s3://bucket/payments/`, `-` for standard input, a table in memory, or several of these.

    Raises:
        DataError: There is nothing, or its file system cannot be reached.
    """
    if isinstance(where, pa.Table):
        return [Place(shown(where), None, "", table=where)]
    if not isinstance(where, Path | str):
        return [place for one in where for place in find_places(one)]
    if len(parts := getattr(where, "parts", ())) > 1 and not isinstance(where, Path):
        return find_places(list(parts))
    text = str(where)
    if text == STDIN:
        return [Place(shown(where), None, STDIN)]
    try:
        scheme = _SCHEME.match(text)
        if "::" in text or (scheme and not Path(text).exists()):
            slashes = "///" if text.startswith("file:") else "//"
            return _remote(text if "::" in text else _SCHEME.sub(rf"\1:{slashes}", text, count=1))
        return _local(text)
    except (OSError, pa.ArrowException, ImportError, ValueError) as error:
        raise DataError(f"cannot read {text}: {error}") from error


def _local(text: str) -> list[Place]:
    local, path = fs.LocalFileSystem(), Path(text).expanduser()
    if path.is_dir():
        return _within(local, str(path), lambda found: found)
    if not path.exists() and glob.has_magic(text):
        names = [name for name in glob.glob(str(path), recursive=True) if not Path(name).is_dir()]
        return _listed(local, names, text, str, "")
    if not path.exists():
        raise DataError(f"cannot read {text}: no such file or folder")
    return [Place(text, local, str(path), _partition(text))]


def _remote(address: str) -> list[Place]:
    head, star, _ = re.split(r"([*\[].*)", address, maxsplit=1) if re.search(r"[*\[]", address) else (address, "", "")
    base = head if not star else head[: head.rindex("/") + 1]
    filesystem, path = _filesystem(base)
    prefix = address[: len(base)].removesuffix("/") if star else address.removesuffix("/")

    def show(found: str) -> str:
        return prefix + found[len(path.removesuffix("/")) :]

    if star:
        pattern = path.removesuffix("/") + "/" + address[len(base) :]
        found = filesystem.get_file_info(fs.FileSelector(path.removesuffix("/") or "/", recursive=True))
        names = [f.path for f in found if f.type == fs.FileType.File and _matches(f.path, pattern)]
        return _listed(filesystem, names, address, show, path)
    kind = filesystem.get_file_info(path).type
    if kind == fs.FileType.Directory:
        return _within(filesystem, path, show)
    if kind == fs.FileType.NotFound:
        raise DataError(f"cannot read {address}: no such file or folder")
    return [Place(address, filesystem, path, _partition(path))]


def _filesystem(address: str) -> tuple[fs.FileSystem, str]:
    """The file system of an address, and the path in it."""
    scheme = address.split(":", 1)[0].lower()
    if scheme == "file" and "::" not in address:
        return fs.FileSystem.from_uri(address)
    if scheme in _NATIVE and "::" not in address:
        try:
            return fs.FileSystem.from_uri(address)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass  # not built into this Arrow: fsspec may have it
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(address)
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def _within(filesystem: fs.FileSystem, folder: str, show: Callable[[str], str]) -> list[Place]:
    """The files of a folder and those below it."""
    found = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
    root = folder.rstrip("/")
    names = [f.path for f in found if f.type == fs.FileType.File and f.size != 0 and _visible(f.path[len(root) :])]
    return _listed(filesystem, names, folder, show, folder)


def _listed(
    filesystem: fs.FileSystem, names: list[str], asked: str, show: Callable[[str], str], root: str
) -> list[Place]:
    if not names:
        raise DataError(f"cannot read {asked}: no files found")
    return [Place(show(name), filesystem, name, _partition(name)) for name in sorted(names, key=_by_number)]


def _visible(path: str) -> bool:
    return not any(part[:1] in "._" and "=" not in part for part in PurePosixPath(path).parts if part != "/")


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """Sorts runs of digits by their value."""
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _matches(path: str, pattern: str) -> bool:
    """Whether a path matches a glob, in which `*` stays within a folder and `**` does not."""
    text = re.sub(r"\\\*\\\*/?", "\0", re.escape(pattern)).replace(r"\*", "[^/]*").replace("\0", ".*")
    text = text.replace(r"\[", "[").replace(r"\]", "]").replace(r"\-", "-")
    return re.fullmatch(text, path) is not None


def _partition(path: str) -> tuple[tuple[str, str | None], ...]:
    pairs = [part.partition("=") for part in PurePosixPath(path).parts[:-1] if "=" in part]
    return tuple((key, None if value == _HIVE_NULL else unquote(value)) for key, _, value in pairs)
