"""Which reported outcomes get into a commit: repeats are told from news and from what cannot be true."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from data.journal.protocol import OutcomeIndex, outcomes_of
from data.outcomes import Became, contradiction, differing
from serve.problems import Problem

SHOWN: Final = 20  # contradictions of a call that are spelled out

Payments = Callable[[Sequence[str]], Mapping[str, Mapping[str, Any]]]


@dataclass
class ReportedOutcomes:
    """Outcomes that one commit lets in, each once, whatever was recorded before.

    Attributes:
        index: What the journal holds.
        payments: Reads the payments of ids again, all of which are recorded: amount, account and mandate.
    """

    index: OutcomeIndex
    payments: Payments
    _new: dict[str, Became] = field(default_factory=dict)  # of this commit, by id

    def fresh(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, Became]]:
        """What of a call is new: the events of it, with account and mandate, and the outcomes by id.

        Args:
            batch: Of `SCHEMAS[Kind.OUTCOME]`, all of recorded payments, [n].

        Raises:
            Problem: 409, an id stands for another outcome, or an outcome contradicts another one of its payment.
        """
        sent = outcomes_of(batch)
        known = self.index.find([became.outcome_id for became in sent]) | self._new
        payments = self.payments([became.transaction_id for became in sent])
        there = self._of(payments)
        rows, fresh = list[int](), dict[str, Became]()
        wrong: list[tuple[str, str]] = []
        for i, became in enumerate(sent):
            place = f"{i}." if len(sent) > 1 else ""
            if (earlier := known.get(became.outcome_id) or fresh.get(became.outcome_id)) is not None:
                wrong += [
                    (f"{place}{name}", f"recorded as {getattr(earlier, name)!r}, sent {getattr(became, name)!r}")
                    for name in differing(earlier, became)
                ]
                continue
            others = there.setdefault(became.transaction_id, [])
            found = contradiction(became, payments[became.transaction_id]["amount"], others)
            if found is not None:
                wrong.append((f"{place}{found[0]}", found[1]))
                continue
            others.append(became)
            fresh[became.outcome_id] = became
            rows.append(i)
        if wrong:
            name, reason = wrong[0]
            detail = f"an outcome contradicts what is recorded: {name}: {reason}"
            raise Problem(409, "Conflict", detail, wrong[:SHOWN])
        return _with_payments(batch.take(pa.array(rows, pa.int64())), payments), fresh

    def add(self, fresh: Mapping[str, Became]) -> None:
        """These are in the commit."""
        self._new.update(fresh)

    def _of(self, payments: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Became]]:
        there = self.index.of(list(payments))
        for became in self._new.values():
            if became.transaction_id in payments:
                there.setdefault(became.transaction_id, []).append(became)
        return there


def _with_payments(batch: pa.RecordBatch, payments: Mapping[str, Mapping[str, Any]]) -> pa.RecordBatch:
    """Events with the account and the mandate of their payments."""
    of = [payments[name] for name in batch.column("transaction_id").to_pylist()]
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns |= {name: pa.array([payment[name] for payment in of], pa.string()) for name in ("account_id", "mandate_id")}
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)
