"""Which columns of a file are read, and under which of the schema's names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.columns.column import is_text, plain
from data.errors import SchemaError

NUMBER: Final = "#"  # stands for a column that holds the number of each row

Numbered = tuple[pa.RecordBatch, NDArray[np.int64]]  # the batch and the number of each row in its file


@dataclass(frozen=True)
class Wanted:
    """A column of the schema.

    Attributes:
        name: In the schema.
        sources: Names that it may have in the file, the first that is there counts; `#` is the number of the row.
        required: The file must have it.
        default: Text in place of a missing value or column.
    """

    name: str
    sources: tuple[str, ...]
    required: bool = False
    default: str | None = None


class Selection:
    """The columns of one file that are wanted.

    Names are compared as they are, then without case and blanks around them.

    Attributes:
        indices: Their places in the file, each once, ascending.
        score: How many of the wanted columns were found.
    """

    def __init__(
        self,
        names: Sequence[str],
        wanted: Sequence[Wanted],
        file: str,
        partition: Mapping[str, str | None] | None = None,
        prefix: str = "",
    ) -> None:
        """Look for the wanted columns.

        Args:
            names: Of the file's columns, in its order.
            wanted: Columns of the schema.
            file: Named in errors.
            partition: Further columns that the file's folders name, and their one value.
            prefix: Put before the numbers of rows where these are ids.
        """
        self._names, self._file, self._prefix = list(names), file, prefix
        self._wanted = list(wanted)
        self._partition = dict(partition or {})
        self._tidy = [name.strip().casefold() for name in names]
        self._places = [self._place(column) for column in wanted]
        self.indices = sorted({place for place in self._places if isinstance(place, int)})
        self.score = sum(place is not None for place in self._places)

    def check(self) -> None:
        """Look at what is missing and what is there twice.

        Raises:
            SchemaError: A column that must be there is not, or a name is there twice.
        """
        for column, place in zip(self._wanted, self._places, strict=True):
            if isinstance(place, int):
                name = self._names[place]
                if (count := self._names.count(name)) > 1:
                    raise SchemaError(f"{self._file}: column {name} occurs {count} times")
                if name.strip() not in column.sources and (count := self._tidy.count(self._tidy[place])) > 1:
                    raise SchemaError(f"{self._file}: {count} columns could be {column.name}: name one with --map")
            elif place is None and column.default is None:
                self._missing(column)

    def rename(self, batch: pa.RecordBatch | pa.Table, rows: NDArray[np.int64]) -> pa.RecordBatch:
        """The selected columns under the names of the schema, with defaults.

        Args:
            batch: The columns of `indices`, in that order.
            rows: Numbers of its rows, int64 [n].
        """
        arrays, names = [], []
        for column, place in zip(self._wanted, self._places, strict=True):
            if isinstance(place, int):
                array = batch.column(self.indices.index(place))
                if isinstance(array, pa.ChunkedArray):
                    array = array.combine_chunks()
            elif place is not None:  # a row number, or a folder's value
                array = pa.array([f"{self._prefix}{row}" for row in rows.tolist()], pa.string())
                if place != NUMBER:
                    array = pa.array([self._partition[place]] * len(rows), pa.string())
            elif column.default is not None:
                array = pa.nulls(len(rows), pa.string())
            else:
                continue
            names.append(column.name)
            arrays.append(array if column.default is None else self._filled(array, column))
        schema = pa.schema([(name, array.type) for name, array in zip(names, arrays, strict=True)])
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _place(self, column: Wanted) -> int | str | None:
        for source in column.sources:
            if source == NUMBER:
                return NUMBER
            if source in self._names:
                return self._names.index(source)
            if (tidy := source.strip().casefold()) in self._tidy:
                return self._tidy.index(tidy)
            for key in self._partition:
                if key.strip().casefold() == tidy:
                    return key
        return None

    def _missing(self, column: Wanted) -> None:
        there = ", ".join(name.strip()[:40] for name in [*self._names, *self._partition][:30]) or "none"
        if column.sources[0] != column.name:
            raise SchemaError(f"{self._file}: no column {column.sources[0]} for {column.name}; there are: {there}")
        if column.required:
            raise SchemaError(
                f"{self._file}: the required column {column.name} is missing; name it with --map {column.name}=COLUMN, "
                f"or give it one value with --default {column.name}=VALUE. Columns there: {there}"
            )

    def _filled(self, array: pa.Array, column: Wanted) -> pa.Array:
        if not array.null_count:
            return array
        array = plain(array)
        if pa.types.is_integer(array.type) or pa.types.is_null(array.type):
            array = array.cast(pa.string())
        if not is_text(array.type):
            raise SchemaError(
                f"{self._file}: column {column.name}: a default cannot stand in for a missing {array.type}"
            )
        return array.fill_null(pa.scalar(column.default, pa.string()).cast(array.type))
