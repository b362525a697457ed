"""The scene says what the record and the payments say: roles, money, direction, moments."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from data.currency import exponent
from graph.errors import GraphError
from graph.rings.picture.scene import SHOWN_FIRST, ring_scene, risks
from graph.rings.records import Member, MemberRole
from tests.graph.rings.picture.records import big_ring, world_ring


@pytest.fixture(scope="module")
def farm():
    record, payments = world_ring("mule_chain")
    return record, payments, ring_scene(record, payments)


def test_members_are_nodes_with_role_since_and_part_and_others_have_none(farm):
    record, payments, scene = farm
    nodes = scene["nodes"]
    found = {
        (r, n): (m, j)
        for r, n, m, j in zip(nodes["role"], nodes["name"], nodes["member"], nodes["joined"], strict=True)
    }
    members = {("account" if m.role == "payee" else m.role, m.name): m for m in reversed(record.members)}
    for key, member in members.items():
        assert found[key][0] == str(member.member_role)
        assert found[key][1] <= member.joined_at
    others = {key for key, (part, _) in found.items() if part is None}
    assert len(others) == len(found) - len(members) > 0
    merchants = set(payments["merchant_id"].to_pylist())
    assert {n for r, n in found if r == "merchant"} == merchants


def test_a_payee_is_the_same_node_as_the_account_it_is(farm):
    _, payments, scene = farm
    chained = set(payments["payee_id"].to_pylist()) & set(payments["account_id"].to_pylist())
    assert chained
    nodes = scene["nodes"]
    for name in chained:
        assert [r for r, n in zip(nodes["role"], nodes["name"], strict=True) if n == name] == ["account"]


def test_an_account_that_is_a_member_twice_has_the_part_that_says_more_and_the_earlier_moment(farm):
    record, payments, _ = farm
    name = next(m.name for m in record.members if m.member_role == MemberRole.ACCOUNT)
    again = Member("payee", name, MemberRole.COLLECTOR, record.first_seen - 5)
    nodes = ring_scene(replace(record, members=(*record.members, again)), payments)["nodes"]
    node = nodes["name"].index(name)
    assert (nodes["member"][node], nodes["joined"][node]) == ("collector", record.first_seen - 5)
    assert nodes["name"].count(name) == 1


def test_only_ties_to_merchants_and_payees_have_a_direction_and_start_at_the_payer(farm):
    _, payments, scene = farm
    nodes, ties, rows = scene["nodes"], scene["ties"], payments.to_pylist()
    for i, of in enumerate(scene["payments"]["ties"]):
        row = rows[i]
        directed = [t for t in of if ties["directed"][t]]
        assert {nodes["name"][ties["source"][t]] for t in of} == {row["account_id"]}
        assert {nodes["name"][ties["target"][t]] for t in directed} == {row["merchant_id"], row["payee_id"]} - {None}
        used = {nodes["role"][ties["target"][t]] for t in of if not ties["directed"][t]}
        assert used <= {"device", "card", "ip", "location"}


def test_payments_keep_time_amount_report_and_probability(farm):
    _, payments, scene = farm
    p, rows = scene["payments"], payments.to_pylist()
    assert p["id"] == [row["transaction_id"] for row in rows]
    assert p["minor"] == [row["amount"] for row in rows]
    assert p["time"] == payments["timestamp"].cast(pa.int64()).to_pylist()
    assert p["reported"] == payments["fraud_reported_at"].cast(pa.int64()).to_pylist()
    assert p["evidence"] == [int(row["evidence"]) for row in rows]
    np.testing.assert_allclose(p["probability"], [row["probability"] for row in rows], atol=5e-5)
    assert scene["decimals"] == {code: exponent(code) for code in set(p["currency"])}


def test_a_weight_is_in_median_payments_of_the_currency():
    record, payments = big_ring(60)
    p = ring_scene(record, payments)["payments"]
    for code in ("EUR", "JPY"):
        weights = [w for w, c in zip(p["weight"], p["currency"], strict=True) if c == code]
        assert np.median(weights) == pytest.approx(1.0, abs=0.02)
    assert {0, 2} == set(ring_scene(record, payments)["decimals"].values())


def test_a_reported_payment_has_risk_1_a_cleared_one_0_and_others_what_the_model_said(farm):
    _, payments, scene = farm
    for risk, row in zip(risks(scene), payments.to_pylist(), strict=True):
        if row["fraud_reported_at"] is not None:
            assert risk == 1.0
        else:
            assert risk == (0.0 if row["known_legitimate"] else round(row["probability"], 4))


def test_the_same_ring_gives_the_same_scene_which_is_json(farm):
    record, payments, scene = farm
    assert json.loads(json.dumps(scene, allow_nan=False)) == scene
    assert ring_scene(record, payments.combine_chunks()) == scene


def test_members_lie_where_they_lie_whatever_neighbours_there_are(farm):
    record, payments, scene = farm
    alone = ring_scene(record, payments.filter(payments["evidence"]))
    inside = {m.name for m in record.members}

    def places(of):
        n = of["nodes"]
        return {k: (x, y) for k, x, y in zip(n["name"], n["x"], n["y"], strict=True) if k in inside}

    tied = {t for of in scene["payments"]["ties"] for t in of}
    assert len(tied) == len(scene["ties"]["source"])
    assert set(places(alone)) == set(places(scene)) == inside


def test_a_ring_of_more_members_than_are_shown_first_keeps_the_others_for_later():
    record, payments = big_ring(SHOWN_FIRST + 600)
    nodes = ring_scene(record, payments)["nodes"]
    shown = [i for i, later in enumerate(nodes["later"]) if not later]
    assert SHOWN_FIRST <= len(shown) <= SHOWN_FIRST + 5
    assert len(nodes["name"]) - len(shown) >= 590
    plain = ("account", "shared")
    assert all(not later for later, part in zip(nodes["later"], nodes["member"], strict=True) if part not in plain)
    assert sum(nodes["role"][i] == "account" for i in shown) > SHOWN_FIRST // 2
    small = ring_scene(*big_ring(200))["nodes"]
    assert set(small["later"]) == {0}


def test_a_member_without_payments_and_a_ring_without_any_are_drawn(farm):
    record, payments, _ = farm
    lone = Member("ip", "10.0.0.1", MemberRole.SHARED, record.first_seen)
    scene = ring_scene(replace(record, members=(*record.members, lone)), payments.slice(0, 0))
    assert scene["nodes"]["name"] == [*dict.fromkeys(m.name for m in record.members), "10.0.0.1"]
    assert scene["payments"]["id"] == []
    assert np.isfinite(scene["nodes"]["x"]).all()


def test_a_missing_column_or_a_wrong_type_is_named(farm):
    record, payments, _ = farm
    with pytest.raises(GraphError, match="fraud_reported_at"):
        ring_scene(record, payments.drop_columns(["fraud_reported_at"]))
    bad = payments.set_column(payments.column_names.index("amount"), "amount", pa.array(["x"] * len(payments)))
    with pytest.raises(GraphError, match="RING_PAYMENTS"):
        ring_scene(record, bad)
