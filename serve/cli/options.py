"""Options that several commands share, so that they are spelt and explained alike."""

from pathlib import Path
from typing import Annotated

import typer

Transactions = Annotated[Path, typer.Option(help="Transactions: Parquet, Arrow IPC or CSV.", show_default=False)]
Labels = Annotated[Path | None, typer.Option(help="Labels: transaction_id, is_fraud, reported_at.", show_default=False)]
Model = Annotated[Path, typer.Option(help="Folder of a trained model.", show_default=False)]
From = Annotated[str | None, typer.Option("--from", help="Begin at this moment (ISO 8601, UTC).", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Stop before this moment (ISO 8601, UTC).", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="Of training steps: float32 or bf16 (matrices and gradients).")]
Cache = Annotated[str, typer.Option(help="Keys and values: float32, float16 or int8.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first refused row.")]


def example(command: str) -> str:
    """The example at the end of a command's help."""
    return f"Example: ringwatch {command}"
