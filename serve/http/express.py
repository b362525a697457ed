"""What happens to a payment where there are too many: an answer by rules, in line, before a request costs a task.

Turning a call away must cost far less than serving it, or a service that gets twice what it can do does nothing but
turn away. So this runs in the connection itself, as soon as the body is there.
"""

from collections.abc import Sequence
from typing import Any

from serve.http.budget import DEADLINE, Budget
from serve.http.metrics import ServiceMetrics
from serve.http.payments import PaymentDesk
from serve.http.wire import Payment, parse
from serve.keys import KeyRing
from serve.problems import Problem
from serve.settings import Settings

SCORE = "/v1/score"
_TARGET = SCORE.encode()
_JSON = b"application/json"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_DEADLINE = DEADLINE.encode()


class Express:
    """Answers POST /v1/score where that cannot be done by the model in time; leaves everything else alone.

    Args:
        settings: The service's.
        metrics: What is counted.
        state: The application's; it holds the desk once the application is up.
    """

    target = _TARGET

    def __init__(self, settings: Settings, metrics: ServiceMetrics, state: Any) -> None:
        self._settings, self._state = settings, state
        self._keys = keys_of(settings)
        self._count = {status: metrics.requests.labels(SCORE, status) for status in (200, 429)}

    def __call__(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes | None:
        """The response to a request, or None for one that has to go the usual way.

        Args:
            headers: Names in lower case, and values.
            body: All of it.
        """
        desk: PaymentDesk | None = getattr(self._state, "desk", None)
        if desk is None or not desk.replica.ready:
            return None
        given = dict(headers)
        try:
            budget = Budget.of(_text(given, _DEADLINE), _text(given, b"prefer"), self._settings.deadline_ms)
            problem = desk.overloaded(budget)
            if problem is None or not self._plain(given):
                return None
            if budget.strict:
                self._count[429].inc()
                return response_bytes(problem)
            answer = desk.answer_at_once(parse(Payment, body), problem)
        except Problem:
            return None  # the usual way says what is wrong
        self._count[200].inc()
        return _HEAD % len(answer) + answer

    def _plain(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request has a key that may score, and JSON as it is."""
        if headers.get(b"content-type", _JSON) != _JSON or b"content-encoding" in headers:
            return False
        holder = None if self._settings.insecure else self._keys.of(headers)
        return self._settings.insecure or (holder is not None and holder.may("score"))


def keys_of(settings: Settings) -> KeyRing:
    """The keys that callers may send.

    Raises:
        ServeError: Their file cannot be read.
    """
    file = None if settings.insecure else settings.keys_file
    return KeyRing([key.get_secret_value().encode() for key in settings.api_keys], file)


def response_bytes(problem: Problem, *, close: bool = False) -> bytes:
    """A problem as an HTTP response."""
    response = problem.response()
    head = [b"HTTP/1.1 %d %s" % (problem.status, problem.title.encode())]
    head += [name + b": " + value for name, value in response.raw_headers]
    if close:
        head.append(b"connection: close")
    return b"\r\n".join([*head, b"", bytes(response.body)])


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    found = headers.get(name)
    return None if found is None else found.decode("latin-1")
