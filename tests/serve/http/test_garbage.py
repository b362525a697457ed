"""Garbage to every endpoint is refused with problem details: never a 500, nothing half applied, the service goes on."""

import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from data.schema import TRANSACTION_SCHEMA
from gnn.model.artifact import untrained
from serve.http.app import build_app
from serve.http.wire import ARROW, arrow_bytes
from tests.serve.http.test_service import PAYMENT, ROLES, end, opened
from tests.serve.http.test_service import settings as service_settings
from tests.world import label_batch, payment_batch

JSON = "application/json"
POSTS = ("/v1/score", "/v1/scores", "/v1/labels")
LABEL = {"transaction_id": "k0", "is_fraud": True, "reported_at": "2026-01-09T00:00:00Z"}
SWEEP = settings(max_examples=150, deadline=None, derandomize=True, database=None)
ITEMS = {"/v1/score": PAYMENT, "/v1/scores": PAYMENT, "/v1/labels": LABEL}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that holds a few payments and a ring."""
    config = service_settings(tmp_path_factory.mktemp("garbage"))
    replica = opened(untrained(ROLES, neighbours=4, window_rows=1 << 12), config)
    with TestClient(build_app(config, replica), raise_server_exceptions=False) as client:
        known = [{**PAYMENT, "transaction_id": f"k{i}", "account_id": f"a{i % 4}"} for i in range(8)]
        assert client.post("/v1/scores", json=known).status_code == 200
        assert len(client.get("/v1/ties?as_of=2026-01-02").json()) == 1
        yield client
        # After all of it: alive, the graph where the journal is, and the next payment is scored.
        assert client.get("/livez").status_code == 200
        assert end(client) == replica.state.applied
        before = end(client)
        assert client.post("/v1/score", json={**PAYMENT, "transaction_id": "after"}).json()["scored_by"] == "cpu"
        assert end(client) == before + 1


def refused(client: TestClient, method: str, path: str, **sent: Any) -> httpx.Response:
    """Send it, and demand a refusal in full form that leaves the journal as it was."""
    before = end(client)
    answer = client.request(method, path, **sent)
    assert 400 <= answer.status_code < 500, (path, str(sent)[:200], answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert len(problem["detail"]) < 2_000
    assert end(client) == before
    return answer


def post(client: TestClient, path: str, content: Any, kind: str = JSON, **headers: str) -> httpx.Response:
    return refused(client, "POST", path, content=content, headers={"content-type": kind, **headers})


def body_of(path: str, item: Any) -> bytes:
    return json.dumps([item] if path == "/v1/scores" else item).encode()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("path", POSTS)
@SWEEP
@given(value=ANYTHING)
def test_any_other_json_is_refused(client: TestClient, path: str, value: Any) -> None:
    post(client, path, json.dumps(value).encode())


@pytest.mark.parametrize("path", POSTS)
@SWEEP
@given(data=st.data())
def test_one_wrong_field_is_refused_and_named(client: TestClient, path: str, data: st.DataObject) -> None:
    item = ITEMS[path]
    field = data.draw(st.sampled_from(sorted(item)))
    # No such value is right in any field: no time is so small, text has no control characters, no field is an object.
    wrong = (
        st.none()
        | st.floats(max_value=1e9).filter(lambda value: value not in (0, 1))
        | st.text(max_size=5).map(lambda s: s + "\x00")
        | st.dictionaries(st.text(), st.none())
    )
    value = data.draw(wrong)
    if field == "device_id" and value is None:
        return
    answer = post(client, path, body_of(path, {**item, field: value}))
    assert field in answer.json()["errors"][0]["field"]


@pytest.mark.parametrize("path", POSTS)
def test_missing_and_unknown_fields_are_refused_and_named(client: TestClient, path: str) -> None:
    item = ITEMS[path]
    for field in set(item) - {"device_id"}:
        answer = post(client, path, body_of(path, {k: v for k, v in item.items() if k != field}))
        assert answer.status_code == 422
        assert field in answer.json()["errors"][0]["field"]
    assert "surprise" in post(client, path, body_of(path, {**item, "surprise": 1})).json()["errors"][0]["field"]


TIMES = (
    "1900-01-01T00:00:00Z", "2300-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "2026-02-30T00:00:00Z", "2026-01-02T03:04:05+99:99", "02/01/2026", "yesterday", "", "Z" * 60_000,
    -2_208_988_800_000_000, 10_413_792_000_000_000, 2**63, -(2**70), 1.5, True, None, [], {},
)  # fmt: skip


@pytest.mark.parametrize("path", POSTS)
def test_times_out_of_range_are_refused(client: TestClient, path: str) -> None:
    item, field = ITEMS[path], "reported_at" if path == "/v1/labels" else "timestamp"
    for value in TIMES:
        assert field in post(client, path, body_of(path, {**item, field: value})).json()["errors"][0]["field"]


RAW = (
    b"", b" ", b"{", b"null", b"[]", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 50_000, b"0" * 60_000,
    b'"\xc3\x28"', b'{"transaction_id": "\xff"}', b'{"transaction_id": "\\ud800"}', b'{"amount": NaN}',
    b'{"amount": -Infinity}', b'{"amount": 1e400}', b'{"amount": ' + b"9" * 5_000 + b"}", b"PAR1", b"\x00" * 1_000,
)  # fmt: skip


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("kind", [JSON, ARROW, "application/json; charset=latin-1", "text/plain", "a" * 5_000, ""])
def test_broken_bodies_are_refused_whatever_they_claim_to_be(client: TestClient, path: str, kind: str) -> None:
    for body in RAW:
        post(client, path, body, kind)


@pytest.mark.parametrize(
    "amount", ["NaN", "-1", "1.5", "Infinity", "1e15", '"1.5"', "10000000000000000", "true", "null"]
)
def test_amounts_that_are_none_are_refused(client: TestClient, amount: str) -> None:
    for path in ("/v1/score", "/v1/scores"):
        body = body_of(path, {**PAYMENT, "amount": "AMOUNT"}).replace(b'"AMOUNT"', amount.encode())
        assert "amount" in post(client, path, body).json()["errors"][0]["field"]


def test_too_much_at_once_is_refused(client: TestClient) -> None:
    payments = [{**PAYMENT, "transaction_id": f"x{i}"} for i in range(10_001)]
    many = [{**LABEL, "transaction_id": f"x{i}"} for i in range(100_000)]
    assert post(client, "/v1/scores", json.dumps(payments).encode()).status_code == 413
    assert post(client, "/v1/labels", json.dumps(many).encode()).status_code == 413
    assert post(client, "/v1/scores", json.dumps(payments * 10).encode()).status_code == 413
    rows = arrow_bytes(pa.Table.from_batches([payment_batch(100_000)]))
    assert post(client, "/v1/scores", rows, ARROW).status_code == 413
    assert post(client, "/v1/score", json.dumps({**PAYMENT, "account_id": "x" * 70_000}).encode()).status_code == 413


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("kind", [JSON, ARROW])
def test_huge_bodies_are_refused(client: TestClient, path: str, kind: str) -> None:
    sent = [
        post(client, path, b"[" + b"1," * (9 << 20), kind),
        post(client, path, b"", kind, **{"content-length": "9" * 5_000}),
        post(client, path, (b" " * (1 << 20) for _ in range(17)), kind),  # no header tells their sum beforehand
    ]
    other_kind = path == "/v1/score" and kind == ARROW
    assert [answer.status_code for answer in sent] == [413, 413, 415 if other_kind else 413]


def test_millions_of_errors_are_counted_and_not_spelled_out(client: TestClient) -> None:
    body = b"[" + b"1," * 4_000_000 + b"1]"
    assert post(client, "/v1/scores", body).status_code == 413
    fields = b"[{" + b",".join(b'"%x":1' % i for i in range(100_000)) + b"}]"
    answer = post(client, "/v1/scores", fields)
    assert answer.status_code == 422
    assert len(answer.content) < 1_000


def test_arrow_cut_anywhere_is_refused(client: TestClient) -> None:
    payments = payment_batch(3, seed=5)
    for path, batch in (("/v1/scores", payments), ("/v1/labels", label_batch(payments, [0, 1], [True, False]))):
        whole = arrow_bytes(pa.Table.from_batches([batch]))
        body_end = len(whole) - 8  # the mark of the end may be missing: closing the stream says the same
        for cut in range(0, body_end, 16):
            post(client, path, whole[:cut], ARROW)
    assert post(client, "/v1/score", whole, ARROW).status_code == 415


def test_arrow_with_flipped_bytes_is_taken_whole_or_refused(client: TestClient) -> None:
    whole, rng = arrow_bytes(pa.Table.from_batches([payment_batch(20, seed=6)])), random.Random(6)
    for i in range(400):
        broken = bytearray(whole)
        for _ in range(1 + i % 3):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        before = end(client)
        answer = client.post("/v1/scores?reasons=false", content=bytes(broken), headers={"content-type": ARROW})
        assert answer.status_code < 500, answer.text[:500]
        good = len(answer.json()) if answer.status_code == 200 else 0
        assert before <= end(client) <= before + good


def columns(**changed: Any) -> bytes:
    """Two good payments as an Arrow stream, with columns changed, added or (None) left out."""
    batch = payment_batch(2, seed=9)
    names = dict(zip(batch.schema.names, batch.columns, strict=True))
    kept = {name: array for name, array in {**names, **changed}.items() if array is not None}
    return arrow_bytes(pa.table(kept))


BAD_UTF8 = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"\xffa"))
BEYOND = pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int8()), pa.array(["a"]), safe=False)


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": None}, {"amount": pa.array([1.0, float("nan")])}, {"amount": pa.array([1, -1])},
        {"amount": pa.array([1, None])}, {"amount": pa.array([[1], [2]])},
        {"amount": pa.array([1, 2**63], pa.uint64())}, {"timestamp": pa.array(["1900-01-01", "2300-01-01"])},
        {"timestamp": pa.array([1, 2])}, {"timestamp": pa.array([0, 2**62], pa.timestamp("s"))},
        {"timestamp": pa.array([2**62] * 2, pa.timestamp("ns"))}, {"transaction_id": pa.array(["x", ""])},
        {"transaction_id": pa.array([1.5, 2.5])}, {"account_id": pa.nulls(2)},
        {"merchant_id": pa.array(["x" * 129, "y"])}, {"currency": pa.array(["EUR", "eur"])},
        {"device_id": pa.array(["a\x00", "b"])},
    ],
    ids=lambda changed: "-".join(f"{name}-{getattr(array, 'type', None)}" for name, array in changed.items()),
)  # fmt: skip
def test_arrow_columns_that_break_the_schema_are_refused(client: TestClient, changed: dict[str, Any]) -> None:
    answer = post(client, "/v1/scores", columns(**changed), ARROW)
    assert next(iter(changed)) in answer.text


def test_arrow_of_other_shapes_is_refused(client: TestClient) -> None:
    for damaged in ({"transaction_id": BAD_UTF8}, {"account_id": BEYOND}):
        assert post(client, "/v1/scores", columns(**damaged), ARROW).status_code == 400
    for table in (pa.table({}), pa.table({"x": [1]}), TRANSACTION_SCHEMA.empty_table()):
        post(client, "/v1/scores", arrow_bytes(table), ARROW)
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["transaction_id", "transaction_id"])
    post(client, "/v1/scores", arrow_bytes(twice), ARROW)
    post(client, "/v1/labels", columns(), ARROW)


@pytest.mark.parametrize("encoded", [False, True])
def test_compressed_arrow_is_refused_before_it_grows(client: TestClient, encoded: bool) -> None:
    long = pa.array(["x" * (1 << 20)] * 2)
    table = pa.table({"transaction_id": long.dictionary_encode() if encoded else long})
    for codec in ("zstd", "lz4"):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
            writer.write_table(table)
        body = bytes(sink.getvalue())
        assert len(body) < 50_000
        assert post(client, "/v1/scores", body, ARROW).status_code == 415
    assert "missing" in post(client, "/v1/scores", arrow_bytes(table), ARROW).json()["detail"]


def test_one_bad_item_among_good_ones_leaves_nothing(client: TestClient) -> None:
    good = [{**PAYMENT, "transaction_id": f"g{i}"} for i in range(50)]
    for bad in ({**PAYMENT, "amount": -1}, {**good[0], "amount": 5}, {**PAYMENT, "transaction_id": "k0", "amount": 5}):
        post(client, "/v1/scores", json.dumps([*good, bad]).encode())
    post(client, "/v1/labels", json.dumps([LABEL, {**LABEL, "transaction_id": "never"}]).encode())
    assert client.post("/v1/labels", json=[LABEL]).json() == {"accepted": 1, "repeated": 0, "superseded": 0}


@pytest.mark.parametrize("query", ["limit=abc", "limit=0", "limit=-1", "limit=1e9", "limit=1001", "limit=", "limit=NaN",
                                   "limit=%ff", "limit=" + "9" * 5_000])  # fmt: skip
def test_garbage_in_a_query_is_refused(client: TestClient, query: str) -> None:
    assert "limit" in refused(client, "GET", f"/v1/ties?{query}").json()["errors"][0]["field"]


@pytest.mark.parametrize("moment", ["yesterday", "", "1e9", "1999-01-01", "2200-01-01", "%ff", "9" * 5_000])
def test_garbage_for_a_moment_is_refused(client: TestClient, moment: str) -> None:
    for path in ("/v1/ties", "/v1/ties/R-2"):
        assert "as_of" in refused(client, "GET", f"{path}?as_of={moment}").json()["errors"][0]["field"]


@pytest.mark.parametrize("query", ["reasons=maybe", "reasons=", "reasons=%ff", "reasons=2"])
def test_garbage_in_the_query_of_scores_is_refused(client: TestClient, query: str) -> None:
    refused(client, "POST", f"/v1/scores?{query}", json=[{**PAYMENT, "transaction_id": "q"}])


@pytest.mark.parametrize(
    "name",
    [
        "R-", "R-x", "R--1", "R-1e3", "R-0x1", "R-+1", "R-%201", "R-9999", "R-" + "9" * 5_000, "1", "%00", "%FF",
        "R-9223372036854775808", "R-%D9%A1", "..%2f..%2fetc", "' OR 1=1",
    ],
)  # fmt: skip
def test_ring_ids_that_are_none_are_not_found(client: TestClient, name: str) -> None:
    assert refused(client, "GET", f"/v1/ties/{name}").status_code == 404


@pytest.mark.parametrize("deadline", ["nan", "inf", "-1", "0", "soon", "", "1e9", "9" * 5_000])
def test_garbage_as_a_deadline_is_refused(client: TestClient, deadline: str) -> None:
    post(client, "/v1/score", body_of("/v1/score", PAYMENT), **{"x-ringwatch-deadline-ms": deadline})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/score"), ("PUT", "/v1/scores"), ("DELETE", "/v1/ties"), ("POST", "/v1/ties/R-0"), ("GET", "/"),
        ("GET", "/%00"), ("GET", "/v1/x"),
    ],
)  # fmt: skip
def test_other_methods_and_paths_are_refused(client: TestClient, method: str, path: str) -> None:
    assert refused(client, method, path).status_code in (404, 405)
