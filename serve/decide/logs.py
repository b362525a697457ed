"""Logs of what was done, read from a table: what `ringwatch policy value` takes."""

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serve.decide.off_policy import Log, LogError

TARGET, MODEL = "target.", "model."  # how the names of columns begin, an action behind each
NEEDED: Final = ("action", "propensity", "reward")


def read_log(path: Path) -> tuple[Log, tuple[str, ...]]:
    """A log from a Parquet file.

    Args:
        path: Columns `action` (text), `propensity`, `reward`, and for each action `target.ACTION`, the probability with
            which the policy that is judged takes it, and perhaps `model.ACTION`, what a model expects of it.

    Returns:
        The log, and its actions in the order of their columns.

    Raises:
        LogError: It cannot be read, or a column is missing or of no use; it is named.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise LogError(f"{path} is no Parquet file that can be read: {str(error).splitlines()[0]}") from None
    return log_of(table)


def log_of(table: pa.Table) -> tuple[Log, tuple[str, ...]]:
    """A log from a table; see `read_log`.

    Example:
        >>> columns = {"action": ["card", "bank"], "propensity": [0.5, 0.5], "reward": [1.0, 3.0]}
        >>> columns |= {"target.card": [0.0, 0.0], "target.bank": [1.0, 1.0]}
        >>> log, actions = log_of(pa.table(columns))
        >>> actions, log.weight.tolist()
        (('card', 'bank'), [0.0, 2.0])
    """
    for name in NEEDED:
        if name not in table.column_names:
            raise LogError(f"the column {name} is missing: a log has {', '.join(NEEDED)} and {TARGET}ACTION for each")
    actions = tuple(n.removeprefix(TARGET) for n in table.column_names if n.startswith(TARGET))
    if not actions:
        raise LogError(f"no column begins with {TARGET!r}: give {TARGET}ACTION for each action, a probability")
    modelled = [f"{MODEL}{name}" for name in actions]
    there = [name for name in modelled if name in table.column_names]
    if there and there != modelled:
        missing = next(name for name in modelled if name not in there)
        raise LogError(f"the column {missing} is missing: give {MODEL}ACTION for every action, or for none")
    found = pc.index_in(table["action"].cast(pa.string()), pa.array(actions))
    if found.null_count:
        stray = table["action"].cast(pa.string()).filter(pc.is_null(found))[0]
        raise LogError(f"action is {stray.as_py()!r} in a row, and there is no column {TARGET}{stray.as_py()}: add it")
    return (
        Log(
            found.to_numpy().astype(np.int64),
            _numbers(table, "propensity"),
            _numbers(table, "reward"),
            np.column_stack([_numbers(table, f"{TARGET}{name}") for name in actions]),
            np.column_stack([_numbers(table, name) for name in modelled]) if there else None,
        ),
        actions,
    )


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    try:
        column = table[name].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise LogError(f"{name} is {table[name].type}: give numbers") from None
    if column.null_count:
        raise LogError(f"{name} is null in {column.null_count} rows: leave those rows out, or fill them")
    found: NDArray[np.float64] = column.to_numpy()
    return found
