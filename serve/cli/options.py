"""Options that several commands share, so that they are spelt and explained alike."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from data.files.address import Address
from data.files.options import ReadOptions
from serve.terminal import fail, plain_errors

_SOURCE = "Parquet, Arrow, CSV or JSON lines, compressed or not: a file, a folder, a glob or an address (s3://...)"
Transactions = Annotated[str, typer.Option(help=f"Transactions. {_SOURCE}; may be repeated.", show_default=False)]
SomeTransactions = Annotated[
    str | None, typer.Option(help=f"Transactions. {_SOURCE}; may be repeated.", show_default=False)
]
Labels = Annotated[
    str | None,
    typer.Option(help="Labels: transaction_id, is_fraud, reported_at; as --transactions.", show_default=False),
]
RequiredLabels = Annotated[
    str,
    typer.Option(
        help="Labels: transaction_id, is_fraud, reported_at; as --transactions. Or name a --label-column.",
        show_default=False,
    ),
]
Model = Annotated[Path, typer.Option(help="Folder of a trained model.", show_default=False)]
From = Annotated[str | None, typer.Option("--from", help="Begin at this moment (ISO 8601, UTC).", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Stop before this moment (ISO 8601, UTC).", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="Of training steps: float32 or bf16 (matrices and gradients).")]
Cache = Annotated[str, typer.Option(help="Keys and values: float32, float16 or int8.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first refused row.")]

# How transactions and labels are read. `reads` gives these to a command, under the names of `ReadOptions.of`.
_READING: dict[str, tuple[Any, Any]] = {
    "mapping": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--map",
                help="Columns of the file and their units: amount=TX_AMOUNT:major,timestamp=ts:ms,account_id=CUSTOMER. "
                "Units: major, minor; s, ms, us, ns, min, h, d, min@2020-01-01 or a pattern %d/%m/%Y; integer for ids. "
                "# is the number of the row.",
                show_default=False,
            ),
        ],
        None,
    ),
    "defaults": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--default",
                help="For missing values or columns: currency=EUR,merchant_id=transfer.",
                show_default=False,
            ),
        ],
        None,
    ),
    "amount_unit": (
        Annotated[
            str | None,
            typer.Option(
                help="major: 12.34 is 12.34 EUR, converted by the currency's ISO 4217 decimals; minor: whole minor "
                "units that are written as decimals (4200.0).",
                show_default=False,
            ),
        ],
        None,
    ),
    "decimal_comma": (Annotated[bool, typer.Option("--decimal-comma", help="Amounts are written 12,34.")], False),
    "label_column": (
        Annotated[
            str | None,
            typer.Option(
                help="Labels from this column of the transactions: isFraud, isFraud:frauds (only frauds are reported), "
                "Labels:unknown=2.",
                show_default=False,
            ),
        ],
        None,
    ),
    "label_delay": (
        Annotated[
            str | None, typer.Option(help="From a payment to the report of its label: 7d, 12h, 0s.", show_default=False)
        ],
        None,
    ),
    "max_refused": (
        Annotated[float, typer.Option(help="Share of refused rows above which the command fails (status 2).")],
        0.01,
    ),
}


def reads(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of reading: its `transactions` and `labels` become addresses that carry them.

    `--transactions` and `--labels` may be repeated. Labels that the command requires may be a column instead. A command
    that has an option `label_delay` of its own keeps it; the column's is then spelt `--label-column-delay`.
    """
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    required = "labels" in signature.parameters and signature.parameters["labels"].default is inspect.Parameter.empty
    own = {name: f"column_{name}" if name in signature.parameters else name for name in _READING}
    parameters, annotations = [], {}
    for name, parameter in signature.parameters.items():
        kind, default = hints[name], parameter.default
        if name in ("transactions", "labels"):
            kind = Annotated[list[str] | None, kind.__metadata__[0]]
            default = None
        annotations[name] = kind
        parameters.append(parameter.replace(annotation=kind, default=default, kind=parameter.KEYWORD_ONLY))
    for name, (kind, default) in _READING.items():
        if own[name] != name:
            kind = Annotated[str | None, typer.Option("--label-column-delay", help=kind.__metadata__[0].help)]
        annotations[own[name]] = kind
        parameters.append(
            inspect.Parameter(own[name], inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        )

    @functools.wraps(command)
    def run(**given: Any) -> None:
        words = {name: given.pop(own[name]) for name in _READING}
        mapping, defaults = (words.pop(name) or () for name in ("mapping", "defaults"))
        with plain_errors():
            options = ReadOptions.of(mapping, defaults, **words)
        if not given.get("transactions") and signature.parameters["transactions"].default is inspect.Parameter.empty:
            fail("--transactions is missing")
        given["transactions"], given["labels"] = _addresses(given.get("transactions"), given.get("labels"), options)
        if required and given["labels"] is None:
            fail("--labels is missing; or name a column of the transactions with --label-column and --label-delay")
        command(**given)

    del run.__wrapped__
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = annotations
    return run


def _addresses(
    transactions: list[str] | None, labels: list[str] | None, options: ReadOptions
) -> tuple[Address | None, Address | None]:
    """Both sources with their options; labels from a column of the payments are addressed by these."""
    if labels and options.label is not None:
        fail("give --labels or --label-column, not both")
    payments = Address.of(transactions, options) if transactions else None
    if options.label is not None:
        return payments, payments
    return payments, Address.of(labels, options) if labels else None


def example(command: str) -> str:
    """The example at the end of a command's help."""
    return f"Example: ringwatch {command}"
