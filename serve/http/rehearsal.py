"""A rehearsal: code that is loaded or compiled when it first runs must not cost the first payment its time."""

import json
import tempfile
import time
from pathlib import Path

from data.schema import LABEL_SCHEMA, TRANSACTION_SCHEMA
from gnn.model.artifact import Artifact
from serve.http.wire import Label, Payment, batch_of, parse
from serve.replica.admission import CheckCall, LabelCall, ScoreCall
from serve.replica.replica import Replica
from serve.settings import Settings

PAYMENTS = 8


def rehearse(artifact: Artifact, settings: Settings) -> None:
    """Take some payments and a label the whole way, through a replica whose journal is thrown away.

    Args:
        artifact: The model.
        settings: The service's.
    """
    with tempfile.TemporaryDirectory(prefix="ringwatch-rehearsal-") as folder:
        aside = {"journal": Path(folder) / "journal.sqlite", "journal_topic": None, "snapshots": None, "device": "cpu"}
        replica = Replica(artifact, settings.model_copy(update=aside))
        replica.open()
        now = int(time.time() * 1e6)
        for i in range(PAYMENTS):
            call = ScoreCall(batch_of([parse(Payment, _payment(i, now))], TRANSACTION_SCHEMA))
            replica.answer_unrecorded(call)
            replica.process([CheckCall(call), call])
            replica.process([call])  # a repeat
        label = {"transaction_id": "p0", "is_fraud": True, "reported_at": now}
        replica.process([LabelCall(batch_of([parse(Label, json.dumps(label).encode())], LABEL_SCHEMA))])
        replica.ties.rings(1)
        replica.close()


def _payment(i: int, now: int) -> bytes:
    payment = {"transaction_id": f"p{i}", "timestamp": now, "account_id": f"a{i % 2}", "merchant_id": "m"}
    details = {"device_id": "d", "card_id": "c", "ip": "i", "payee_id": "b", "location_id": "l"}
    return json.dumps({**payment, **details, "amount": 100 * i, "currency": "EUR"}).encode()
