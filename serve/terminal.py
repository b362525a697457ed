"""What the commands share: progress on long work, and one clear line on bad input."""

import contextlib
import io
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data.errors import DataError
from data.report import BESIDE, Report
from data.schema import Refusal
from gnn.errors import ModelError
from graph.errors import GraphError
from serve.errors import ServeError

BAD_INPUT = 2  # exit status
SHOWN = 5  # refused rows printed in full

WIDE = 1_000  # columns where nobody looks: what is piped is as wide as its content
EVERY_S = 5.0  # between two lines of progress, where there is no terminal for a bar

for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):  # what a locale cannot write is replaced, and ends no command
        with contextlib.suppress(ValueError):
            _stream.reconfigure(errors="replace")
out = Console(width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, width=None if sys.stderr.isatty() else WIDE)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the errors that a user can mend into one line on stderr and exit status 2."""
    try:
        yield
    except (DataError, GraphError, ModelError, ServeError) as error:
        fail(str(error))
    except FileNotFoundError as error:
        fail(f"no such file: {error.filename}")


def one_of(option: str, value: str, known: Sequence[str]) -> str:
    """A value that must be one of some; ends the command if it is not."""
    if value not in known:
        fail(f"{option} must be one of {', '.join(known)}, not {value!r}")
    return value


def warn(what: str) -> None:
    """Say something on stderr that does not keep the command from going on."""
    err.print(f"ringwatch: warning: {what}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def fail(reason: str) -> None:
    """Say why and leave with status 2."""
    err.print(f"ringwatch: {' '.join(reason.split())}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(BAD_INPUT)


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on stderr for each stage that is reported; a line every few seconds where that is no terminal."""
    if not err.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bars:
        tasks: dict[str, TaskID] = {}
        last: list[str] = []

        def report(said: str, share: float) -> None:
            what = said.partition(BESIDE)[0]
            if what not in tasks:
                if last:
                    bars.update(tasks[last[-1]], completed=1.0)
                tasks[what] = bars.add_task(what, total=1.0)
                last.append(what)
            bars.update(tasks[what], completed=share, description=said)

        yield report
        for task in tasks.values():
            bars.update(task, completed=1.0)


def caution(lines: Sequence[str]) -> None:
    """Say what a reader of the figures should know, a line each, on stderr."""
    for line in lines:
        err.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


class _Lines:
    """Progress as a line every few seconds; what is done sooner needs none."""

    def __init__(self) -> None:
        self._stage, self._begun, self._said = "", 0.0, time.monotonic()
        self._from = 0.0  # share that was done when the stage began: a run that goes on does not begin at 0

    def __call__(self, what: str, share: float) -> None:
        now = time.monotonic()
        if (stage := what.partition(BESIDE)[0]) != self._stage:
            self._stage, self._begun, self._from = stage, now, share
        if now - self._said < EVERY_S:
            return
        self._said = now
        line = f"{what}: {100 * share:.0f} % after {now - self._begun:.0f} s"
        if (more := share - self._from) > 0 and share < 1:
            line += f", about {(now - self._begun) * (1 - share) / more:.0f} s left"
        err.print(line, markup=False, highlight=False, soft_wrap=True)


class Refusals:
    """Counts refused rows and shows the first few."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, refusal: Refusal) -> None:
        """Take note of one."""
        self.count += 1
        if self.count <= SHOWN:
            err.print(f"refused: {refusal}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def summary(self) -> None:
        """Say how many there were."""
        if self.count:
            err.print(f"{self.count:,} row{'s' if self.count > 1 else ''} refused", style="yellow")


def when(text: str | None, option: str) -> datetime | None:
    """A moment from ISO 8601 text; a date means midnight, no zone means UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option}: {text!r} is not an ISO 8601 date or time such as 2018-08-08 or 2018-08-08T12:00:00+00:00")
        raise
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
