"""The case book: what opens, closes and brings back a case, what investigators do, and what survives a crash."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from graph.rings.records import MemberRole, Money, RingState
from serve.cases import gather
from serve.cases.book import CaseBook
from serve.cases.database import Database
from serve.cases.records import CaseError, CaseFilter, CaseState, NoCaseError
from tests.serve.cases.fake import FakeInvestigation, busy, paid, ring

ANY = CaseFilter(state=None, snoozed=None)


def kinds(book: CaseBook, case_id: int) -> list[str]:
    return [event.kind for event in book.case(case_id).events]


def test_a_ring_above_the_confidence_opens_one_case_however_often_it_is_seen(book: CaseBook) -> None:
    world = busy()
    world.put(ring("K-3", ("weak",), confidence=0.4))
    assert book.sync(world).rings == 2
    assert book.sync(world).rings == 0
    found = book.queue()
    assert [case.ring_ids for case in found] == [("K-1",), ("K-2",)]
    first = found[0]
    assert (first.confidence, first.accounts, first.payments, first.frauds) == (0.9, 3, 6, 3)
    assert first.at_risk == (("EUR", 90_000),)  # tried, less what was stopped
    assert first.title == "3 accounts, 1 device"


def test_the_queue_is_ordered_by_confidence_times_the_largest_money_of_one_currency(book: CaseBook) -> None:
    world = FakeInvestigation()
    world.put(ring("K-1", ("a",), money=[Money("JPY", 90_000, 0, 0)], devices=()))  # 90,000 of 0 decimals
    world.put(ring("K-2", ("b",), money=[Money("EUR", 1_000_000, 0, 0)], devices=()))  # 10,000.00
    world.put(ring("K-3", ("c",), money=[Money("EUR", 600_000, 0, 0), Money("USD", 600_000, 0, 0)], devices=()))
    world.put(ring("K-4", ("d",), money=[Money("EUR", 1_000_000, 0, 0)], devices=(), confidence=0.95))
    book.sync(world)
    assert [case.ring_ids[0] for case in book.queue()] == ["K-1", "K-4", "K-2", "K-3"]


def test_cases_that_share_an_entity_are_linked(book: CaseBook) -> None:
    book.sync(busy())
    assert [(link.case_id, link.role, link.name) for link in book.case(1).links] == [(2, "device", "d1")]
    assert [link.case_id for link in book.case(2).links] == [1]


def test_a_verdict_labels_what_it_names_and_closes_the_case_with_who_and_when(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    case = book.confirm(world, 1, "iris", ["e01", "e11"], "two devices", request_id="r1")
    assert case.summary.state is CaseState.CONFIRMED
    assert [(v.transaction_ids, v.by) for v in world.given] == [(("e01", "e11"), "iris")]
    done = next(event for event in case.events if event.kind == "confirmed")
    assert (done.by, done.note, done.journal_offset) == ("iris", "two devices", world.given[0].offset)
    assert book.confirm(world, 1, "iris", ["e01", "e11"], "two devices", request_id="r1") == case  # tried again
    assert len(world.given) == 1
    with pytest.raises(CaseError, match="C-1 is confirmed"):
        book.dismiss(world, 1, "otto", [])
    assert [c.id for c in book.queue()] == [2]


def test_a_verdict_that_the_journal_refuses_changes_nothing(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    with pytest.raises(CaseError, match="no payment 'nope'"):
        book.confirm(world, 1, "iris", ["nope"])
    with pytest.raises(CaseError, match="choose at least one"):
        book.confirm(world, 1, "iris", [])
    world.fails = OSError("disk")
    with pytest.raises(OSError, match="disk"):
        book.confirm(world, 1, "iris", ["e01"])
    assert book.case(1).summary.state is CaseState.OPEN
    assert not book.alerts(case_id=1, done=True)


def test_a_crash_between_journal_and_database_loses_nothing(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    world.give_verdict("K-1", "fraud", ["e01"], "iris", "seen", "C-1:r1")  # and the process is gone
    assert book.case(1).summary.state is CaseState.OPEN
    book.sync(world)
    assert book.case(1).summary.state is CaseState.CONFIRMED
    assert book.alerts()
    before = book.case(1)
    book.sync(world)
    assert book.case(1) == before


def test_a_lost_database_is_made_again_from_the_journal(where: str) -> None:
    world = busy()
    world.put(replace(ring("K-9", ("zoe",), ("z0",), confidence=0.2)))
    world.payments.append(paid("z0", "zoe", evidence=True))
    world.give_verdict("K-1", "fraud", ["e01"], "iris")
    world.give_verdict("K-9", "legitimate", ["z0"], "otto")  # of a ring that would open no case
    book = CaseBook(where)
    book.sync(world)
    states = {case.ring_ids[0]: case.state for case in book.queue(ANY)}
    assert states == {"K-1": "confirmed", "K-9": "dismissed", "K-2": "open"}
    book.close()


def test_rows_that_mirror_the_journal_can_be_rebuilt_and_nothing_is_done_twice(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    book.confirm(world, 1, "iris", ["e01"])
    book.reopen(1, "otto", "wait")
    before, alerts = book.case(1), book.alerts()
    assert book.rebuild(world).verdicts == 1
    assert (book.case(1), book.alerts()) == (before, alerts)


def test_a_dismissed_ring_stays_away_until_enough_is_new_and_then_says_so(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    book.dismiss(world, 1, "iris", ["e01", "e11", "e21"], "a family")
    first = world.ring("K-1")
    assert first is not None
    world.put(replace(first, evidence=("y1", "y0", *first.evidence), confidence=0.99))
    book.sync(world)
    assert book.case(1).summary.state is CaseState.DISMISSED
    world.put(replace(first, evidence=("y1", "y0", *first.evidence), known_frauds=("y1", "y0", *first.known_frauds)))
    book.sync(world)
    case = book.case(1)
    assert case.summary.state is CaseState.OPEN
    assert (case.events[-1].kind, case.events[-1].by) == ("reopened", "ringwatch")
    assert "new since it was dismissed: 2 payments, 2 of them reported as fraud" in case.events[-1].note


def test_a_dismissed_ring_that_comes_under_a_new_id_stays_dismissed(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    book.dismiss(world, 1, "iris", [], "a family")
    world.put(ring("K-7", ("anna", "ben", "new"), ("e21", "e20", "e11"), ("e20",)))
    book.sync(world)
    assert book.cases_of_ring("K-7") == [1]
    assert book.case(1).summary.state is CaseState.DISMISSED
    assert book.count() == 1


def test_all_rings_of_a_dismissed_case_stay_away(book: CaseBook) -> None:
    world = busy()
    old = ring("K-2", ("dora", "emil"), [f"x{i}" for i in range(9)], confidence=0.6)
    world.put(old)
    book.sync(world)
    book.merge(2, 1, "iris")
    book.dismiss(world, 1, "iris", [])
    world.put(replace(old, confidence=0.7))
    book.sync(world)
    assert book.case(1).summary.state is CaseState.DISMISSED


def test_earlier_approved_payments_of_a_confirmed_ring_are_alerts_once(book: CaseBook) -> None:
    world = busy()
    world.put(replace(world.records["K-1"][-1], known_frauds=()))  # not yet confirmed by reports
    for payment in world.payments:
        payment["fraud_reported_at"] = None
    world.payments.append(paid("h9", "ben", -10, amount=400, currency="USD"))
    world.payments.append(paid("ok", "ben", -9, legitimate=True))
    book.sync(world)
    assert book.alerts() == []
    book.confirm(world, 1, "iris", ["e00", "e10", "e20"])
    found = {alert.transaction_id for alert in book.alerts()}
    assert found == {"h0", "h1", "h2", "h9", "e01", "e11", "e21"}
    assert book.at_stake() == {"EUR": (6, 37_500), "USD": (1, 400)}
    book.reopen(1, "iris")
    book.confirm(world, 1, "iris", ["e01"])
    assert len(book.alerts()) == 7
    book.finish_alert("h9", "iris")
    book.finish_alert("h9", "otto")
    assert [(a.transaction_id, a.done_by) for a in book.alerts(done=True)] == [("h9", "iris")]
    assert book.at_stake(done=False) == {"EUR": (6, 37_500)}


def test_reports_alone_raise_alerts_and_leave_the_case_open(book: CaseBook) -> None:
    book.sync(busy())  # three of six are reported
    assert {alert.transaction_id for alert in book.alerts()} == {"h0", "h1", "h2", "e01", "e11", "e21"}
    assert book.case(1).summary.state is CaseState.OPEN


def test_a_victims_other_payments_and_those_not_approved_are_no_alerts(database: Database) -> None:
    world = busy()
    old = world.records["K-1"][-1]
    victim = replace(old.members[0], member_role=MemberRole.VICTIM)
    world.put(replace(old, members=(victim, *old.members[1:])))
    book = CaseBook(database, decisions=lambda ids: {"h1": "decline"})
    book.sync(world)
    assert {alert.transaction_id for alert in book.alerts()} == {"h2", "e01", "e11", "e21"}


def test_acts_are_kept_with_who_and_when(database: Database) -> None:
    moment = [1_000_000]
    book, world = CaseBook(database, now=lambda: moment[0]), busy()
    book.sync(world)
    moment[0] += 5
    book.comment(1, "iris", " looks like <script>alert(1)</script>\x00 ")
    book.assign(1, "iris", "otto")
    book.assign(1, "otto", None)
    book.snooze(1, "otto", moment[0] + 10)
    assert [c.id for c in book.queue()] == [2]
    assert [c.id for c in book.queue(CaseFilter(snoozed=True))] == [1]
    moment[0] += 11
    assert [c.id for c in book.queue()] == [1, 2]
    events = book.case(1).events[-4:]
    assert [(e.at, e.by, e.kind) for e in events] == [
        (1_000_005, "iris", "comment"),
        (1_000_005, "iris", "assigned"),
        (1_000_005, "otto", "assigned"),
        (1_000_005, "otto", "snoozed"),
    ]
    assert events[0].note == "looks like <script>alert(1)</script>"


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda book: book.comment(1, "iris", "  "), "needs some text"),
        (lambda book: book.comment(1, "", "x"), "by: give 1 to 128"),
        (lambda book: book.comment(1, "iris", "x" * 4_001), "at most 4,000"),
        (lambda book: book.assign(1, "iris", "x" * 129), "to: give 1 to 128"),
        (lambda book: book.snooze(1, "iris", 5), "still to come"),
        (lambda book: book.reopen(1, "iris"), "C-1 is open"),
        (lambda book: book.merge(1, 1, "iris"), "into itself"),
        (lambda book: book.finish_alert("none", "iris"), "no alert"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(book: CaseBook, act: object, said: str) -> None:
    book.sync(busy())
    with pytest.raises(CaseError, match=said):
        act(book)  # type: ignore[operator]


def test_acts_on_no_case_are_refused(book: CaseBook) -> None:
    for act in (lambda: book.comment(7, "iris", "x"), lambda: book.merge(7, 1, "iris"), lambda: book.case(7)):
        with pytest.raises(NoCaseError, match="no case C-7"):
            act()


def test_a_merge_moves_rings_members_and_links(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    book.merge(2, 1, "iris", "same people")
    one, two = book.case(1), book.case(2)
    assert (two.summary.state, two.summary.merged_into) == (CaseState.MERGED, 1)
    assert one.summary.ring_ids == ("K-1", "K-2")
    assert one.summary.at_risk == (("EUR", 90_000), ("USD", 20_000))
    assert {m.name for m in one.members} == {"anna", "ben", "cleo", "dora", "emil", "d1", "d2"}
    assert (one.events[-1].kind, two.events[-1].note) == ("merged", "same people")
    with pytest.raises(CaseError, match="went into C-1"):
        book.confirm(world, 2, "iris", ["x0"])
    world.put(replace(world.records["K-2"][-1], confidence=0.95))
    book.sync(world)
    assert book.case(1).summary.confidence == 0.95


def test_members_split_off_get_a_case_of_their_own_and_stay_in_it(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    new = book.split(world, 1, [("account", "cleo")], "iris", "another hand")
    one, other = book.case(1), book.case(new)
    assert [m.name for m in other.members] == ["cleo"]
    assert (other.summary.payments, other.summary.at_risk) == (2, (("EUR", 20_000),))
    assert (one.summary.accounts, one.summary.payments) == (2, 4)
    assert new in {link.case_id for link in one.links}
    old = world.records["K-1"][-1]
    late = replace(old.members[0], name="late")
    world.put(replace(old, members=(*old.members, late)))
    book.sync(world)
    assert "late" in {m.name for m in book.case(1).members}
    assert [m.name for m in book.case(new).members] == ["cleo"]
    book.confirm(world, new, "iris", ["e21"])
    assert (book.case(new).summary.state, book.case(1).summary.state) == (CaseState.CONFIRMED, CaseState.OPEN)
    with pytest.raises(CaseError, match="at least one account"):
        book.split(world, 1, [("device", "d1")], "iris")
    with pytest.raises(CaseError, match="no account 'cleo'"):
        book.split(world, 1, [("account", "cleo")], "iris")


def test_cases_follow_rings_that_merge_and_split(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    world.put(replace(world.records["K-2"][-1], state=RingState.ENDED, merged_into="K-1", confidence=0.0))
    world.put(ring("K-5", ("part",), ("p0",), parents=("K-1",), devices=()))
    book.sync(world)
    assert book.case(2).summary.merged_into == 1
    assert {(link.role, link.name) for link in book.case(3).links} == {("ring", "K-1")}


def test_a_queue_is_filtered_by_state_assignee_and_text(book: CaseBook) -> None:
    world = busy()
    book.sync(world)
    book.assign(2, "iris", "otto")
    book.comment(1, "iris", "100% sure")

    def ids(**wanted: object) -> list[int]:
        return [case.id for case in book.queue(CaseFilter(**wanted))]  # type: ignore[arg-type]

    assert ids(assignee="otto") == [2]
    assert ids(assignee="") == [1]
    assert ids(text="EMIL") == [2]
    assert ids(text="C-2") == [2]
    assert ids(text="K-1") == [1]
    assert ids(text="100% sure") == [1]
    assert ids(text="0%s") == []
    assert ids(state=CaseState.DISMISSED) == []
    assert book.assignees() == ["otto"]
    assert book.kinds()["open"] == 2


def test_all_pages_of_rings_are_taken_in(book: CaseBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "PAGE", 20)
    world = FakeInvestigation()
    for i in range(43):
        world.put(ring(f"K-{i}", (f"a{i}",), devices=()))
    assert book.sync(world).rings == 43
    assert (book.count(), len(book.queue(limit=10, offset=40))) == (43, 3)


def test_many_threads_act_at_once_and_nothing_is_lost(book: CaseBook) -> None:
    world = busy()
    book.sync(world)

    def work(number: int) -> None:
        for i in range(5):
            book.comment(1, f"t{number}", f"{number}:{i}")
            book.sync(world)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    said = [event.note for event in book.case(1).events if event.kind == "comment"]
    assert sorted(said) == sorted(f"{n}:{i}" for n in range(4) for i in range(5))


def test_two_verdicts_at_once_are_one_or_a_refusal(book: CaseBook) -> None:
    world = busy()
    book.sync(world)

    def judge(number: int) -> str:
        try:
            return str(book.confirm(world, 1, f"t{number}", ["e01"], request_id=f"r{number}").summary.state)
        except CaseError:
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(judge, range(4)))
    assert set(found) <= {"confirmed", "refused"}
    assert "confirmed" in found
    kept = [event.journal_offset for event in book.case(1).events if event.kind == "confirmed"]
    assert sorted(kept) == sorted(verdict.offset for verdict in world.given)
