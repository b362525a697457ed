"""Digests against the reference, tables against dictionaries, and no raw name anywhere in the graph."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.digests import KEY_VARIABLE, digest, key_from_environment
from data.errors import DataError
from data.journal.protocol import Events, Kind
from graph.dag.features import features
from graph.dag.ids import Ids, PaymentIds
from graph.dag.protocol import DAY_US, Window
from graph.dag.sampler import neighbours
from graph.errors import GraphError
from graph.state import GraphState
from tests.graph.history import payments, sharing
from tests.world import START_US, reports

REFERENCE_KEY = (np.uint64(0x0706050403020100), np.uint64(0x0F0E0D0C0B0A0908))  # bytes 00 01 .. 0f, little-endian
MASK = (1 << 64) - 1


def siphash(key: tuple[int, int], data: bytes) -> tuple[int, int]:
    """SipHash-2-4-128, as its paper and reference code say it, in Python's integers."""
    v = [key[0] ^ 0x736F6D6570736575, key[1] ^ 0x646F72616E646F6D, key[0] ^ 0x6C7967656E657261]
    v += [key[1] ^ 0x7465646279746573]
    v[1] ^= 0xEE

    def left(x: int, bits: int) -> int:
        return ((x << bits) | (x >> (64 - bits))) & MASK

    def rounds(n: int) -> None:
        for _ in range(n):
            v[0] = (v[0] + v[1]) & MASK
            v[2] = (v[2] + v[3]) & MASK
            v[1] = left(v[1], 13) ^ v[0]
            v[3] = left(v[3], 16) ^ v[2]
            v[0] = left(v[0], 32)
            v[2] = (v[2] + v[1]) & MASK
            v[0] = (v[0] + v[3]) & MASK
            v[1] = left(v[1], 17) ^ v[2]
            v[3] = left(v[3], 21) ^ v[0]
            v[2] = left(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    return first, v[0] ^ v[1] ^ v[2] ^ v[3]


def test_digests_are_those_of_the_reference_implementation():
    vectors = {0: "a3817f04ba25a8e66df67214c7550293", 1: "da87c1d86b99af44347659119b22fc45"}
    for n, expected in vectors.items():
        found = digest(REFERENCE_KEY, pa.array([bytes(range(n)).decode()]))
        assert found.astype("<u8").tobytes().hex() == expected
    names = [bytes(range(n)).decode() for n in range(128)]
    found = digest(REFERENCE_KEY, pa.array(names))
    key = tuple(int(k) for k in REFERENCE_KEY)
    assert [tuple(row) for row in found.tolist()] == [siphash(key, name.encode()) for name in names]


@given(
    st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=40) | st.just("x" * 300), max_size=20),
    st.integers(0, 5),
    st.integers(0, 2**64 - 1),
)
def test_a_digest_is_of_the_text_alone(names, skipped, key):
    """Whatever the array around it: its slice, its nulls, its neighbours."""
    secret = (np.uint64(key), np.uint64(key ^ 12345))
    array = pa.array(["left out"] * skipped + names + ["left out, too"], pa.string())[skipped : skipped + len(names)]
    expected = [(0, 0) if n is None else siphash((key, key ^ 12345), n.encode()) for n in names]
    assert [tuple(row) for row in digest(secret, array).tolist()] == expected


def test_threads_give_what_one_gives():
    names = pa.array([f"account {i}" if i % 7 else None for i in range(20_000)])
    found = digest(REFERENCE_KEY, names)
    one_by_one = np.concatenate([digest(REFERENCE_KEY, names[i : i + 1]) for i in range(0, 20_000, 13)])
    np.testing.assert_array_equal(found[::13], one_by_one)


@settings(deadline=None)
@given(st.lists(st.lists(st.none() | st.integers(0, 60), max_size=150), max_size=8), st.integers(0, 3))
def test_encode_numbers_names_in_order_of_appearance_in_bulk_and_singly(columns, skipped):
    bulk, single, expected = Ids(("account", "device"), 400), Ids(("account", "device"), 400), {}
    for i, column in enumerate(columns):
        kind = i % 2
        names = pa.array([None if c is None else f"name {c}" for c in column], pa.string())
        for name in names[skipped:].to_pylist():
            if name is not None:
                expected.setdefault((kind, name), len(expected))
        wanted = [-1 if name is None else expected[kind, name] for name in names[skipped:].to_pylist()]
        assert bulk.encode(kind, names[skipped:]).tolist() == wanted
        assert [int(single.encode(kind, names[j : j + 1])[0]) for j in range(skipped, len(names))] == wanted
    assert len(bulk) == bulk.numbered == len(expected)
    for (kind, name), node in expected.items():
        assert (bulk.get(kind, name), bulk.kind(node)) == (node, kind)
    assert bulk.get(0, "never seen") == -1


def test_one_name_of_two_types_is_two_entities_with_unrelated_digests():
    ids = Ids(("account", "device"), 10)
    a, d = (int(ids.encode(kind, pa.array(["same"]))[0]) for kind in (0, 1))
    assert a != d
    assert ids.digests[a, 0] != ids.digests[d, 0]
    assert ids.pseudonym(a) != ids.pseudonym(d)


def test_empty_columns_and_missing_values_are_taken():
    ids = Ids(("account",), 10)
    assert ids.encode(0, pa.array([], pa.string())).tolist() == []
    assert ids.encode(0, pa.nulls(3, pa.string())).tolist() == [-1] * 3
    assert digest(REFERENCE_KEY, pa.array([], pa.string())).shape == (0, 2)
    state = GraphState(("account", "merchant", "device", "payee"), 64, Window(10))
    batch = payments(0, {"account": [1, 2], "merchant": [1, 1]}, [START_US] * 2, [5, 6])
    assert state.apply(Events(Kind.TRANSACTION, 0, batch.slice(0, 0))) == range(0)
    assert state.apply(Events(Kind.TRANSACTION, 0, batch)) == range(2)
    assert state.store.column("category").tolist()[0][1:] == [0, 0, 0]  # of what is missing


def test_a_full_table_says_so():
    ids = Ids(("account",), 5)
    with pytest.raises(GraphError, match="larger buffer"):
        ids.encode(0, pa.array([f"a{i}" for i in range(6)]))


class PlainIds:
    """A dictionary of what is in use: (kind, name) -> [node, newest row]."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, str], list[int]] = {}

    def seen(self, kind: int, names: list[str], nodes: list[int], rows: range) -> None:
        for name, node, row in zip(names, nodes, rows, strict=True):
            entry = self.held.setdefault((kind, name), [node, row])
            assert entry[0] == node
            entry[1] = row
        assert len({node for node, _ in self.held.values()}) == len(self.held)  # no number stands for two

    def forget(self, nodes: list[int], before: int) -> None:
        for node in nodes:
            (key,) = (key for key, entry in self.held.items() if entry[0] == node)
            assert self.held.pop(key)[1] < before


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([20, 300]))
def test_numbers_are_given_back_and_out_again_whatever_the_table_does_meanwhile(seed, most):
    """Names come and go in batches of very different sizes, so that the buckets grow after numbers were freed."""
    rng, ids, plain, row, base = np.random.default_rng(seed), Ids(("account", "device"), 4000), PlainIds(), 0, 0
    for _ in range(40):
        kind = int(rng.integers(2))
        size = int(rng.integers(1, most)) if rng.random() < 0.8 else int(rng.integers(most, 3 * most))
        base += int(rng.integers(0, size))
        names = [f"n{base + i}" for i in rng.integers(0, size, size)]
        nodes = ids.encode(kind, pa.array(names))
        ids.head[nodes] = row + np.arange(size) + 1
        plain.seen(kind, names, nodes.tolist(), range(row, row + size))
        row += size
        before = row - int(rng.integers(1, 3 * most))
        plain.forget(ids.sweep(int(rng.integers(0, 4 * most)), row, before).tolist(), before)
        assert len(ids) == len(plain.held)
        assert np.count_nonzero(ids.buckets) == len(ids)
        for (kind, name), (node, _) in plain.held.items():
            assert ids.get(kind, name) == node
    if before > 0:
        plain.forget(ids.sweep(ids.numbered, row, before).tolist(), before)
    assert all(newest >= before for _, newest in plain.held.values())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 70), st.sampled_from([0.0, 0.3]))
def test_the_duplicate_table_equals_a_dictionary_through_many_laps(seed, capacity, repeated):
    """An id that comes again belongs to its newest row; ids of rows that were overwritten are forgotten."""
    rng, table, row = np.random.default_rng(seed), PaymentIds(capacity), 0
    held: dict[str, int] = {}
    names = [f"t{i}" for i in range(8 * capacity)]
    while row < 6 * capacity:
        size = int(rng.integers(1, capacity + 1))
        again = (rng.random(size) < repeated) & (row > 0)
        wanted = [f"t{rng.integers(row + i) if again[i] else row + i}" for i in range(size)]
        table.put(pa.array(wanted), row)
        for i, name in enumerate(wanted):
            held[name] = row + i
        row += size
        held = {name: at for name, at in held.items() if at >= row - capacity}
        expected = [held[name] % capacity if name in held else -1 for name in names]
        assert table.find(pa.array(names)).tolist() == expected
        assert table.live == len(held) == np.count_nonzero(table.buckets)
        assert len(table.buckets) <= max(64, 2 * capacity / 0.6)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0" * 31, "0" * 33, "g" * 32, "0x" + "0" * 30, "-" + "1" * 31, "1" * 16 + "-" + "1" * 15),
        *("1_" * 16, " " * 31 + "1", "+" + "1" * 31, "1" * 31 + "\n", "١" * 32),
    ],
)
def test_a_malformed_key_is_refused(monkeypatch, text):
    monkeypatch.setenv(KEY_VARIABLE, text)
    with pytest.raises(DataError, match=KEY_VARIABLE):
        key_from_environment()


def test_the_key_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "0123456789abcdefFEDCBA9876543210")
    assert key_from_environment() == (np.uint64(0x0123456789ABCDEF), np.uint64(0xFEDCBA9876543210))
    monkeypatch.delenv(KEY_VARIABLE)
    assert key_from_environment() == (np.uint64(0), np.uint64(0))


ROLES = ("account", "merchant", "device", "card")


def test_another_key_gives_other_digests_and_the_same_graph(monkeypatch):
    """Rows, walks, features and rings do not depend on digests, nor on where they fall in the tables."""
    states = []
    for key in ("00" * 16, "5eed" * 8):
        monkeypatch.setenv(KEY_VARIABLE, key)
        states.append(GraphState(ROLES, 331, Window(300, 90 * DAY_US)))
        for events in sharing(3, 3000):
            states[-1].apply(events)
    one, two = states
    digests = [state.store.ids.digests for state in states]
    used = [held[held[:, 1] != 0, 0] for held in digests]  # a free number's holds a link, and 0
    assert len(used[0]) == len(used[1]) == len(one.store.ids)
    assert not np.intersect1d(*used).size
    assert not np.intersect1d(one.payments.digests, two.payments.digests).size
    assert one.store.row_data.tobytes() == two.store.row_data.tobytes()
    assert one.store.velocity.tobytes() == two.store.velocity.tobytes()
    assert one.store.ids.head.tobytes() == two.store.ids.head.tobytes()
    rows = np.arange(one.store.rows - 30, one.store.rows)
    np.testing.assert_array_equal(neighbours(one.store.view, rows, 5), neighbours(two.store.view, rows, 5))
    np.testing.assert_array_equal(features(one.store.view, ROLES, rows), features(two.store.view, ROLES, rows))
    assert one.rings._live.nodes.tobytes() == two.rings._live.nodes.tobytes()


def arrays_in(held: object, where: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every array that an object holds, however deep."""
    if isinstance(held, np.ndarray):
        yield where, held
    elif isinstance(held, dict | list | tuple):
        for name, value in held.items() if isinstance(held, dict) else enumerate(held):
            yield from arrays_in(value, f"{where}/{name}")
    elif type(held).__module__.startswith("graph.") and hasattr(held, "__dict__"):
        for name, value in vars(held).items():
            if not (where.endswith("/rings") and name == "store"):
                yield from arrays_in(value, f"{where}/{name}")


def test_what_the_memory_held_before_is_not_in_the_graph(monkeypatch):
    """Names that other parts of the program have freed would come into snapshots, in the gaps of records."""
    empty, trace = np.empty, b"DE89370400440532"

    def used(*arguments, **named):
        array = empty(*arguments, **named)
        if array.dtype != object:
            array.reshape(-1).view(np.uint8)[:] = np.resize(np.frombuffer(trace, np.uint8), array.nbytes)
        return array

    monkeypatch.setattr(np, "empty", used)
    state = GraphState(ROLES, 331, Window(300, 90 * DAY_US))
    for events in sharing(3, 3000):
        state.apply(events)
    assert not [where for where, array in arrays_in(state) if trace[:4] in array.tobytes()]


def test_no_raw_name_is_held_anywhere_in_the_graph():
    """Every byte of every array, the tables' included; that the search would find it is checked on the input."""
    name = "DE89370400440532013000-distinctive"
    state = GraphState(ROLES, 64, Window(32))
    batch = payments(0, {"account": [1, 2, 3], "merchant": [1] * 3, "device": [1] * 3}, [START_US] * 3, [5] * 3)
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["transaction_id"] = pa.array([f"{name}{i}" for i in range(3)])
    for column in ("account_id", "merchant_id", "device_id", "card_id"):
        columns[column] = pa.array([name + column] * 3)
    batch = pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)
    state.apply(Events(Kind.TRANSACTION, 0, batch))
    state.apply(Events(Kind.LABEL, 3, reports([f"{name}0"], [True], [START_US])))
    assert state.row_of(f"{name}2") == 2
    assert state.store.ids.get(0, f"{name}account_id") >= 0
    held = dict(arrays_in(state))
    assert len(held) > 20
    assert {id(part.array) for part in state.parts().values()} <= {id(array) for array in held.values()}
    held = {where: array.tobytes() for where, array in held.items()}
    for piece in (name.encode(), name[:8].encode(), name[::-1].encode(), name.encode("utf-16-le")):
        assert not [where for where, blob in held.items() if piece in blob]
    assert any(name.encode() in bytes(b) for b in batch.column("account_id").buffers() if b is not None)
