"""Send the outcomes in a file to a running service: what became of payments that it has recorded."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from data.errors import RefusedRow, SchemaError
from data.report import Report, silent
from serve.http.client import Refused, RingwatchClient
from serve.stream.ingest import UNKNOWN_SHOWN, unknown_rows

REQUIRED: Final = ("transaction_id", "outcome", "at")
OPTIONAL: Final = ("amount", "outcome_id", "by")
_AT_ONCE: Final = 1000  # outcomes of one call


@dataclass
class OutcomesSent:
    """What went through.

    Attributes:
        accepted: Recorded now.
        repeated: Recorded before.
        unknown: Of payments that the service does not know; they are not recorded.
        unknown_ids: The ids of the first of these.
    """

    accepted: int = 0
    repeated: int = 0
    unknown: int = 0
    unknown_ids: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """What went through, for people."""
        return f"outcomes: {self.accepted:,} accepted, {self.repeated:,} repeated, {self.unknown:,} of unknown payments"


def read_outcomes(path: Path) -> list[dict[str, Any]]:
    """Outcomes of a file, as `POST /v1/outcomes` takes them.

    Args:
        path: Parquet, CSV (`.csv`) or JSON lines (`.jsonl`, `.json`), with the columns transaction_id, outcome and at;
            amount, outcome_id and by where there are any.

    Raises:
        SchemaError: A column is missing, or the file cannot be read as what its name says.
    """
    text = pa.string()
    try:
        if path.suffix == ".csv":
            as_text = pacsv.ConvertOptions(
                column_types={name: text for name in (*REQUIRED, *OPTIONAL) if name != "amount"}
                | {"amount": pa.int64()},
                strings_can_be_null=True,
            )
            table = pacsv.read_csv(path, convert_options=as_text)
        elif path.suffix in (".jsonl", ".json"):
            table = pajson.read_json(path)
        else:
            table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{path}: cannot be read: {error}") from None
    for name in REQUIRED:
        if name not in table.column_names:
            raise SchemaError(f"{path}: the required column {name} is missing; there are {table.column_names}")
    rows = table.select([name for name in (*REQUIRED, *OPTIONAL) if name in table.column_names]).to_pylist()
    return [{name: _plain(value) for name, value in row.items() if value is not None} for row in rows]


def send_outcomes(
    client: RingwatchClient, rows: list[dict[str, Any]], *, strict: bool = False, report: Report = silent
) -> OutcomesSent:
    """Send outcomes, in their order; each call is durable before the next leaves.

    Raises:
        RefusedRow: The service refused one; what came before it in the file is recorded. With `strict` also where it
            does not know a payment.
        ServeError: The service did not answer.
    """
    done = OutcomesSent()
    for start in range(0, len(rows), _AT_ONCE):
        part = list(enumerate(rows[start : start + _AT_ONCE], start))
        while part:
            try:
                said = client.outcomes([row for _, row in part])
            except Refused as refused:
                unknown = set(unknown_rows(refused))
                if not unknown or strict:
                    raise _refused(refused, part) from None
                done.unknown += len(unknown)
                names = [row["transaction_id"] for i, (_, row) in enumerate(part) if i in unknown]
                done.unknown_ids += names[: UNKNOWN_SHOWN - len(done.unknown_ids)]
                part = [one for i, one in enumerate(part) if i not in unknown]
                continue
            done.accepted += said["accepted"]
            done.repeated += said["repeated"]
            break
        report("sending outcomes", (start + _AT_ONCE) / max(len(rows), start + _AT_ONCE))
    return done


def _refused(refused: Refused, part: list[tuple[int, dict[str, Any]]]) -> RefusedRow:
    """The first error of a refused call, by the row of the file."""
    for error in refused.problem.get("errors", []):
        place, _, name = str(error["field"]).partition(".")
        if place.isdigit():
            return RefusedRow(f"row {part[int(place)][0]}: {name}: {error['reason']}")
    return RefusedRow(f"row {part[0][0]} or later: {refused}")


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
