"""A caller that does not wait: requests leave when they are due, whatever became of those before them.

A closed loop slows down with the service it measures, and so never sees it overloaded. Latency is counted from the
moment a request was due, not from when it got out.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop

MOST_CONNECTIONS = 3_000
TICK_S = 0.001
WAIT_S = 12.0  # for answers that are still out when the last request has left
START_US = 1_760_000_000_000_000


@dataclass
class Run:
    """What became of the requests of one run.

    Attributes:
        rate: Requests a second that were asked for; 0 in a closed loop.
        seconds: How long they were sent.
        budget_s: What each had.
        latency: Seconds from due to answered, by request; NaN where there was no answer.
        kind: `model`, `rules`, `refused` or `failed`, by request.
        due: Second of the run in which each was due.
    """

    rate: float
    seconds: float
    budget_s: float
    latency: list[float] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    due: list[float] = field(default_factory=list)

    def summary(self, margin_s: float = 0.010) -> dict[str, float]:
        """Rates and shares.

        Args:
            margin_s: What an answer may be later than its budget.
        """
        latency, kind = np.array(self.latency), np.array(self.kind)
        in_time = latency <= self.budget_s + margin_s
        counts = Counter(self.kind)
        return {
            "asked/s": len(kind) / self.seconds,
            "goodput/s": float(((kind == "model") & in_time).sum()) / self.seconds,
            "by rules/s": counts["rules"] / self.seconds,
            "refused/s": counts["refused"] / self.seconds,
            "answered in time, share": float(in_time.mean()) if len(kind) else 0.0,
            "unanswered": float(counts["failed"]),
            "p50, ms": float(np.nanmedian(latency) * 1e3),
            "p99, ms": float(np.nanquantile(latency, 0.99) * 1e3),
            "p99 by model, ms": float(np.nanquantile(latency[kind == "model"], 0.99) * 1e3)
            if counts["model"]
            else float("nan"),
        }

    def goodput_by_second(self, margin_s: float = 0.010) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """Payments scored by the model in time, in each second of the run, int64 [s]."""
        good = [
            int(due)
            for due, kind, latency in zip(self.due, self.kind, self.latency, strict=True)
            if kind == "model" and latency <= self.budget_s + margin_s
        ]
        return np.bincount(np.array(good, np.int64), minlength=int(self.seconds))


class _Connection(asyncio.Protocol):
    """One kept connection with at most one request out."""

    def __init__(self, caller: "_Caller") -> None:
        self._caller = caller
        self._got = b""
        self.request = -1
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: int, content: bytes) -> None:
        assert self.transport is not None
        self.request, self._got = request, b""
        self.transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, split, body = self._got.partition(b"\r\n\r\n")
        if not split:
            return
        at = head.lower().find(b"content-length: ")
        if len(body) < int(head[at + 16 :].split(b"\r\n", 1)[0]):
            return
        self._caller.answered(self, int(head[9:12]), body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._caller.lost(self)


class _Caller:
    """Sends payments and notes what becomes of them."""

    def __init__(self, run: Run, url: str, key: str, prefix: str, headers: dict[str, str]) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        lines = [
            "POST /v1/score HTTP/1.1", f"host: {address.netloc}", f"authorization: Bearer {key}",
            "content-type: application/json", *(f"{name}: {value}" for name, value in headers.items()),
        ]  # fmt: skip
        self._head = "\r\n".join(lines)
        self._run, self._prefix = run, prefix
        self._idle: list[_Connection] = []
        self.open = self.out = 0
        self._begin = 0.0
        self._rng = np.random.default_rng(1)
        self.after = lambda: None

    def _content(self, i: int) -> bytes:
        account = int(self._rng.integers(20_000))
        body = (
            f'{{"transaction_id":"{self._prefix}{i}","timestamp":{START_US + i * 1000},"account_id":"a{account}",'
            f'"merchant_id":"m{account % 997}","device_id":"d{account % 15_013}","amount":{account % 90_000 + 100},'
            '"currency":"EUR"}'
        )
        return f"{self._head}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()

    async def connect(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, made = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
            self._idle.append(made)
            self.open += 1

    def send(self, due: float) -> bool:
        """Send the next payment, if a connection is free."""
        while self._idle and cast(asyncio.Transport, self._idle[-1].transport).is_closing():
            self._idle.pop()
        if not self._idle:
            return False
        i, run = len(run_kind := self._run.kind), self._run
        run_kind.append("failed")
        run.latency.append(float("nan"))
        run.due.append(due - self._begin)
        self.out += 1
        self._idle.pop().send(i, self._content(i))
        return True

    def answered(self, connection: _Connection, status: int, body: bytes) -> None:
        i, run = connection.request, self._run
        run.latency[i] = time.monotonic() - self._begin - run.due[i]
        if status == 200:
            run.kind[i] = "model" if b'"recorded":true' in body and b'"scored_by":"rules"' not in body else "rules"
        else:
            run.kind[i] = "refused" if status in (429, 503, 504) else "failed"
        connection.request = -1
        self.out -= 1
        self._idle.append(connection)
        self.after()

    def lost(self, connection: _Connection) -> None:
        self.open -= 1
        if connection.request >= 0:
            self.out -= 1
        elif connection in self._idle:
            self._idle.remove(connection)

    def begin(self) -> float:
        self._begin = time.monotonic()
        return self._begin


def open_loop(
    url: str, key: str, rate: float, seconds: float, prefix: str, budget_s: float = 0.05, strict: bool = False
) -> Run:
    """Ask for scores at a fixed rate.

    Args:
        url: Of the service.
        key: Its key.
        rate: Requests a second.
        seconds: For so long.
        prefix: Of transaction ids; another for each run.
        budget_s: What each call may take; the service is told.
        strict: Ask for a refusal in place of an answer by rules.
    """
    return uvloop.run(_open_loop(url, key, rate, seconds, prefix, budget_s, strict))


async def _open_loop(
    url: str, key: str, rate: float, seconds: float, prefix: str, budget_s: float, strict: bool
) -> Run:
    run = Run(rate, seconds, budget_s)
    caller = _Caller(run, url, key, prefix, _headers(budget_s, strict))
    await caller.connect(int(min(MOST_CONNECTIONS, max(64, rate * (budget_s + 0.05)))))
    begin, sent = caller.begin(), 0
    opening: asyncio.Future[None] | None = None
    while (now := time.monotonic()) < begin + seconds:
        while begin + sent / rate <= now and caller.send(begin + sent / rate):
            sent += 1
        if begin + sent / rate <= now and caller.open < MOST_CONNECTIONS and (opening is None or opening.done()):
            opening = asyncio.ensure_future(caller.connect(64))
        await asyncio.sleep(TICK_S)
    until = time.monotonic() + WAIT_S
    while caller.out and time.monotonic() < until:
        await asyncio.sleep(0.01)
    return run


def closed_loop(url: str, key: str, callers: int, seconds: float, prefix: str) -> Run:
    """Ask for scores from some callers, each of which waits for its answer before it asks again; with much time."""
    return uvloop.run(_closed_loop(url, key, callers, seconds, prefix))


async def _closed_loop(url: str, key: str, callers: int, seconds: float, prefix: str) -> Run:
    run = Run(0, seconds, 10.0)
    caller = _Caller(run, url, key, prefix, _headers(10.0, False))
    await caller.connect(callers)
    begin = caller.begin()

    def again() -> None:
        if (now := time.monotonic()) < begin + seconds:
            caller.send(now)

    caller.after = again  # type: ignore[method-assign,assignment]
    for _ in range(callers):
        caller.send(begin)
    await asyncio.sleep(seconds)
    while caller.out:
        await asyncio.sleep(0.01)
    return run


def _headers(budget_s: float, strict: bool) -> dict[str, str]:
    preferred = {"prefer": "handling=strict"} if strict else {}
    return {"x-ringwatch-deadline-ms": f"{1e3 * budget_s:g}", **preferred}
