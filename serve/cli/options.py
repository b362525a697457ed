"""Options that several commands share, so that they are spelt and explained alike; and how a history is given."""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from data.files.address import Address
from data.files.options import ReadOptions
from serve.terminal import fail, plain_errors

if TYPE_CHECKING:  # read when a command runs, not when its help is shown
    from data.files.readers import OnRefusal
    from data.files.sources import Run
    from data.history import History

_SOURCE = "Parquet, Arrow, CSV or JSON lines, compressed or not: a file, a folder, a glob or an address (s3://...)"
Transactions = Annotated[
    str | None,
    typer.Option(
        help=f"Transactions. {_SOURCE}; may be repeated. Or a folder with transactions.parquet and labels.parquet.",
        show_default=False,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Labels: columns transaction_id, is_fraud and reported_at, in the same formats. Or use --label-column.",
        show_default=False,
    ),
]
Journal = Annotated[Path | None, typer.Option(help="Journal of a service, instead of files.", show_default=False)]
Model = Annotated[Path, typer.Option(help="Folder of a trained model.", show_default=False)]
From = Annotated[str | None, typer.Option("--from", help="Start at this time (ISO 8601, UTC).", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Stop before this time (ISO 8601, UTC).", show_default=False)]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="Precision of training steps: float32 or bf16.")]
Cache = Annotated[str, typer.Option(help="Number format of the key-value cache: float32, float16 or int8.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first refused row.")]

# How transactions and labels are read. `reads` gives these to a command, under the names of `ReadOptions.of`.
_READING: dict[str, tuple[Any, Any]] = {
    "mapping": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--map",
                help="The file's names of columns, with units where needed: "
                "account_id=CUSTOMER,amount=TX_AMOUNT:major,timestamp=ts:ms. Units of amounts: major, minor. Of times: "
                "s, ms, us, ns, min, h, d since 1970 or another date (min@2020-01-01), or a pattern like %d/%m/%Y. "
                "Of ids: integer. transaction_id=# takes the number of the row.",
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
                help="Values for missing columns or cells: currency=EUR,merchant_id=transfer.",
                show_default=False,
            ),
        ],
        None,
    ),
    "amount_unit": (
        Annotated[
            str | None,
            typer.Option(
                help="Unit of amounts that have decimals. major: 12.34 means 12.34 EUR (how many decimals depends "
                "on the currency). minor: 4200.0 means 4,200 cents.",
                show_default=False,
            ),
        ],
        None,
    ),
    "decimal_comma": (
        Annotated[bool, typer.Option("--decimal-comma", help="Amounts have a decimal comma: 12,34.")],
        False,
    ),
    "label_column": (
        Annotated[
            str | None,
            typer.Option(
                help="Take labels from this column of the transactions: isFraud. If only frauds are reported: "
                "isFraud:frauds. If 2 means unknown: isFraud:unknown=2.",
                show_default=False,
            ),
        ],
        None,
    ),
    "label_delay": (
        Annotated[
            str | None,
            typer.Option(help="Time from a payment to the report of its label: 7d, 12h, 0s.", show_default=False),
        ],
        None,
    ),
    "max_refused": (
        Annotated[float, typer.Option(help="Fail (status 2) if a larger share of rows is refused.")],
        0.01,
    ),
}


def writes(path: Path) -> Path:
    """Check that a file or folder can be written, before hours of work and not after.

    Raises:
        typer.BadParameter: It cannot.
    """
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK):
        raise typer.BadParameter(f"{path}: no permission to write to {place}")
    if place != path and not place.is_dir():
        raise typer.BadParameter(f"{path}: {place} is a file, not a folder")
    return path


def writes_folder(path: Path | None) -> Path | None:
    """As `writes`, for a folder."""
    if path is not None and writes(path).exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file: name a folder")
    return path


def writes_file(path: Path | None) -> Path | None:
    """As `writes`, for a file."""
    if path is not None and writes(path).is_dir():
        raise typer.BadParameter(f"{path} is a folder: name a file in it")
    return path


def folder_option(help: str, *names: str) -> Any:
    """An option that names a folder to write to, which is checked before the command begins."""
    return typer.Option(*names, help=help, callback=writes_folder)


def file_option(help: str, *names: str) -> Any:
    """An option that names a file to write, which is checked before the command begins."""
    return typer.Option(*names, help=help, callback=writes_file)


def reads(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of reading: its `transactions` and `labels` become addresses that carry them.

    `--transactions` and `--labels` may be repeated. With `--label-column` the labels are the payments' own address. A
    command that has an option `label_delay` of its own keeps it; the column's is then spelt `--label-column-delay`.
    """
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
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
        given["transactions"], given["labels"] = _addresses(given.get("transactions"), given.get("labels"), options)
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


@dataclass(frozen=True)
class HistoryFrom:
    """Where a command's history comes from, checked as far as that goes without reading it.

    Attributes:
        transactions: Payments, or a folder with both.
        labels: Labels; the payments' own address, where they are a column of these.
        journal: A service's journal, in place of both.
        labelled: Whether the command can do nothing without labels.
        sent: Whether all of it goes to a service, which knows its own payments: labels may then come alone.
    """

    transactions: str | None = None
    labels: str | None = None
    journal: Path | None = None
    labelled: bool = True
    sent: bool = False

    def __post_init__(self) -> None:
        if self.transactions is None and self.labels is not None:
            if self.sent and self.journal is None:
                return
            fail("--labels needs --transactions")
        if (self.transactions is None) == (self.journal is None):
            fail("give either --transactions or --journal")
        if self.transactions is None or self.labels is not None or not self.labelled:
            return
        if not _has_labels(Path(self.transactions)):
            fail("--labels is missing; or name a column of the transactions with --label-column and --label-delay")

    def read(
        self,
        start: datetime | None = None,
        stop: datetime | None = None,
        strict: bool = False,
        on_refusal: "OnRefusal | None" = None,
    ) -> "History":
        """The history, held in memory; the arguments are those of `History.read`."""
        from data.history import History

        return History.read(self.source, self.labels, start=start, stop=stop, strict=strict, on_refusal=on_refusal)

    def stream(
        self,
        start: datetime | None = None,
        stop: datetime | None = None,
        strict: bool = False,
        on_refusal: "OnRefusal | None" = None,
    ) -> "Iterator[Run]":
        """Its events in bounded memory; the arguments are those of `data.history.stream`."""
        from data.files.streams import stream

        source = None if self.sent and self.journal is None and self.transactions is None else self.source
        return stream(
            source,
            self.labels,
            start=start,
            stop=stop,
            strict=strict,
            on_refusal=on_refusal,
            every_label=self.sent,
        )

    @property
    def source(self) -> Path | str:
        """The journal, or the payments."""
        from data.files.streams import holds_journal

        if self.journal is None:
            assert self.transactions is not None
            return self.transactions
        if not self.journal.exists():
            fail(f"no journal at {self.journal}")
        if not holds_journal(self.journal):
            fail(f"{self.journal} is not a journal")
        return self.journal


def _has_labels(source: Path) -> bool:
    """Whether labels come with a source, or its reader will say what it lacks."""
    from data.files.streams import holds_journal

    if (source / "transactions.parquet").is_file():
        return (source / "labels.parquet").is_file()
    return holds_journal(source) or (source / "labels.parquet").is_file()
