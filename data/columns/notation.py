"""How the values of a source are written, where that cannot be seen from them and has to be named."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError

AmountUnit = Literal["minor", "major"]

_MICROSECONDS: Final = {
    "s": 10**6,
    "ms": 10**3,
    "us": 1,
    "min": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 24 * 3600 * 10**6,
}  # and "ns", of which there are 1,000 in one


@dataclass(frozen=True)
class TimeUnit:
    """What a number in a column of times counts, or how text there is written.

    Attributes:
        name: s, ms, us, ns, min, h or d; or a `strptime` pattern, such as `%d/%m/%Y`, which holds a `%`.
        origin: The moment that is 0.
    """

    name: str
    origin: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    @property
    def pattern(self) -> str | None:
        """The pattern of text, where it is one."""
        return self.name if "%" in self.name else None

    @property
    def ratio(self) -> tuple[int, int]:
        """Microseconds in one as a fraction: numerator, denominator."""
        return (1, 1000) if self.name == "ns" else (_MICROSECONDS[self.name], 1)

    @property
    def origin_us(self) -> int:
        """Microseconds from 1970 to the origin."""
        span = self.origin - datetime(1970, 1, 1, tzinfo=UTC)
        return (span.days * 86_400 + span.seconds) * 10**6 + span.microseconds

    @classmethod
    def of(cls, text: str) -> "TimeUnit":
        """A unit as the command line writes it: `ms`, `min@2020-01-01` or `%d/%m/%Y %H:%M`.

        Raises:
            DataError: It is none.
        """
        name, _, origin = (text, "", "") if "%" in text else text.partition("@")
        if "%" not in name and name != "ns" and name not in _MICROSECONDS:
            raise DataError(
                f"{name!r} is not a unit of time: use s, ms, us, ns, min, h, d or a pattern such as %d/%m/%Y"
            )
        if not origin:
            return cls(name)
        try:
            moment = datetime.fromisoformat(origin)
        except ValueError:
            raise DataError(f"{origin!r} is not an ISO 8601 date or time to count from, such as 2020-01-01") from None
        return cls(name, moment if moment.tzinfo else moment.replace(tzinfo=UTC))


@dataclass(frozen=True)
class Notation:
    """What has to be named before values can be read; by default nothing is.

    Attributes:
        amount_unit: `major` for amounts such as 12.34, converted by the currency's ISO 4217 exponent; `minor` for
            whole minor units that are written as floats or decimals (4200.0); None where they are integers.
        times: Column of times -> its unit, for epochs and for text that is not ISO 8601.
        integers: Columns of identifiers whose floats, and text such as `17.0`, are integers.
        decimal_comma: Amounts are written 12,34.
        exponents: Decimals of the currency of each row, int64 [n]; the check of the schema sets it for major units.
    """

    amount_unit: AmountUnit | None = None
    times: Mapping[str, TimeUnit] = field(default_factory=dict)
    integers: frozenset[str] = frozenset()
    decimal_comma: bool = False
    exponents: NDArray[np.int64] | None = None


CANONICAL: Final = Notation()
NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
