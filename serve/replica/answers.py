"""How answers are rendered."""

from typing import Any

import pyarrow as pa
from pydantic_core import to_json

ANSWER_SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("fraud_probability", pa.float64()),
        ("risk_score", pa.int32()),
        ("decision", pa.string()),
        ("ring_id", pa.string()),
        ("scored_by", pa.string()),
        ("degraded", pa.bool_()),
        ("journal_offset", pa.int64()),
        ("model_version", pa.string()),
    ]
)


def json_bytes(content: Any) -> bytes:
    """Compact JSON."""
    return to_json(content)
