"""`ringwatch policy fees`: who pays what under a policy that prices by risk, against what each segment loses."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from serve.cli.policy_value import AsJson
from serve.terminal import fail, one_of, out, plain_errors

if TYPE_CHECKING:
    import pyarrow as pa

    from serve.decide.pricing import SegmentFees

SEGMENTS = ("country", "currency", "channel", "mcc", "amount")
BANDS = (10, 50, 200, 1000)  # of amounts, in major units of the payment's currency


def fees(
    file: Annotated[Path, typer.Argument(help="Policy file with a section pricing.", show_default=False)],
    transactions: Annotated[Path, typer.Option(help="Their payments: Parquet.", show_default=False)],
    scores: Annotated[Path, typer.Option(help="Folder or file of ringwatch rescore.", show_default=False)],
    labels: Annotated[Path | None, typer.Option(help="What is known by now: Parquet.", show_default=False)] = None,
    by: Annotated[str, typer.Option(help=f"Segments: {', '.join(SEGMENTS)}.")] = "country",
    as_json: AsJson = False,
) -> None:
    """Report who would pay which fee, against expected and known losses of each segment: docs/costs.md."""
    one_of("--by", by, SEGMENTS)
    with plain_errors():
        found = _report(file, transactions, scores, labels, by)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    table = Table(by, "payments", "mean bps", "fees for expected loss", "fees for known loss", "expected loss, bps")
    for one in found:
        relative = ["" if x is None else f"{x:.2f}" for x in (one.against_expected, one.against_lost)]
        share = 1e4 * one.expected_loss / one.amount if one.amount else 0.0
        name, payments = one.segment or "none", f"{one.payments:,}"
        table.add_row(name, payments, f"{one.mean_bps:.1f}", *relative, f"{share:.1f}")
    out.print(table)
    out.print("1.00 pays as everybody does for the same loss", highlight=False)


def _report(file: Path, transactions: Path, scores: Path, labels: Path | None, by: str) -> "list[SegmentFees]":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from data.schema import check_labels, check_transactions
    from serve.decide.costs import CostsError, payments_of
    from serve.decide.policies.parsing import load
    from serve.decide.pricing import fairness

    money = load(file).economics
    if money is None or money.pricing is None:
        raise CostsError("pricing", f"is missing in {file}, so it prices nothing: add a section 'pricing:'")
    payments, refused = check_transactions(_read(transactions), str(transactions))
    if refused:
        fail(f"{refused[0]} ({len(refused)} rows like it): mend them first")
    scored = _read(scores)
    for name in ("transaction_id", "fraud_probability"):
        if name not in scored.column_names:
            fail(f"{scores} has no column {name}: give what ringwatch rescore writes")
    at = pc.index_in(payments["transaction_id"], scored["transaction_id"].combine_chunks())
    if at.null_count:
        fail(f"{scores} has no score of {at.null_count:,} payments: score these first (ringwatch rescore)")
    probability = scored["fraud_probability"].combine_chunks().take(at).to_numpy().astype(np.float64)
    amount, currency = payments["amount"].to_numpy(), payments["currency"].to_pylist()
    known = payments_of(money.costs, probability, amount, currency)
    fraud = None
    if labels is not None:
        told, _ = check_labels(_read(labels), str(labels))
        newest = dict(zip(told["transaction_id"].to_pylist(), told["is_fraud"].to_pylist(), strict=True))
        fraud = np.array([bool(newest.get(name)) for name in payments["transaction_id"].to_pylist()])
    segment = _bands(payments) if by == "amount" else [v or "" for v in payments[by].cast(pa.string()).to_pylist()]
    return fairness(money.pricing.fees(money.costs, known), money.costs, known, segment, fraud)


def _read(path: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.dataset as ds

    from data.errors import DataError

    if not path.exists():
        fail(f"no such file: {path}")
    try:
        return ds.dataset(path, format="parquet", exclude_invalid_files=True).to_table()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no Parquet that can be read: {str(error).splitlines()[0]}") from None


def _bands(payments: "pa.RecordBatch") -> list[str]:
    """The band of each amount, as people read it."""
    from bisect import bisect_right
    from itertools import pairwise

    from data.currency import exponent

    names = [f"below {BANDS[0]}", *(f"{a} to {b}" for a, b in pairwise(BANDS))]
    names.append(f"{BANDS[-1]} and more")
    amounts, currencies = payments["amount"].to_pylist(), payments["currency"].to_pylist()
    return [names[bisect_right(BANDS, a / 10 ** exponent(c))] for a, c in zip(amounts, currencies, strict=True)]
