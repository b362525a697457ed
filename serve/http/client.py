"""A client of the service: a deadline for every call, and retries under the same id, which the service takes once."""

import json
import logging
import os
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import pyarrow as pa

from serve.errors import ServeError
from serve.http.wire import ARROW, arrow_bytes

log = logging.getLogger("ringwatch")
RETRIED = (429, 502, 503, 504)  # nothing was recorded, or it may be asked again
STRICT = {"prefer": "handling=strict"}  # no answer by rules: these callers can wait
JSON = {"content-type": "application/json"}
ON_THE_WAY = 0.9  # the service's share of the time: the rest is the network's
RESEND_S = 10.0  # for one attempt to have a payment recorded that was answered before it was
LONGEST_PAUSE_S = 5.0


class Refused(ServeError):
    """The service refused a call.

    Attributes:
        status: HTTP status.
        problem: The problem details (RFC 9457).
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('title', '')}: {problem.get('detail', '')}")
        self.status, self.problem = status, dict(problem)


class RingwatchClient:
    """Scores payments over HTTP, on kept connections.

    A call that times out, finds no connection or is turned away (429, 503) is sent again, to the next replica where
    there are several, until its deadline: ids make repeats harmless. A payment that was answered without being recorded
    (`"recorded": false`) is sent again in the background, with the decision that was given, until it is.

    Args:
        url: Of the service, or of each of its replicas, the preferred first.
        key: Its key, if it asks for one.
        deadline: Seconds for a call, retries included. The service is told what is left of it: give a payment that
            waits for its answer what it can wait (`score(payment, deadline=0.05)`).
        transport: How requests travel, where that is not a network: tests put a stand-in for the service here.

    Raises:
        ServeError: The key holds what no header may hold.

    Example:
        Without the `transport`, this scores a payment in a running service (`ringwatch serve --insecure`):

        >>> import httpx
        >>> def stand_in(request: httpx.Request) -> httpx.Response:
        ...     return httpx.Response(200, json={"fraud_probability": 0.012, "decision": "approve", "recorded": True})
        >>> payment = {
        ...     "transaction_id": "t-1", "timestamp": "2026-01-01T12:00:00Z", "account_id": "ann",
        ...     "merchant_id": "kiosk", "amount": 1250, "currency": "EUR",
        ... }
        >>> with RingwatchClient("http://127.0.0.1:8000", transport=httpx.MockTransport(stand_in)) as client:
        ...     client.score(payment)["decision"]
        'approve'
    """

    def __init__(
        self,
        url: str | Sequence[str],
        key: str | None = None,
        deadline: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        key = None if key is None else key.strip()
        if key and not (key.isascii() and key.isprintable()):
            raise ServeError("the key holds a character that no HTTP header may hold, such as a line break")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.urls = (url,) if isinstance(url, str) else tuple(url)
        self.url = self.urls[0]
        self._http = httpx.Client(headers=headers, trust_env=False, transport=transport)
        self._deadline = deadline
        self._unrecorded: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._changed = threading.Condition()
        self._resending: threading.Thread | None = None
        self._closed = False

    @classmethod
    def from_environment(cls, url: str | Sequence[str], deadline: float = 30.0) -> Self:
        """With the key of RINGWATCH_API_KEY."""
        return cls(url, os.environ.get("RINGWATCH_API_KEY") or None, deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def unrecorded(self) -> int:
        """Payments that were answered and are not known to be recorded; they are sent again in the background."""
        return len(self._unrecorded)

    def score(self, payment: Mapping[str, Any], deadline: float | None = None) -> dict[str, Any]:
        """Score one payment.

        Raises:
            Refused: The service refused it.
            ServeError: No answer before the deadline.
        """
        answer: dict[str, Any] = self.call("POST", "/v1/score", dict(payment), deadline)
        if answer.get("recorded") is False:
            self._send_again({**payment, "decision_given": answer["decision"]})
        return answer

    def settle(self, wait_s: float) -> int:
        """Wait until every payment that was answered is recorded; returns how many are not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unrecorded, wait_s)
        return self.unrecorded

    def score_many(
        self, batch: pa.RecordBatch | pa.Table, reasons: bool = False, deadline: float | None = None
    ) -> pa.Table:
        """Score a batch in its order; the answers as a table of `serve.replica.answers.ANSWER_SCHEMA`, all recorded."""
        path = f"/v1/scores?reasons={str(reasons).lower()}"
        headers = {"content-type": ARROW, "accept": ARROW, **STRICT}
        response = self._call("POST", path, _ipc(batch), headers, deadline)
        try:
            with pa.ipc.open_stream(response.content) as reader:
                return reader.read_all()
        except (pa.ArrowException, OSError) as error:
            raise _no_answer(response, f"not an Arrow stream ({error})") from None

    def label(self, transaction_id: str, is_fraud: bool, reported_at: str | int) -> dict[str, Any]:
        """Report what became known of a payment."""
        body = {"transaction_id": transaction_id, "is_fraud": is_fraud, "reported_at": reported_at}
        answer: dict[str, Any] = self.call("POST", "/v1/labels", body)
        return answer

    def label_many(self, batch: pa.RecordBatch | pa.Table) -> dict[str, Any]:
        """Report a batch of labels."""
        response = self._call("POST", "/v1/labels", _ipc(batch), {"content-type": ARROW})
        answer: dict[str, Any] = _content(response)
        return answer

    def outcome(self, transaction_id: str, outcome: str, at: str | int, **more: Any) -> dict[str, Any]:
        """Report what became of a payment.

        Args:
            transaction_id: Of the payment.
            outcome: `approved`, `declined`, `refunded`, ...: see `data.outcomes.REPORTED`.
            at: When, as in a payment.
            more: `amount` (minor units), `outcome_id`, `by`.
        """
        return self.outcomes([{"transaction_id": transaction_id, "outcome": outcome, "at": at, **more}])

    def outcomes(self, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Report what became of payments; how many were recorded now, and before."""
        answer: dict[str, Any] = self.call("POST", "/v1/outcomes", [dict(one) for one in found])
        return answer

    def grant(self, mandate: Mapping[str, Any]) -> dict[str, Any]:
        """Grant a mandate, or a new version of one, as `POST /v1/mandates` takes it."""
        answer: dict[str, Any] = self.call("POST", "/v1/mandates", dict(mandate))
        return answer

    def revoke(self, mandate_id: str) -> dict[str, Any]:
        """Revoke a mandate: what its agent pays from now on is declined."""
        answer: dict[str, Any] = self.call("POST", f"/v1/mandates/{quote(mandate_id, safe='')}/revoke")
        return answer

    def mandate(self, mandate_id: str) -> dict[str, Any]:
        """A mandate as of now: terms, state, spent, reserved and remaining budget, and its newest payments."""
        found: dict[str, Any] = self.call("GET", f"/v1/mandates/{quote(mandate_id, safe='')}")
        return found

    def ties(self, limit: int = 20, as_of: str | int | None = None) -> list[dict[str, Any]]:
        """The riskiest tie rings: accounts tied by rare devices and cards that they share.

        Args:
            limit: How many, at most.
            as_of: A moment, as in a payment; by default now. What has expired by then is left out.
        """
        found: list[dict[str, Any]] = self.call("GET", f"/v1/ties?limit={limit}{_as_of('&', as_of)}")
        return found

    def tie(self, ring_id: str, as_of: str | int | None = None) -> dict[str, Any]:
        """One tie ring."""
        found: dict[str, Any] = self.call("GET", f"/v1/ties/{ring_id}{_as_of('?', as_of)}")
        return found

    def is_ready(self) -> bool:
        """Whether the service scores."""
        try:
            return self._http.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def close(self, wait_s: float = 2.0) -> None:
        """Let the connections go, once what was answered is recorded, or after `wait_s` seconds."""
        left = self.settle(wait_s)
        if left:
            log.warning("%s payments were answered and are not known to be recorded: send them again", left)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._resending is not None:
            self._resending.join(RESEND_S + 1)
        self._http.close()

    def call(self, method: str, path: str, body: Any = None, deadline: float | None = None) -> Any:
        """Send a call, JSON both ways, as often as its deadline allows.

        Raises:
            Refused: The service refused it.
            ServeError: There is no answer in time.
        """
        content = None if body is None else json.dumps(body).encode()
        return _content(self._call(method, path, content, JSON, deadline))

    def _call(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        deadline: float | None = None,
    ) -> httpx.Response:
        until, pause, why = time.monotonic() + (deadline or self._deadline), 0.02, "no time was left"
        tries = 0
        while (left := until - time.monotonic()) > 0:
            url, others = self.urls[tries % len(self.urls)], len(self.urls) - 1 - tries % len(self.urls)
            tries += 1
            # Where there are others to ask, a replica that does not answer must leave them time.
            mine = left / 2 if others else left
            try:
                budget_ms = max(1.0, 1e3 * ON_THE_WAY * mine)
                asked = {**headers, "x-ringwatch-deadline-ms": f"{budget_ms:.0f}"}
                response = self._http.request(method, url + path, content=content, headers=asked, timeout=mine)
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return response
                if response.status_code < 400:
                    raise _no_answer(response, "a redirection: give the service's own address")
                if response.status_code not in RETRIED:
                    raise Refused(response.status_code, _problem(response))
                why = str(Refused(response.status_code, _problem(response)))
            if others:
                continue
            time.sleep(min(max(0.0, until - time.monotonic()), pause * random.uniform(0.5, 1.5)))
            pause = min(1.0, 2 * pause)
        raise ServeError(f"{method} {path}: no answer before the deadline ({why})")

    def _send_again(self, payment: dict[str, Any]) -> None:
        with self._changed:
            self._unrecorded[str(payment["transaction_id"])] = payment
            if self._resending is None:
                self._resending = threading.Thread(target=self._resend, name="ringwatch-resend", daemon=True)
                self._resending.start()
            self._changed.notify_all()

    def _resend(self) -> None:
        """Send what was answered without being recorded, oldest first, until it is, or is refused."""
        pause = 0.05
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unrecorded or self._closed)
                if self._closed:
                    return
                name, payment = next(iter(self._unrecorded.items()))
            try:
                body = json.dumps(payment).encode()
                done = bool(_content(self._call("POST", "/v1/score", body, JSON | STRICT, RESEND_S)).get("recorded"))
            except Refused as error:
                log.warning("payment %r was answered, and is refused now: %s", name, error)
                done = True
            except (ServeError, RuntimeError):  # no answer, or closed meanwhile
                done = False
            with self._changed:
                if done:
                    self._unrecorded.pop(name, None)
                    self._changed.notify_all()
                    pause = 0.05
                    continue
                self._changed.wait_for(lambda: self._closed, pause * random.uniform(0.5, 1.5))
                pause = min(LONGEST_PAUSE_S, 2 * pause)


def _as_of(mark: str, moment: str | int | None) -> str:
    return "" if moment is None else f"{mark}as_of={quote(str(moment))}"


def _ipc(batch: pa.RecordBatch | pa.Table) -> bytes:
    return arrow_bytes(pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch)


def _content(response: httpx.Response) -> Any:
    """What a good answer says, as JSON."""
    try:
        return response.json()
    except ValueError:
        raise _no_answer(response, "no JSON") from None


def _no_answer(response: httpx.Response, what: str) -> ServeError:
    return ServeError(
        f"{response.request.url}: what answers there is no Ringwatch service: status {response.status_code}, {what}"
    )


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {"title": response.reason_phrase, "detail": response.text[:200]}
    return found if isinstance(found, dict) else {"detail": str(found)[:200]}
