"""`ringwatch ingest --outcomes`: what became of payments, from a file into a running service."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from tests.serve.stream.test_ingest import PAYMENTS, Run, artifact, ingest, service, write

__all__ = ["artifact", "ingest", "service"]  # fixtures
IDS = PAYMENTS.column("transaction_id").to_pylist()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_file_of_outcomes_is_recorded_once_and_unknown_payments_are_named(
    service: TestClient, ingest: Run, suffix: str
) -> None:
    path = Path(f"became.{suffix}")
    rows = [(IDS[0], "approved", "2026-02-01T00:00:00Z", None), (IDS[1], "refunded", "2026-02-02T00:00:00Z", 1)]
    rows.append(("nobody", "declined", "2026-02-02T00:00:00Z", None))
    if suffix == "parquet":
        names = ["transaction_id", "outcome", "at", "amount"]
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
    elif suffix == "csv":
        lines = [",".join("" if v is None else str(v) for v in row) for row in rows]
        path.write_text("\n".join(["transaction_id,outcome,at,amount", *lines]) + "\n")
    else:
        path.write_text(
            "".join(
                f'{{"transaction_id": "{i}", "outcome": "{o}", "at": "{t}", "amount": {a or "null"}}}\n'
                for i, o, t, a in rows
            )
        )
    first = ingest("--transactions", write("day.parquet", PAYMENTS), "--outcomes", path)
    assert "outcomes: 2 accepted, 0 repeated, 1 of unknown payments" in first.output, first.output
    again = ingest("--outcomes", path)
    assert "outcomes: 0 accepted, 2 repeated, 1 of unknown payments" in again.output
    assert service.app.state.replica.decider.outcomes.now(PAYMENTS.column("account_id")[1].as_py()).refunds == 1


def test_a_refused_outcome_is_named_by_its_row_and_a_missing_column_by_its_name(ingest: Run) -> None:
    ingest("--transactions", write("day.parquet", PAYMENTS))
    Path("bad.csv").write_text(f"transaction_id,outcome,at\n{IDS[0]},approved,2026-02-01\n{IDS[1]},stolen,2026-02-01\n")
    bad = ingest("--outcomes", "bad.csv")
    assert bad.exit_code != 0
    assert "row 1: outcome: " in bad.output, bad.output
    Path("short.csv").write_text("transaction_id,at\n")
    assert "short.csv: the required column outcome is missing" in ingest("--outcomes", "short.csv").output
