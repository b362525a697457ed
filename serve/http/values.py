"""Values of a JSON body, judged by the check that judges every column of a file.

What a caller of this API normally sends is told from its Python type and let through at once; anything else is put into
an array of one and given to `data.schema.check_column`, so that JSON, Arrow, Parquet and CSV take the same values and
refuse the others for the same reasons.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from data.columns.notation import Notation, TimeUnit
from data.schema import EARLIEST, LABEL_SCHEMA, LATEST, MAX_AMOUNT, TRANSACTION_SCHEMA, check_column

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TICK: Final = timedelta(microseconds=1)
LOW, HIGH = ((moment - EPOCH) // TICK for moment in (EARLIEST, LATEST))
# A number for a time counts microseconds in this API, in JSON as in Arrow.
API: Final = Notation(times={"timestamp": TimeUnit("us"), "reported_at": TimeUnit("us")})
_SHOWN: Final = 40  # characters of a value in a reason


def moment(value: Any) -> int:
    """A time as microseconds since 1970 UTC."""
    if type(value) is int:
        if not LOW <= value < HIGH:
            raise ValueError("is outside 2000-01-01 to 2100-01-01")
        return value
    if type(value) is str and len(value) >= 20 and value[4] == value[7] == "-" and value[10] in "Tt":
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            parsed = None
        if parsed is not None and parsed.tzinfo is not None and LOW <= (found := (parsed - EPOCH) // TICK) < HIGH:
            return found
    return int(_checked(value, TRANSACTION_SCHEMA.field("timestamp")).cast(pa.int64())[0].as_py())


def amount(value: Any) -> int:
    """An amount in minor units."""
    if type(value) is int and 0 <= value <= MAX_AMOUNT:
        return value
    return int(_checked(value, TRANSACTION_SCHEMA.field("amount"))[0].as_py())


def flag(value: Any) -> bool:
    """Yes or no."""
    return value if type(value) is bool else bool(_checked(value, LABEL_SCHEMA.field("is_fraud"))[0].as_py())


def name(column: str) -> Callable[[Any], str | None]:
    """The check of identifiers and other text of a column."""
    field = TRANSACTION_SCHEMA.field(column)

    def check(value: Any) -> str | None:
        if value is None and field.nullable:
            return None
        if type(value) is str and value.isascii() and value.isprintable() and value.strip(" ") == value:
            return value  # how long it may be, its type says
        return str(_checked(value, field)[0].as_py())

    return check


def _checked(value: Any, field: pa.Field) -> pa.Array:
    """The one value as it stands in a canonical batch."""
    if value is None:
        raise ValueError("is missing")
    if isinstance(value, dict | list):
        raise ValueError(f"is a JSON {'object' if isinstance(value, dict) else 'array'}")
    if type(value) is int and not -(2**63) <= value < 2**63:
        value = str(value)  # no integer of Arrow is that wide; its text may be an identifier
    try:
        array = pa.array([value.encode() if isinstance(value, str) else value])
        column = check_column(array, field, API)
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    except TypeError as error:
        raise ValueError(str(error)) from None
    if column.reasons:
        raise ValueError(column.reasons[0])
    return column.values
