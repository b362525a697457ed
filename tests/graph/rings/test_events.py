"""Events of rings, folded over time, give the ring table, and are a function of the journal."""

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from data.journal.protocol import Events, Kind
from graph.rings.events import RingEvent, RingEventKind, folded
from graph.snapshot import restore, save
from graph.state import GraphState
from tests.graph.rings.streams import Rule, steps
from tests.graph.rings.test_plain import RULES


def applied(rule: Rule, seed: int, n: int, group: int = 1) -> tuple[GraphState, list[RingEvent]]:
    """A graph after a stream whose payments came `group` at a time, and what it told."""
    state, told, waiting, offset = rule.state(listen=True), [], [], 0

    def flush() -> None:
        nonlocal offset
        for i in range(0, len(waiting), group):
            batches = [e.batch for e in waiting[i : i + group]]
            state.apply(
                Events(Kind.TRANSACTION, offset, pa.Table.from_batches(batches).combine_chunks().to_batches()[0])
            )
            offset += len(batches)
            told.extend(state.rings.take_events())
        waiting.clear()

    rows = 0
    for step in steps(seed, n, rule.last):
        events = step.events(rows, 0)
        if events.kind is Kind.TRANSACTION:
            waiting.append(events)
            rows += 1
            continue
        flush()
        state.apply(Events(events.kind, offset, events.batch))
        offset += 1
        told += state.rings.take_events()
    flush()
    return state, told


def test_events_folded_over_time_give_the_rings_of_the_plain_reference_after_every_step():
    happened: Counter = Counter()

    @settings(max_examples=40, deadline=None)
    @given(RULES, st.integers(0, 1 << 30))
    def check(rule, seed):
        state, plain = rule.state(listen=True), rule.plain()
        now, of = {}, {}
        for offset, step in enumerate(steps(seed, 120, rule.last)):
            row = state.store.rows
            state.apply(step.events(row, offset))
            if step.entities is None:
                plain.label(step.row, f"a{step.account}", step.fraud, step.time)
            else:
                plain.pay(step.time, step.names())
                for kind, name in zip(state.store.roles, step.names().values(), strict=True):
                    if kind in ("account", "payee") and name is not None:
                        of[name] = state.store.ids.pseudonym(state.store.ids.get(0, name))
            told = state.rings.take_events()
            assert step.entities is not None or not told
            assert all((e.row, e.time) == (row, plain.times[row]) for e in told)
            for event in told:  # an id that ended leads nowhere, one that merged leads to where the other does
                number = int(event.ring[2:])
                if number in plain.live.anchor:  # it came back at a takeover by the same payment
                    continue
                if event.kind is RingEventKind.ENDED:
                    assert plain.leads_to(number) is None
                elif event.kind is RingEventKind.MERGED:
                    assert plain.leads_to(number) == plain.leads_to(int(event.other[2:]))
            folded(told, now)
            happened.update(e.kind for e in told)
            assert now == {f"R-{ring}": {of[name] for name in names} for ring, names in plain.table().items()}

    check()
    assert all(happened[kind] > 10 for kind in RingEventKind), happened


def test_the_same_events_are_told_however_payments_are_grouped():
    happened: Counter = Counter()

    @settings(max_examples=15, deadline=None)
    @given(RULES, st.integers(0, 1 << 30), st.sampled_from([2, 7, 64]))
    def check(rule, seed, group):
        one, told = applied(rule, seed, 120)
        many, also = applied(rule, seed, 120, group)
        assert told == also
        happened.update(e.kind for e in told)
        happened["other numbers"] += bool((one.store.column("entity") != many.store.column("entity")).any())

    check()
    assert all(happened[kind] > 0 for kind in RingEventKind), happened


def test_events_go_on_the_same_after_a_snapshot(tmp_path):
    rule, stream = Rule(), list(steps(3, 300, "card"))
    never_stopped, told = rule.state(listen=True), []
    stopped, also = rule.state(listen=True), []
    row = 0
    for offset, step in enumerate(stream):
        for state, events in ((never_stopped, told), (stopped, also)):
            state.apply(step.events(row, offset))
            events += state.rings.take_events()
        row += step.entities is not None
        if offset % 37 == 36:
            path = save(stopped, tmp_path)
            stopped = restore(path, rings=rule.engine(listen=True)).state
    assert told == also
    assert {e.kind for e in told} >= set(RingEventKind) - {RingEventKind.ENDED}


def test_listening_changes_no_answer_and_without_it_nothing_is_told():
    rule = Rule()
    heard, unheard = rule.state(listen=True), rule.state()
    row, held = 0, 0
    for offset, step in enumerate(steps(3, 300, "card")):
        for state in (heard, unheard):
            state.apply(step.events(row, offset))
        row += step.entities is not None
        assert heard.rings.rings(50) == unheard.rings.rings(50)
        held += len(unheard.rings.take_events())
    rows = np.arange(heard.store.oldest, row)
    np.testing.assert_array_equal(heard.store.column("ring", rows), unheard.store.column("ring", rows))
    assert held == 0
    assert len(heard.rings.take_events()) > 100
