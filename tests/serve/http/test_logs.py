"""A replica's log: every line on disk at once, and a fault that repeats said now and then."""

import logging
from pathlib import Path

from serve.http.logs import NAMES, Seldom, log_to


def test_a_line_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "replica.log"
    before = {name: list(logging.getLogger(name).handlers) for name in NAMES}
    try:
        log_to(path)
        logging.getLogger("ringwatch").error("ten failed requests")
        assert path.read_text().endswith("ERROR ringwatch: ten failed requests\n")
    finally:
        for name, handlers in before.items():
            logging.getLogger(name).handlers[:] = handlers


def test_an_error_that_repeats_is_said_now_and_then_with_how_often_it_was_left_out() -> None:
    now, seen = [0.0], list[str]()
    log = logging.Logger("by itself")
    log.addFilter(Seldom(5.0, lambda: now[0]))
    log.addHandler(_Into(seen))
    for second in range(12):
        now[0] = float(second)
        log.error("journal: %s", f"disk full {second}")
        log.info("position %s", second)
    log.error("another")
    assert [line for line in seen if line.startswith("journal")] == [
        "journal: disk full 0",
        "journal: disk full 5 (and 4 times since this was last said)",
        "journal: disk full 10 (and 4 times since this was last said)",
    ]
    assert sum(line.startswith("position") for line in seen) == 12
    assert seen[-1] == "another"


class _Into(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())
