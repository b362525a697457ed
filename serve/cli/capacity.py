"""The memory that a deployment needs, as a table for people."""

import math
import os
from collections.abc import Mapping

import numpy as np
from rich.table import Table

from gnn.model.network import ModelConfig
from gnn.score.cuda_scorer import device_bytes
from gnn.score.replay import late_capacity
from graph.capacity import Deployment, Line, estimate, row_bytes
from graph.errors import GraphError

GIB = 2**30


def planned(
    roles: tuple[str, ...],
    entities: Mapping[str, float],
    transactions: float | None,
    labels: float,
    ties: float | None,
    window_rows: float,
    layers: int,
) -> Deployment:
    """A deployment from what is known of it.

    Args:
        roles: Roles kept.
        entities: Distinct entities in the buffer, by entity type.
        transactions: Payments in the buffer; by default as many as make a late model exact.
        labels: Label events held.
        ties: Pairs of an account and a device or card; by default one for each account or device, whichever are more.
        window_rows: Rows back that a payment sees.
        layers: Of the model.

    Raises:
        GraphError: A number is not finite.
    """
    numbers = [*entities.values(), labels, window_rows, transactions or 0, ties or 0]
    if not all(math.isfinite(number) for number in numbers):
        raise GraphError("every number must be finite")
    return Deployment(
        late_capacity(int(window_rows), layers) if transactions is None else int(transactions),
        {name: int(many) for name, many in entities.items()},
        roles,
        labels=int(labels),
        ties=int(max(entities["account"], entities["device"]) if ties is None else ties),
    )


def model_lines(d: Deployment, config: ModelConfig, models: int) -> list[Line]:
    """What the live versions of a model add."""
    size = config.layers * 2 * config.width * np.dtype(config.cache).itemsize
    return [
        Line(
            f"keys and values of {models} live model(s), {config.cache}",
            models * (size + 1),
            d.transactions,
            "transaction",
        ),
        Line("last scores", 8, d.transactions, "transaction"),
    ]


def capacity_lines(d: Deployment, config: ModelConfig, models: int) -> list[Line]:
    """Every part of a replica's memory.

    Raises:
        GraphError: The deployment is incomplete.
    """
    return [*estimate(d), *model_lines(d, config, models)]


def capacity_table(d: Deployment, config: ModelConfig, models: int) -> Table:
    """Every part, and the sums that matter.

    Raises:
        GraphError: The deployment is incomplete.
    """
    lines = capacity_lines(d, config, models)
    table = Table(title=f"{d.transactions:,} transactions, {len(d.roles)} roles")
    for name in ("part", "bytes", "per", "count", "GiB"):
        table.add_column(name, justify="left" if name in ("part", "per") else "right")
    for line in lines:
        table.add_row(line.what, f"{line.size:.3g}", line.per, f"{line.count:,}", f"{line.total / GIB:.2f}")
    table.add_section()
    total = sum(line.total for line in lines)
    rows = sum(line.total for line in lines if line.what.startswith(("row:", "jumps")))
    entity = sum(line.size for line in lines if line.what in ("id index: heads", "id index: buckets"))
    table.add_row("a transaction's row", str(row_bytes(d.roles, velocity=False)), "transaction", "", "")
    table.add_row("with exact windows", str(row_bytes(d.roles, velocity=True)), "transaction", "", f"{rows / GIB:.2f}")
    ties = sum(line.size for line in lines if line.what.startswith("rings:") and line.per == "entity")
    table.add_row("an entity in the store, beside its id", f"{entity:.3g}", "entity", "", "")
    table.add_row("an entity in the rings", f"{ties:.3g}", "entity", "", "")
    exact = late_capacity(config.window_rows, config.layers)
    what = f"a model of {config.layers} layer(s) that is added later is exact from"
    enough = "held" if d.transactions >= exact else "[red]more than held[/red]"
    table.add_row(what, f"{exact:,}", "transactions", enough, "")
    table.add_row("total", "", "", "", f"{total / GIB:.2f}", style="bold")
    there = device_bytes(config, d.transactions)
    table.add_row("also on a GPU, if one scores", "", "", "", f"{there / GIB:.2f}")
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    table.caption = f"this machine has {here / GIB:.1f} GiB" + ("" if total < here else ": not enough")
    return table
