"""What a 409 says: which fields of a payment differ from what is recorded under its id."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa

from serve.problems import Problem

CONFLICTS_SHOWN: Final = 20  # payments of a call that are read again to say what differs


class Conflict(NamedTuple):
    """A payment of a call whose id stands for other content.

    Attributes:
        row: Its place in the call.
        there: The other content, by column; empty where it cannot be read.
        how: In words, how the other content came to be there.
    """

    row: int
    there: Mapping[str, Any]
    how: str


def within(batch: pa.RecordBatch, row: int, first: int) -> Conflict:
    """A payment whose id came first in the same call, with other content."""
    return Conflict(row, batch.slice(first, 1).to_pylist()[0], f"item {first} of this call says")


def conflict(batch: pa.RecordBatch, found: Sequence[Conflict], count: int) -> Problem:
    """The problem of a call that contradicts what is there.

    Args:
        batch: Its payments.
        found: The first contradictions.
        count: How many there are.
    """
    errors = []
    for row, there, how in found:
        sent = batch.slice(row, 1).to_pylist()[0]
        place = f"{row}." if len(batch) > 1 else ""
        differ = [name for name in batch.schema.names if there and there[name] != sent[name]]
        errors += [(f"{place}{name}", f"{how} {_shown(there[name])}, sent {_shown(sent[name])}") for name in differ]
        if not differ:
            errors.append((f"{place}transaction_id", "recorded with other content"))
    name = batch.column("transaction_id")[found[0].row].as_py()
    more = f"; so are {count - 1:,} more of this call" if count > 1 else ""
    field, reason = errors[0]
    detail = f"transaction {name!r} is recorded with other content: {field.split('.')[-1]}: {reason}{more}"
    return Problem(409, "Conflict", detail, errors[:100])


def _shown(value: Any) -> str:
    """A value as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return json.dumps(value, ensure_ascii=False)
