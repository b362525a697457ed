"""The rows of one or several files as one source: under the schema's names, checked, each with a number of its own."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.columns.column import plain
from data.errors import DataError, RefusedRow, TooManyRefused
from data.files.options import ReadOptions
from data.files.places import STDIN, Place, Where, find_places, shown
from data.files.readers import OnRefusal, read_raw
from data.files.selection import Numbered, Selection, Wanted
from data.schema import TIMESTAMP, TRANSACTION_SCHEMA, Refusal, check_column, check_labels, check_transactions

_FILE: Final = 40  # a row's number holds its file's above this bit
_ROW: Final = (1 << _FILE) - 1


class Tally:
    """Takes refusals, passes them on, and knows what share of the rows they are.

    Attributes:
        rows: Read so far.
        refused: Of them.
    """

    def __init__(self, source: str, strict: bool, on_refusal: OnRefusal | None, most: float) -> None:
        self.rows = self.refused = 0
        self._source, self._strict, self._pass, self._most = source, strict, on_refusal, most
        self._columns: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def __call__(self, refusal: Refusal) -> None:
        """Take one.

        Raises:
            RefusedRow: With `strict`.
        """
        if self._strict:
            raise RefusedRow(str(refusal))
        self.refused += 1
        self._columns[refusal.column] += 1
        self._first.setdefault(refusal.column, f"row {refusal.row}: {refusal.reason}")
        if self._pass is not None:
            self._pass(refusal)

    def finish(self) -> None:
        """Judge the share.

        Raises:
            TooManyRefused: It is above the limit.
        """
        if self.refused > self._most * self.rows:
            [(column, count)] = self._columns.most_common(1)
            raise TooManyRefused(
                f"{self._source}: {self.refused:,} of {self.rows:,} rows refused "
                f"({self.refused / max(self.rows, 1):.1%}), more than {self._most:.1%} (--max-refused); "
                f"{count:,} because of their {column}, the first: {self._first[column]}"
            )


class Records:
    """The rows of a source.

    Attributes:
        shown: How messages name the source.
        live: It is standard input, which can be read once only.
    """

    def __init__(self, where: Where, kind: Literal["payments", "labels"], options: ReadOptions) -> None:
        """Find the files.

        Raises:
            DataError: There are none.
        """
        self._places = find_places(where)
        self._order = list(range(len(self._places)))
        self._kind, self._options = kind, options
        self.shown = shown(where)
        self.live = any(place.path == STDIN for place in self._places)
        if self.live and len(self._places) > 1:
            raise DataError("standard input cannot be read beside files")
        if self.live and kind == "payments" and options.label is not None:
            raise DataError("--label-column reads the payments twice, but standard input can be read only once")

    def checked(self, tally: Tally) -> Iterator[Numbered]:
        """Canonical, non-empty batches of the good rows, and their numbers.

        Args:
            tally: Told of the others, and of how many rows there are.
        """
        check = check_transactions if self._kind == "payments" else check_labels
        for number, place, raw, rows in self._read(self._options.wanted(self._kind), tally):
            batch, refusals = check(raw, place.shown, notation=self._options.notation)
            tally.rows += len(rows)
            for refusal in refusals:
                tally(Refusal(place.shown, int(rows[refusal.row]), refusal.column, refusal.reason))
            if refusals:
                rows = np.delete(rows, [refusal.row for refusal in refusals])
            if len(batch):
                yield batch, rows + (number << _FILE)

    def labels(self, tally: Tally) -> Iterator[Numbered]:
        """Canonical labels from the label column of the payments, each `delay` after its payment.

        Args:
            tally: Told of bad ones. Rows that are bad as payments are left to `checked`.
        """
        label = self._options.label
        assert label is not None
        wanted = self._options.wanted("payments", ("transaction_id", "timestamp"))
        notation = self._options.notation
        for number, place, raw, rows in self._read(
            [*wanted, Wanted("is_fraud", (label.name,), True)], tally, quiet=True
        ):
            ids = check_column(
                raw.column("transaction_id"), TRANSACTION_SCHEMA.field("transaction_id"), notation
            ).values
            at = check_column(raw.column("timestamp"), TRANSACTION_SCHEMA.field("timestamp"), notation).values
            flag = plain(raw.column("is_fraud"))
            if label.unknown is not None:
                unknown = pc.is_in(flag.cast(pa.string()), value_set=pa.array([label.unknown, f"{label.unknown}.0"]))
                flag = pc.if_else(unknown, pa.scalar(None, flag.type), flag)
            good = pc.and_(pc.and_(ids.is_valid(), at.is_valid()), flag.is_valid())
            delay = (label.delay.days * 86_400 + label.delay.seconds) * 10**6 + label.delay.microseconds
            reported = pc.add(at.cast(pa.int64()), delay).cast(TIMESTAMP)
            arrays = {"transaction_id": ids, "is_fraud": flag, "reported_at": reported}
            events, kept = pa.RecordBatch.from_pydict(arrays).filter(good), rows[good.to_numpy(zero_copy_only=False)]
            batch, refusals = check_labels(events, place.shown)
            tally.rows += len(kept)
            for refusal in refusals:
                column = label.name if refusal.column == "is_fraud" else refusal.column
                tally(Refusal(place.shown, int(kept[refusal.row]), column, refusal.reason))
            kept = np.delete(kept, [refusal.row for refusal in refusals])
            if label.only_frauds:
                frauds = batch.column("is_fraud")
                batch, kept = batch.filter(frauds), kept[frauds.to_numpy(zero_copy_only=False)]
            if len(batch):
                yield batch, kept + (number << _FILE)

    def refusal(self, number: int, column: str, reason: str) -> Refusal:
        """A refusal of the row of that number."""
        return Refusal(self._places[number >> _FILE].shown, number & _ROW, column, reason)

    def put_in_order(self) -> bool:
        """Whether the times of the rows never run backwards, once files are taken in the order of their times.

        Reads that one column, refused rows included. Files whose times do not overlap are put in order; else they stay
        in that of their names.
        """
        spans = [self._span(number) for number in self._order]
        if any(span is None for span in spans):
            return False
        ends = [span for span in spans if span is not None and span[0] <= span[1]]
        if all(before[1] <= after[0] for before, after in itertools.pairwise(ends)):
            return True
        order = sorted(self._order, key=lambda number: spans[number] or (0, 0))
        ends = [span for number in order if (span := spans[number]) is not None and span[0] <= span[1]]
        if any(before[1] >= after[0] for before, after in itertools.pairwise(ends)):
            return False  # where they touch, the order of their names decides
        self._order = order
        return True

    def _span(self, number: int) -> tuple[int, int] | None:
        """The first and last time of a file, us; (1, 0) where it has none, None where its times run backwards."""
        first = latest = np.iinfo(np.int64).min
        for _, _, raw, _ in self._read(self._options.wanted("payments", ["timestamp"]), None, [number]):
            try:
                column = check_column(raw.column(0), TRANSACTION_SCHEMA.field("timestamp"), self._options.notation)
            except (TypeError, pa.ArrowInvalid):
                return (1, 0)  # the check of the schema will have its say
            ticks = column.values.drop_null().cast(pa.int64()).to_numpy()
            if len(ticks):
                if ticks[0] < latest or (np.diff(ticks) < 0).any():
                    return None
                first = ticks[0] if first == np.iinfo(np.int64).min else first
                latest = ticks[-1]
        return (1, 0) if first == np.iinfo(np.int64).min else (int(first), int(latest))

    def _read(
        self, wanted: Sequence[Wanted], tally: Tally | None, files: Sequence[int] | None = None, quiet: bool = False
    ) -> Iterator[tuple[int, Place, pa.RecordBatch, NDArray[np.int64]]]:
        """Raw batches of the wanted columns under the schema's names, file by file."""

        def refuse(refusal: Refusal) -> None:
            if tally is not None and not quiet:
                tally.rows += 1
                tally(refusal)

        several = len(self._places) > 1
        for number in self._order if files is None else files:
            place = self._places[number]
            prefix = f"{number}-" if several else ""

            def select(names: Sequence[str], place: Place = place, prefix: str = prefix) -> Selection:
                return Selection(names, wanted, place.shown, dict(place.partition), prefix)

            for raw, rows in read_raw(place, select, refuse):
                yield number, place, raw, rows
