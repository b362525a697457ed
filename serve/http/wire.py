"""What goes over HTTP: pydantic models at the edge, canonical Arrow batches inside.

The hot route validates the raw body with a compiled `TypeAdapter`; the models also describe the API (OpenAPI).
"""

import time
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Self, get_args

import pyarrow as pa
from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from data.errors import DataError
from data.journal.protocol import SCHEMAS, Kind
from data.outcomes import PARTIAL, Reported, default_id
from data.schema import (
    MAX_AMOUNT,
    MAX_ID,
    MAX_TRANSACTION_ID,
    TRANSACTION_SCHEMA,
    Refusal,
    check_labels,
    check_transactions,
)
from graph.rings.index import Ring
from serve.decide.decision import Decision
from serve.http import values
from serve.http.ipc import expanded_bytes, is_compressed
from serve.problems import Problem, invalid, too_many

ARROW = "application/vnd.apache.arrow.stream"
GIVEN = "decision_given"
MAX_ONE = 1 << 16  # bytes of one payment or label; a good one has a few hundred, and 12 KiB at the very most
MAX_EXPANDED = 32 << 20  # bytes of text in an Arrow stream; 10,000 good payments have at most 16 MB
MAX_ERRORS = 60_000  # that are spelled out: each of 10,000 payments without its six required fields

Moment = Annotated[
    int,
    BeforeValidator(values.moment, json_schema_input_type=datetime | int),
    Field(
        description="ISO 8601 (RFC 3339), UTC where it has no offset; or integer microseconds since 1970 UTC",
        examples=["2026-01-31T12:00:00Z"],
    ),
]
AsOf = Annotated[
    Moment | None,
    Query(
        description="What has expired by this moment is left out: by default now, at the earliest that of the "
        "newest payment"
    ),
]
Amount = Annotated[
    int,
    BeforeValidator(values.amount, json_schema_input_type=int),
    Field(ge=0, le=MAX_AMOUNT, description="in minor units"),
]
Flag = Annotated[bool, BeforeValidator(values.flag, json_schema_input_type=bool)]
TransactionId = Annotated[
    str,
    BeforeValidator(values.name("transaction_id"), json_schema_input_type=str | int),
    Field(min_length=1, max_length=MAX_TRANSACTION_ID),
]
Id = Annotated[
    str,
    BeforeValidator(values.name("account_id"), json_schema_input_type=str | int),
    Field(min_length=1, max_length=MAX_ID),
]


class Wire(BaseModel):
    """Strict: nothing unknown is let through, and a value is what `data.columns` lets it be at every door."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Payment(Wire):
    """A payment to score."""

    transaction_id: TransactionId
    timestamp: Moment
    account_id: Id
    merchant_id: Id
    device_id: Id | None = None
    amount: Amount
    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217", examples=["EUR"])
    ip: Id | None = None
    card_id: Id | None = None
    payee_id: Id | None = None
    location_id: Id | None = None
    channel: Id | None = None
    mcc: Id | None = None
    country: Id | None = None
    agent_id: Id | None = Field(None, description="the agent that makes the payment for the account's owner")
    mandate_id: Id | None = Field(None, description="the mandate that the agent makes it under (`/v1/mandates`)")
    decision_given: Decision | None = Field(
        None,
        description="the decision of an answer to this payment that said `recorded: false`: it stands, and is recorded "
        "with the payment",
    )


class Label(Wire):
    """What became known of a payment."""

    transaction_id: TransactionId
    is_fraud: Flag
    reported_at: Moment


class Outcome(Wire):
    """What became of a payment. It is no label: no score reads it."""

    transaction_id: TransactionId
    outcome: Reported
    at: Moment
    amount: int | None = Field(
        None,
        ge=1,
        le=MAX_AMOUNT,
        description="of what part of the money, in minor units of the payment's currency; null for all of it. "
        f"Only with {', '.join(sorted(PARTIAL))}",
    )
    outcome_id: Id | None = Field(
        None,
        description="tells a repeat from news; by default made from the content, so that two outcomes of the same "
        "content at the same moment are one",
    )
    by: Id | None = Field(None, description="who says so", examples=["bank"])

    @model_validator(mode="after")
    def _is_partial(self) -> Self:
        if self.amount is not None and self.outcome not in PARTIAL:
            raise ValueError(f"amount: {self.outcome} is of the whole payment; leave the amount out")
        return self


class OutcomesAccepted(BaseModel):
    """The outcomes of a call, all durable now."""

    accepted: int = Field(description="recorded now")
    repeated: int = Field(description="recorded before: the same id and content")


class LabelsAccepted(BaseModel):
    """The labels of a call, all durable now. What is believed of a payment is its label with the newest report."""

    accepted: int = Field(description="recorded now, and believed from now on")
    repeated: int = Field(description="recorded before: the same payment, verdict and report")
    superseded: int = Field(description="recorded now, but older than another label of the payment, which is believed")


class SharedOut(BaseModel):
    """What members of a ring share."""

    role: str
    name: str
    accounts: int


class RingOut(BaseModel):
    """A ring as of now, or of the moment that was asked for."""

    id: str
    accounts: list[str]
    shared: list[SharedOut]
    transactions: list[str]
    first_seen: datetime
    last_seen: datetime
    at_risk: dict[str, int] = Field(
        description="sums of its payments that are not known to be legitimate, by currency, in minor units"
    )
    known_frauds: int
    risk: float


@cache
def adapter(shape: Any, most: int | None = None) -> TypeAdapter[Any]:
    """The compiled validator of a body, or of a list of at most so many."""
    return TypeAdapter(shape if most is None else Annotated[list[shape], Field(max_length=most)])


def parse(shape: Any, body: bytes, most: int | None = None) -> Any:
    """A JSON body, checked.

    Args:
        shape: A model of this module.
        body: One of it, or
        most: a list of at most so many.

    Raises:
        Problem: 400 where it is no JSON, 413 where it is too long, 422 with field and reason where it is bad.
    """
    if most is None and len(body) > MAX_ONE:
        raise Problem(413, "Body too large", f"one item may have at most {MAX_ONE:,} bytes")
    try:
        return adapter(shape, most).validate_json(body)
    except ValidationError as error:
        # Millions of errors fit into a body: to spell them out would take gigabytes, and the time of everybody else.
        if error.error_count() > MAX_ERRORS:
            reason = f"breaks the schema in {error.error_count():,} places"
            raise invalid([("body", reason)]) from None
        found = error.errors(include_url=False, include_context=False, include_input=False)
    except (UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "Malformed JSON", f"the body is no JSON text: {error}") from None
    if found[0]["type"] == "json_invalid":
        raise Problem(400, "Malformed JSON", found[0]["msg"])
    if most is not None and (found[0]["type"], found[0]["loc"]) == ("too_long", ()):
        raise too_many(most)
    raise invalid([(_where(e["loc"]), _why(e["msg"])) for e in found])


def _where(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location) or "body"


def _why(message: str) -> str:
    return message.removeprefix("Value error, ")


def batch_of(items: Sequence[Payment] | Sequence[Label], schema: pa.Schema) -> pa.RecordBatch:
    """Checked items as a canonical batch."""
    # Rows at once, as structs: a payment by itself costs a quarter of what an array for each column does.
    return pa.RecordBatch.from_struct_array(pa.array([item.__dict__ for item in items], pa.struct(list(schema))))


def outcomes_batch(items: Sequence[Outcome]) -> pa.RecordBatch:
    """Checked outcomes as events; account and mandate are filled in where the payments are known."""
    rows = [item.__dict__.copy() for item in items]
    for row in rows:
        row["outcome_id"] = row["outcome_id"] or default_id(
            row["transaction_id"], row["outcome"], row["at"], row["amount"], row["by"]
        )
    return pa.RecordBatch.from_pylist(rows, SCHEMAS[Kind.OUTCOME])


def given_of(items: Sequence[Payment]) -> Sequence[Decision | None]:
    """The decisions that the caller was given before, [n], or nothing where there is none."""
    given = [item.decision_given for item in items]
    return given if any(given) else ()


def read_arrow(body: bytes, schema: pa.Schema, most: int) -> tuple[pa.RecordBatch, Sequence[Decision | None]]:
    """An Arrow IPC stream as a canonical batch, every row good, and the decisions given before (`given_of`).

    Raises:
        Problem: 400 where it is no Arrow stream, 413 where it is too long, 415 where it is compressed, 422 with field
            and reason.
    """
    check = check_transactions if schema is TRANSACTION_SCHEMA else check_labels
    try:
        if is_compressed(body):
            raise Problem(415, "Unsupported media type", "send the Arrow stream without compression of its buffers")
        with pa.ipc.open_stream(body) as reader:
            batches, rows, expanded = [], 0, 0
            for batch in reader:
                batch.validate(full=True)
                batches.append(batch)
                rows += batch.num_rows
                expanded += expanded_bytes(batch)
                if rows > most:
                    raise too_many(most)
                if expanded > MAX_EXPANDED:
                    detail = f"its dictionaries, runs or views stand for more than {MAX_EXPANDED:,} bytes of text"
                    raise Problem(413, "Body too large", detail)
            table = pa.Table.from_batches(batches, reader.schema)
        good, refused = check(table, "body", notation=values.API)
    except DataError as error:
        raise Problem(422, "Invalid content", str(error), [("body", str(error))]) from None
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise Problem(400, "Malformed Arrow stream", f"the body is no Arrow IPC stream: {error}") from None
    if refused:
        raise invalid([_refusal(r) for r in refused])
    return good, _given(table)


def _given(table: pa.Table) -> Sequence[Decision | None]:
    if GIVEN not in table.column_names:
        return ()
    given: list[Any] = table[GIVEN].to_pylist()
    for i, decision in enumerate(given):
        if decision is not None and decision not in get_args(Decision):
            raise invalid([(f"{i}.{GIVEN}", f"must be one of {', '.join(get_args(Decision))}")])
    return given if any(given) else ()


def _refusal(refusal: Refusal) -> tuple[str, str]:
    return f"{refusal.row}.{refusal.column}", refusal.reason


def arrow_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def refuse_future(batch: pa.RecordBatch, field: str, most_s: float) -> None:
    """Refuse payments or labels of a moment that is still to come.

    The journal's clock never runs back: one moment far ahead would age all that is known of everybody. The wall clock
    is only looked at here; it enters no score.

    Args:
        batch: Canonical.
        field: Its column of moments.
        most_s: Seconds that clocks may differ by.

    Raises:
        Problem: 422, with the first of them.
    """
    times = batch.column(field).view(pa.int64()).to_numpy()
    if len(times):
        at = int(times.argmax())
        refuse_future_moment(int(times[at]), f"{at}.{field}" if len(times) > 1 else field, most_s)


def refuse_future_moment(moment: int, where: str, most_s: float) -> None:
    """As `refuse_future`, for one moment (us) and the name of its field."""
    ahead = moment * 1e-6 - time.time()
    if ahead > most_s:
        reason = f"lies {ahead:,.0f} s in the future; at most {most_s:,.0f} s are taken for a difference of clocks"
        raise Problem(422, "Invalid content", f"{where}: {reason}", [(where, reason)])


def moment_or_now(as_of: int | None, clock: int) -> int:
    """A moment that was asked for, or the wall clock's, which is not behind the journal's `clock`; us."""
    return max(time.time_ns() // 1000, clock) if as_of is None else as_of


def ring_out(ring: Ring, transactions: list[str]) -> RingOut:
    """A ring for JSON."""
    return RingOut(
        id=ring.id,
        accounts=list(ring.accounts),
        shared=[SharedOut(role=e.role, name=e.name, accounts=e.accounts) for e in ring.shared],
        transactions=transactions,
        first_seen=values.EPOCH + ring.first_seen * values.TICK,
        last_seen=values.EPOCH + ring.last_seen * values.TICK,
        at_risk=dict(ring.at_risk),
        known_frauds=ring.known_frauds,
        risk=ring.risk,
    )
