"""The picture for reports: it says money by currency, what the red rim counts, and which names it left out."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from graph.rings.picture import draw_record
from graph.rings.records import Member, MemberRole, Money
from tests.graph.rings.picture.records import big_ring, world_ring


def words(path) -> str:
    return " ".join(
        " ".join(text.itertext()) for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    )


def test_it_says_money_in_each_currency_with_its_decimals(tmp_path):
    record, payments = world_ring()
    record = replace(record, money=(Money("EUR", 123456, 1000, 0), Money("JPY", 98765, 0, 500)))
    draw_record(record, payments, tmp_path / "deep" / "ring.svg")
    said = words(tmp_path / "deep" / "ring.svg")
    for part in ("98,765 JPY", "1,234.56 EUR", "10.00 EUR lost", "500 JPY stopped"):
        assert part in said
    assert f"{len(record.known_frauds)} known frauds" in said
    assert record.reasons in said
    assert "red rim: some of its" in said


def test_every_name_of_a_small_ring_is_there_and_a_large_one_says_how_many_are_not(tmp_path):
    record, payments = world_ring("mule_chain")
    draw_record(record, payments, tmp_path / "small.svg")
    assert all(member.name in words(tmp_path / "small.svg") for member in record.members)
    draw_record(*big_ring(300), tmp_path / "large.svg")
    left_out = int(re.search(r"(\d+) of the names would run into others", words(tmp_path / "large.svg"))[1])
    assert 0 < left_out < 300


def test_the_same_ring_gives_the_same_bytes_and_a_png_is_a_png(tmp_path):
    record, payments = world_ring()
    for name in ("a.svg", "b.svg", "c.png"):
        draw_record(record, payments, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["$x^2$ and $\\frac{1}", "x" * 128, "<b>&amp;"])
def test_a_name_is_never_read_as_a_formula_or_markup(name, tmp_path):
    record, payments = world_ring()
    odd = Member("account", name, MemberRole.ACCOUNT, record.first_seen)
    draw_record(replace(record, members=(*record.members, odd), reasons=name), payments, tmp_path / "ring.svg")
    assert (tmp_path / "ring.svg").stat().st_size > 1000
