"""What a replica does behind the requests: it follows, fills, and rests for longer where that fails."""

from types import SimpleNamespace

import pytest

from data.errors import JournalError
from serve.http import app


class Stop:
    """Stands for the event that ends the thread: sets itself after some pauses, and notes them."""

    def __init__(self, after: int) -> None:
        self.pauses: list[float] = []
        self._after = after

    def is_set(self) -> bool:
        return len(self.pauses) >= self._after

    def wait(self, pause: float) -> None:
        self.pauses.append(pause)


def replica(follow: list[bool | Exception], fill: list[bool]) -> SimpleNamespace:
    """A replica whose background steps go as told."""

    def next_follow() -> bool:
        step = follow.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    return SimpleNamespace(
        ready=True, settings=None, follower=SimpleNamespace(position=0), follow=next_follow, fill=lambda: fill.pop(0)
    )


@pytest.fixture(autouse=True)
def no_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "SnapshotScheduler", lambda *_: SimpleNamespace(close=lambda: None))


def test_it_goes_on_at_once_while_there_is_work_and_rests_when_there_is_none() -> None:
    stop = Stop(5)
    app._keep_current(replica([False, True, False, False, False], [True, True, False]), stop)
    assert stop.pauses == [app.BUSY_S, app.BUSY_S, app.FOLLOW_S, app.FOLLOW_S, app.FOLLOW_S]


def test_a_journal_that_cannot_be_read_is_said_once_in_a_while_and_following_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop, steps = Stop(4), [JournalError("gone"), JournalError("gone"), True, False]
    app._keep_current(replica(steps, [True, True, True, False]), stop)
    assert stop.pauses == [app.FAILED_S, app.FAILED_S, app.BUSY_S, app.FOLLOW_S]
    assert len(caplog.records) == 2
