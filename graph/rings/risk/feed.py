"""Events in pieces that the engine of risk rings can take: see `one_by_one`."""

from collections.abc import Iterator

from data.journal.protocol import Events, Kind


def one_by_one(events: Events) -> Iterator[Events]:
    """Cut events so that no piece has two labels of one payment: what is believed between them is then not lost."""
    if events.kind is not Kind.LABEL:
        yield events
        return
    seen: set[str] = set()
    start = 0
    for i, name in enumerate(events.batch.column("transaction_id").to_pylist()):
        if name in seen:
            yield Events(events.kind, events.offset + start, events.batch.slice(start, i - start))
            start, seen = i, set()
        seen.add(name)
    yield Events(events.kind, events.offset + start, events.batch.slice(start))
