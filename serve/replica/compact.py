"""Answers as they are kept: their values alone, deflated against a dictionary of what answers have in common.

An answer is a kilobyte of JSON, most of it names of fields and sentences that every answer has. Lists of fields and
dictionary are part of the form: they are never changed, another one would be another form beside it. An answer of other
fields is kept with their names, so that nothing is lost where a field was added.
"""

import zlib
from typing import Any, Final

from pydantic_core import from_json, to_json

from serve.errors import ServeError

_PLAIN: Final = b"{"  # an answer as it was kept before there was a compact form
_NAMED: Final = b"\x01"  # with the names of its fields, deflated
_VALUES: Final = b"\x02"  # without
_FIELDS: Final = [
    "transaction_id",
    "fraud_probability",
    "risk_score",
    "decision",
    "action",
    "policy",
    "rules",
    "expected_loss",
    "fee_bps",
    "route",
    "mandate",
    "baseline",
    "reasons",
    "ring",
    "model",
    "scored_by",
    "degraded",
    "journal_offset",
    "recorded",
    "earlier_decision",
    "timings",
]
_MODEL: Final = ["name", "version"]
_REASON: Final = ["code", "message", "contribution"]
_TIMINGS: Final = ["commit", "graph", "score", "reasons", "total"]
# What is most likely comes last: deflate refers to what is near with fewer bits.
_DICTIONARY: Final = (
    b'{"id":"","within":false,"failed":"budget","message":"","remaining":0}{"rail":"","propensity":0.9}'
    b'{"id":"ring-","size":3,"confidence":0.9,"state":"forming""active""dormant""ended""approve"]'
    b',"cuda",true,"challenge","step_up_otp","challenge","step_up_3ds","decline","decline","review","review",'
    b'"RING"," accounts tied through shared entities, known frauds among them, exchanging money with '
    b"the account's first payment in 30 days next to nothing"
    b" of this account of this device of this merchant; the newest made  payments confirmed fraud; last seen "
    b" on a Wednesday on a Sunday on a Monday on a Thursday on a Tuesday on a Saturday on a Friday"
    b',"HISTORY_LOCATION","location ","HISTORY_PAYEE","no payee given","payee first seen '
    b',"HISTORY_CARD","no card given","card never seen before","card first seen '
    b',"HISTORY_IP","ip never seen before","ip first seen ,"no ip given",'
    b" 1 payment confirmed fraud in reported in 10 days and none of them fraud known for minutes ago, hour ago,"
    b',"TIME","made at 12:00 UTC on a ,"CONTEXT","its currency, channel, merchant category and country",'
    b'"AMOUNT","amount 1.00, 0.9 times the account\'s mean of 30 days",'
    b',"HISTORY_MERCHANT","merchant known for merchant first seen 1 day ago, paid by 10 other accounts, new to this '
    b"account, 10 payments in 24 hours"
    b',"HISTORY_DEVICE","device never seen before",,"no device given",,"device first seen 10 days ago, used by 1 '
    b"other account, with this account only, never with this account; last seen 10 days ago"
    b',"HISTORY_ACCOUNT","account never seen before",,"account first seen 10 days ago, using 1 device, '
    b'using 2 devices, last seen 10 hours ago, 2 payments in 24 hours, 10 payments in 30 days; in 30 days",'
    b'"LABELS","no earlier payment of its account, merchant or other entities is known as fraud",0.1,'
    b'"OTHER","all other evidence together: known labels, ring, card, ip, payee, account, device, merchant, time, '
    b'amount",-0.0],null,["ringwatch-dag-attention","[null,0.0,0,"approve","approve","thresholds 0.05/0.2/0.6",[],'
    b'null,null,null,null,-1.,["HISTORY_"],"cpu",false,,true,null,[0.1,0.0,0.2,0.0,1.0]]'
)


def pack(answer: bytes, name: str) -> bytes:
    """An answer as it is kept.

    Args:
        answer: As `serve.replica.answers.as_json` has it.
        name: The transaction's id, which the journal has.
    """
    content = from_json(answer)
    if content.get("transaction_id") == name:
        content["transaction_id"] = None
    values = _without_names(content)
    form, text = (_NAMED, content) if values is None else (_VALUES, values)
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, 8, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    return form + deflate.compress(to_json(text)) + deflate.flush()


def unpack(kept: bytes, name: str) -> bytes:
    """An answer as it was given.

    Args:
        kept: As `pack` made it.
        name: The transaction's id.

    Raises:
        ServeError: It was kept by a later version, or is damaged.
    """
    form = kept[:1]
    if form == _PLAIN:
        return kept
    if form not in (_NAMED, _VALUES):
        raise ServeError(f"an answer is kept in form {form.hex()}, and this version knows 01 and 02; upgrade Ringwatch")
    try:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS, _DICTIONARY)
        found = from_json(inflate.decompress(kept[1:]) + inflate.flush())
        content = _with_names(found) if form == _VALUES else found
    except (zlib.error, ValueError, IndexError, TypeError) as error:
        raise ServeError(f"an answer is damaged: {error}") from error
    if content["transaction_id"] is None:
        content["transaction_id"] = name
    return to_json(content)


def _without_names(content: dict[str, Any]) -> list[Any] | None:
    """The values of an answer in the order of its fields; None where it has others."""
    reasons, model, timings = (content.get(part) for part in ("reasons", "model", "timings"))
    usual = (
        list(content) == _FIELDS
        and list(model or ()) == _MODEL
        and list(timings or ()) == _TIMINGS
        and all(list(reason) == _REASON for reason in reasons or ())
    )
    if not usual or reasons is None or model is None or timings is None:
        return None
    flat = {
        "reasons": [value for reason in reasons for value in reason.values()],
        "model": list(model.values()),
        "timings": list(timings.values()),
    }
    return [flat.get(field, value) for field, value in content.items()]


def _with_names(values: list[Any]) -> dict[str, Any]:
    content = dict(zip(_FIELDS, values, strict=True))
    flat = content["reasons"]
    parts = [flat[at : at + len(_REASON)] for at in range(0, len(flat), len(_REASON))]
    content["reasons"] = [dict(zip(_REASON, part, strict=True)) for part in parts]
    content["model"] = dict(zip(_MODEL, content["model"], strict=True))
    content["timings"] = dict(zip(_TIMINGS, content["timings"], strict=True))
    return content
