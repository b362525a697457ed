"""How a source is to be read: which of its columns are whose, in which units, with which defaults and labels."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal

from data.columns.notation import CANONICAL, AmountUnit, Notation, TimeUnit
from data.errors import DataError
from data.files.selection import Wanted
from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA

IDENTIFIERS: Final = frozenset(name for name in TRANSACTION_SCHEMA.names if name not in ("timestamp", "amount"))
_NAMES: Final = (*TRANSACTION_SCHEMA.names, *(n for n in LABEL_SCHEMA.names if n not in TRANSACTION_SCHEMA.names))
_SPAN: Final = {"d": 86_400, "h": 3600, "min": 60, "m": 60, "s": 1, "w": 7 * 86_400}


@dataclass(frozen=True)
class LabelColumn:
    """Labels that stand in a column of the payments themselves.

    Attributes:
        name: The column. A row without a value there has no label.
        delay: From a payment to the report of its label.
        only_frauds: Report frauds only, as a bank that never hears that a payment was honest.
        unknown: Text of a value that means "not known".
    """

    name: str
    delay: timedelta
    only_frauds: bool = False
    unknown: str | None = None


@dataclass(frozen=True)
class ReadOptions:
    """How a source of payments, and of labels, is to be read.

    Attributes:
        columns: Column of the schema -> column of the file; `#` is the number of the row.
        defaults: Column of the schema -> text that stands in for missing values, or for a column that is not there.
        notation: Units.
        label: Labels from a column of the payments.
        max_refused: Share of refused rows above which reading fails at its end; 1 lets everything pass.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    notation: Notation = CANONICAL
    label: LabelColumn | None = None
    max_refused: float = 1.0

    @classmethod
    def of(
        cls,
        mapping: Iterable[str] = (),
        defaults: Iterable[str] = (),
        *,
        amount_unit: str | None = None,
        decimal_comma: bool = False,
        label_column: str | None = None,
        label_delay: str | None = None,
        max_refused: float = 1.0,
    ) -> "ReadOptions":
        """Options as the command line writes them.

        Args:
            mapping: `amount=TX_AMOUNT:major,account_id=CUSTOMER_ID`: columns of the file, with a unit behind a colon:
                major or minor for an amount, s, ms, us, ns, min, h, d, `min@2020-01-01` or a strptime pattern for a
                time, integer for identifiers.
            defaults: `currency=EUR,merchant_id=transfer`.
            amount_unit: minor or major.
            decimal_comma: Amounts are written 12,34.
            label_column: `isFraud`; `isFraud:frauds` reports frauds only, `Labels:unknown=2` says what is no label.
            label_delay: Such as 7d, 12h or 30min.
            max_refused: A share from 0 to 1.

        Raises:
            DataError: A part is not understood.
        """
        options = cls(defaults=_pairs(defaults, "--default"), max_refused=max_refused)
        columns, notation = {}, Notation(decimal_comma=decimal_comma)
        for name, source in _pairs(mapping, "--map").items():
            columns[name], notation = _source(name, source, notation)
        if amount_unit is not None:
            notation = replace(notation, amount_unit=_amount_unit(amount_unit))
        if not 0 <= max_refused <= 1:
            raise DataError(f"--max-refused is a share from 0 to 1, such as 0.05, not {max_refused}")
        if label_column is None:
            if label_delay is not None:
                raise DataError("--label-delay needs --label-column")
            return replace(options, columns=columns, notation=notation)
        if label_delay is None:
            raise DataError("--label-column needs --label-delay, the time from a payment to its report, such as 7d")
        return replace(
            options, columns=columns, notation=notation, label=_label_column(label_column, _span(label_delay))
        )

    def wanted(self, schema_kind: Literal["payments", "labels"], only: Iterable[str] | None = None) -> list[Wanted]:
        """The columns to look for in a file of payments or labels.

        Args:
            schema_kind: Which.
            only: Just these.
        """
        schema = TRANSACTION_SCHEMA if schema_kind == "payments" else LABEL_SCHEMA
        found = []
        for column in schema:
            source = self.columns.get(column.name, column.name)
            # An id may have another name among the payments than among the labels.
            sources = (source,) if schema_kind == "payments" else (source, column.name)
            default = self.defaults.get(column.name)
            found.append(Wanted(column.name, sources, not column.nullable, default))
        return [column for column in found if only is None or column.name in only]


def _pairs(words: Iterable[str], option: str) -> dict[str, str]:
    """`a=B,c=D` as a dictionary; a comma counts only where a column's name and `=` follow."""
    found: dict[str, str] = {}
    for word in words:
        for pair in re.split(r",(?=\s*\w+=)", word):
            name, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not value:
                raise DataError(f"{option}: {pair!r} is not written as COLUMN=VALUE")
            if name not in _NAMES:
                raise DataError(f"{option}: the schema has no column {name!r}; there are {', '.join(_NAMES)}")
            if name in found:
                raise DataError(f"{option}: {name} is given twice")
            found[name] = value
    return found


def _source(name: str, source: str, notation: Notation) -> tuple[str, Notation]:
    """A column of the file and the notation with its unit."""
    column, colon, unit = source.partition(":")
    if not colon:
        return source, notation
    if name == "amount":
        return column, replace(notation, amount_unit=_amount_unit(unit))
    if name in ("timestamp", "reported_at"):
        return column, replace(notation, times={**notation.times, name: TimeUnit.of(unit)})
    if name in IDENTIFIERS and unit == "integer":
        return column, replace(notation, integers=notation.integers | {name})
    raise DataError(f"--map: {name} has no unit {unit!r}")


def _amount_unit(text: str) -> AmountUnit:
    if text not in ("minor", "major"):
        raise DataError(f"the unit of amounts is minor or major, not {text!r}")
    return text  # type: ignore[return-value]


def _label_column(text: str, delay: timedelta) -> LabelColumn:
    name, _, more = text.partition(":")
    if not more:
        return LabelColumn(name, delay)
    if more == "frauds":
        return LabelColumn(name, delay, only_frauds=True)
    key, _, value = more.partition("=")
    if key != "unknown" or not value:
        raise DataError(f"--label-column: {more!r} is neither frauds nor unknown=VALUE")
    return LabelColumn(name, delay, unknown=value)


def _span(text: str) -> timedelta:
    """A span of time such as 7d, 12h, 30min or 0s.

    Raises:
        DataError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip())
    if not match or match[2] not in _SPAN:
        raise DataError(f"{text!r} is not a length of time such as 7d, 12h, 30min or 0s")
    return timedelta(seconds=float(match[1]) * _SPAN[match[2]])
