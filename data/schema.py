"""The transaction and label schemas: the public contract of files, journal and API, and the check that guards them.

A *canonical batch* has exactly the columns of its schema, in order, as plain Arrow arrays, and every value inside the
limits below. Nothing behind this module looks at a value again.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.columns.amounts import amounts
from data.columns.column import Column
from data.columns.flags import flags
from data.columns.names import codes, names
from data.columns.notation import CANONICAL, Notation
from data.columns.times import times
from data.currency import USUAL, exponent
from data.errors import SchemaError

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

TRANSACTION_SCHEMA: Final[pa.Schema] = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("timestamp", TIMESTAMP, nullable=False),
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("merchant_id", pa.string(), nullable=False),
        pa.field("device_id", pa.string()),
        pa.field("amount", pa.int64(), nullable=False),
        pa.field("currency", pa.string(), nullable=False),
        pa.field("ip", pa.string()),
        pa.field("card_id", pa.string()),
        pa.field("payee_id", pa.string()),
        pa.field("location_id", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("mcc", pa.string()),
        pa.field("country", pa.string()),
        pa.field("agent_id", pa.string()),
        pa.field("mandate_id", pa.string()),
    ]
)
LABEL_SCHEMA: Final[pa.Schema] = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("is_fraud", pa.bool_(), nullable=False),
        pa.field("reported_at", TIMESTAMP, nullable=False),
    ]
)

_FIRST_COLUMNS: Final = 14  # of the schema as it was first: content digests are stored, and must not change
MAX_TRANSACTION_ID: Final = 64  # characters
MAX_ID: Final = 128  # characters, of every other text
MAX_AMOUNT: Final = 10**15  # minor units
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)  # excluded


@dataclass(frozen=True)
class Role:
    """A part that an entity plays in a payment.

    Attributes:
        name: The role's own name.
        column: The column of `TRANSACTION_SCHEMA` that holds the entity's identifier.
        entity_type: Roles of one entity type share their entities: a payee of one payment is the account of another.
    """

    name: str
    column: str
    entity_type: str


ROLES: Final[tuple[Role, ...]] = (
    Role("account", "account_id", "account"),
    Role("merchant", "merchant_id", "merchant"),
    Role("device", "device_id", "device"),
    Role("ip", "ip", "ip"),
    Role("card", "card_id", "card"),
    Role("payee", "payee_id", "account"),
    Role("location", "location_id", "location"),
    Role("agent", "agent_id", "agent"),
)
CATEGORIES: Final = ("currency", "channel", "mcc", "country")


def role(name: str) -> Role:
    """The role of that name.

    Raises:
        SchemaError: There is none.
    """
    for candidate in ROLES:
        if candidate.name == name:
            return candidate
    raise SchemaError(f"no role named {name!r}; roles are {', '.join(r.name for r in ROLES)}")


@dataclass(frozen=True)
class Refusal:
    """Why a row was refused. Each refused row has one: its first bad column in schema order.

    Attributes:
        file: Where the row came from.
        row: Its number in the file; the first row of data is 0.
        column: The offending column.
        reason: What is wrong with it.
    """

    file: str
    row: int
    column: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: row {self.row}: {self.column}: {self.reason}"


def check_transactions(
    data: pa.Table | pa.RecordBatch, file: str = "<memory>", first_row: int = 0, notation: Notation = CANONICAL
) -> tuple[pa.RecordBatch, list[Refusal]]:
    """Turn rows into a canonical batch of `TRANSACTION_SCHEMA`, refusing the bad ones.

    What each column takes is decided in `data.columns`, for every door alike: text, integers and UUIDs for identifiers,
    timestamps, dates and ISO 8601 text for times (without a zone: UTC), integers and their text for amounts. What has
    to be named, such as amounts in major units, `notation` names. Columns outside the schema are ignored, missing
    optional ones are null.

    Args:
        data: The rows.
        file: Named in refusals.
        first_row: Number of the first row, for refusals.
        notation: How values are written, where that has to be named.

    Returns:
        The good rows in their order, and one refusal for each bad row, in row order.

    Raises:
        SchemaError: A required column is missing, a column is there twice, its type is of no use, or amounts are
            decimals of which no unit is named.
    """
    return _check(data, TRANSACTION_SCHEMA, file, first_row, notation)


def check_labels(
    data: pa.Table | pa.RecordBatch, file: str = "<memory>", first_row: int = 0, notation: Notation = CANONICAL
) -> tuple[pa.RecordBatch, list[Refusal]]:
    """Turn rows into a canonical batch of `LABEL_SCHEMA`; as `check_transactions`. `is_fraud` may be 0 or 1 too."""
    return _check(data, LABEL_SCHEMA, file, first_row, notation)


def content_hashes(batch: pa.RecordBatch) -> list[bytes]:
    """A 16-byte BLAKE2b digest of the content of each row of a canonical batch, all columns in order.

    Canonical text is never empty and holds no control character, so that joining by U+001F with nothing for null is
    injective. The digest is stored in journals: its input must not change within a journal format.
    """
    parts = [column if pa.types.is_string(column.type) else _text(column) for column in batch.columns]
    joined, later = _joined(parts[:_FIRST_COLUMNS]), parts[_FIRST_COLUMNS:]
    if any(part.null_count < len(part) for part in later):
        # A row without any of these has the digest that it had before there were such columns.
        without = pc.equal(_joined(later), "\x1f" * (len(later) - 1))
        joined = pc.if_else(without, joined, _joined([joined, *later]))
    blake2b = hashlib.blake2b
    return [blake2b(row, digest_size=16).digest() for row in joined.view(pa.binary()).to_pylist()]


def _joined(parts: list[pa.Array]) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "\x1f", null_handling="replace", null_replacement="")


def _text(column: pa.Array) -> pa.Array:
    return (column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column).cast(pa.string())


def _check(
    data: pa.Table | pa.RecordBatch, schema: pa.Schema, file: str, first_row: int, notation: Notation
) -> tuple[pa.RecordBatch, list[Refusal]]:
    checked: dict[str, Column] = {}
    if notation.amount_unit == "major" and "currency" in schema.names:
        # The currency says how many decimals an amount has. A missing or bad one is refused by its own column.
        checked["currency"] = _column(data, schema.field("currency"), file, notation)
        notation = replace(notation, exponents=_exponents(checked["currency"].values))
    columns = [checked.get(field.name) or _column(data, field, file, notation) for field in schema]
    first_bad: NDArray[np.int16] | None = None  # the first bad column of each row; allocated once there is one
    for number, column in enumerate(columns):
        if column.reasons:
            if first_bad is None:
                first_bad = np.full(data.num_rows, -1, np.int16)
            rows = np.fromiter(column.reasons, np.int64, len(column.reasons))
            first_bad[rows[first_bad[rows] < 0]] = number
    batch = pa.RecordBatch.from_arrays([column.values for column in columns], schema=schema)
    if first_bad is None:
        return batch, []
    refusals = []
    for row in np.flatnonzero(first_bad >= 0).tolist():
        number = int(first_bad[row])
        refusals.append(Refusal(file, first_row + row, schema.names[number], columns[number].reasons[row]))
    return batch.filter(pa.array(first_bad < 0)), refusals


def _exponents(currencies: pa.Array) -> NDArray[np.int64]:
    """Decimals of the currency of each row."""
    coded = currencies.dictionary_encode()
    known = np.array([exponent(code) for code in coded.dictionary.to_pylist()] + [USUAL], np.int64)
    return known[coded.indices.fill_null(len(known) - 1).to_numpy()]


def _column(data: pa.Table | pa.RecordBatch, field: pa.Field, file: str, notation: Notation) -> Column:
    found = data.schema.get_all_field_indices(field.name)
    if len(found) > 1:
        raise SchemaError(f"{file}: column {field.name} occurs {len(found)} times")
    if not found:
        if not field.nullable:
            raise SchemaError(f"{file}: the required column {field.name} is missing")
        return Column(pa.nulls(data.num_rows, field.type))
    raw = data.column(found[0])
    if isinstance(raw, pa.ChunkedArray):
        raw = raw.combine_chunks()
    try:
        raw.validate()  # what came over the wire may claim more than its buffers hold
        column = check_column(raw, field, notation)
    except TypeError as error:
        raise SchemaError(f"{file}: column {field.name}: {error}") from None
    except pa.ArrowInvalid as error:
        raise SchemaError(f"{file}: column {field.name} is damaged: {error}") from None
    if not field.nullable and column.values.null_count:
        # A value already refused for what it is has become null here: its own reason stays.
        for row in np.flatnonzero(column.values.is_null().to_numpy(zero_copy_only=False)).tolist():
            column.reasons.setdefault(row, "is missing")
    return column


def check_column(raw: pa.Array, field: pa.Field, notation: Notation = CANONICAL) -> Column:
    """Check the values of one column of a schema; nulls stay null.

    Args:
        raw: The values, of any type.
        field: The column, of `TRANSACTION_SCHEMA` or `LABEL_SCHEMA`.
        notation: How values are written.

    Raises:
        TypeError: Their type is of no use there.
    """
    if field.name == "amount":
        return amounts(raw, MAX_AMOUNT, notation)
    if field.name == "currency":
        return codes(raw)
    if field.type == TIMESTAMP:
        return times(raw, EARLIEST, LATEST, notation.times.get(field.name))
    if field.type == pa.bool_():
        return flags(raw)
    limit = MAX_TRANSACTION_ID if field.name == "transaction_id" else MAX_ID
    return names(raw, limit, integer=field.name in notation.integers)
