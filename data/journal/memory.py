"""Events of files in memory, at the offsets that a journal would give them."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.journal.protocol import SCHEMAS, Events, Kind


class KeptEvents:
    """Events of files in memory, where their payments can be read again by offset.

    Args:
        events: In journal order.
    """

    def __init__(self, events: Iterable[Events]) -> None:
        self.events = list(events)
        self._first = np.array([e.offset for e in self.events], np.int64)

    def take(self, offsets: NDArray[np.int64]) -> pa.Table:
        """Transactions by offset, in the order asked for."""
        wanted, back = np.unique(offsets, return_inverse=True)
        at = np.searchsorted(self._first, wanted, "right") - 1
        found = [SCHEMAS[Kind.TRANSACTION].empty_table()]
        for i in np.unique(at).tolist():
            held = self.events[i]
            found.append(pa.Table.from_batches([held.batch]).take(pa.array(wanted[at == i] - held.offset)))
        return pa.concat_tables(found).take(pa.array(back))
