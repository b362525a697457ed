"""Messages of a stream: payments and labels as the API takes them, JSON or Arrow."""

from typing import Final

import pyarrow as pa
from pydantic_core import from_json

from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from serve.http.wire import Label, Payment, batch_of, given_of, parse, read_arrow, refuse_future
from serve.problems import Problem
from serve.replica.admission import LabelCall, ScoreCall

MOST: Final = 10_000  # payments or labels of one message
_MARK: Final = "is_fraud"  # what a label has and a payment has not


def call_of(value: bytes | None, *, reasons: bool, max_future_s: float) -> ScoreCall | LabelCall:
    """Read a message.

    A JSON object is one payment or one label, a JSON list several of one kind, anything else an Arrow IPC stream of one
    kind. What has `is_fraud` is a label.

    Args:
        value: The message.
        reasons: Whether answers to JSON say why; those to Arrow never do.
        max_future_s: Seconds that the sender's clock may be ahead.

    Raises:
        Problem: It is no payment or label that the API would take.
    """
    if not value:
        raise Problem(400, "Malformed message", "the message is empty")
    call = _json(value, reasons) if value.lstrip()[:1] in (b"{", b"[") else _arrow(value)
    if not len(call.batch):
        raise Problem(422, "Invalid content", "the message holds no payments or labels")
    refuse_future(call.batch, "timestamp" if isinstance(call, ScoreCall) else "reported_at", max_future_s)
    return call


def _json(value: bytes, reasons: bool) -> ScoreCall | LabelCall:
    several = value.lstrip()[:1] == b"["
    try:
        first = from_json(value)
    except ValueError as error:
        raise Problem(400, "Malformed JSON", f"the message is no JSON text: {error}") from None
    if several:
        first = first[0] if first else {}
    shape, most = Label if isinstance(first, dict) and _MARK in first else Payment, MOST if several else None
    found = parse(shape, value, most)
    items = found if several else [found]
    if shape is Label:
        return LabelCall(batch_of(items, LABEL_SCHEMA))
    return ScoreCall(batch_of(items, TRANSACTION_SCHEMA), reasons=reasons, given=given_of(items))


def _arrow(value: bytes) -> ScoreCall | LabelCall:
    try:
        with pa.ipc.open_stream(value) as reader:
            labels = _MARK in reader.schema.names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Problem(400, "Malformed message", f"neither JSON nor an Arrow IPC stream: {error}") from None
    batch, given = read_arrow(value, LABEL_SCHEMA if labels else TRANSACTION_SCHEMA, MOST)
    return LabelCall(batch) if labels else ScoreCall(batch, reasons=False, table=True, given=given)
