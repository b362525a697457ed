"""Which files of an input can be read at all, found out by reading them before a run begins."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from data.errors import DataError
from data.files.address import Address
from data.files.options import ReadOptions
from data.files.places import find_places
from data.files.sources import read_labels, read_transactions


@dataclass(frozen=True)
class Skipped:
    """A file that is left out.

    Attributes:
        file: Its name.
        reason: Why, for people.
    """

    file: str
    reason: str


def readable(where: Path | str, kind: Literal["payments", "labels"]) -> tuple[Address, list[Skipped]]:
    """A source without its files that cannot be read.

    Each file is read once from end to end: damage may be anywhere in it. A file of which no row is any good cannot be
    read either. One with some bad rows can: these are refused one by one.

    Args:
        where: The source.
        kind: What it holds.

    Raises:
        DataError: There is no file, or none can be read.
    """
    options = where.options if isinstance(where, Address) else ReadOptions()
    good, skipped = [], []
    for place in find_places(where):
        reason = _why_not(place.shown, kind, options)
        if reason is None:
            good.append(place.shown)
        else:
            skipped.append(Skipped(place.shown, reason))
    if not good:
        raise DataError(f"none of the {len(skipped)} files of {kind} can be read; {skipped[0].reason}")
    return Address.of(good, options), skipped


def _why_not(file: str, kind: Literal["payments", "labels"], options: ReadOptions) -> str | None:
    read = read_transactions if kind == "payments" else read_labels
    address = Address.of([file], replace(options, max_refused=1.0))
    refused: list[str] = []
    try:
        rows = sum(len(batch) for batch in read(address, on_refusal=lambda refusal: refused.append(refusal.reason)))
    except DataError as error:
        return str(error)
    return f"{file}: all {len(refused):,} rows refused, the first: {refused[0]}" if refused and not rows else None
