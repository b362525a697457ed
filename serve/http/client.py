"""A client of the service: a deadline for every call, and retries under the same id, which the service takes once."""

import json
import os
import random
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
import pyarrow as pa

from serve.errors import ServeError
from serve.http.wire import ARROW, arrow_bytes

RETRIED = (502, 503)  # nothing was recorded, or it may be asked again


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

    A call that times out, finds no connection or is turned away (503) is sent again, with a jittered pause, until its
    deadline: ids make repeats harmless.

    Args:
        url: Of the service.
        key: Its key, if it asks for one.
        deadline: Seconds for a call, retries included.
        transport: How requests travel, where that is not a network: tests put a stand-in for the service here.

    Example:
        Without the `transport`, this scores a payment in a running service (`ringwatch serve --insecure`):

        >>> import httpx
        >>> def stand_in(request: httpx.Request) -> httpx.Response:
        ...     return httpx.Response(200, json={"fraud_probability": 0.012, "decision": "approve"})
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
        url: str,
        key: str | None = None,
        deadline: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, trust_env=False, transport=transport)
        self._deadline = deadline
        self.url = url

    @classmethod
    def from_environment(cls, url: str, deadline: float = 30.0) -> Self:
        """With the key of RINGWATCH_API_KEY."""
        return cls(url, os.environ.get("RINGWATCH_API_KEY") or None, deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def score(self, payment: Mapping[str, Any], deadline: float | None = None) -> dict[str, Any]:
        """Score one payment.

        Raises:
            Refused: The service refused it.
            ServeError: No answer before the deadline.
        """
        answer: dict[str, Any] = self._json("POST", "/v1/score", dict(payment), deadline)
        return answer

    def score_many(
        self, batch: pa.RecordBatch | pa.Table, reasons: bool = False, deadline: float | None = None
    ) -> pa.Table:
        """Score a batch in its order; the answers as a table of `serve.replica.answers.ANSWER_SCHEMA`."""
        path = f"/v1/scores?reasons={str(reasons).lower()}"
        response = self._call("POST", path, _ipc(batch), {"content-type": ARROW, "accept": ARROW}, deadline)
        with pa.ipc.open_stream(response.content) as reader:
            return reader.read_all()

    def label(self, transaction_id: str, is_fraud: bool, reported_at: str | int) -> dict[str, Any]:
        """Report what became known of a payment."""
        body = {"transaction_id": transaction_id, "is_fraud": is_fraud, "reported_at": reported_at}
        answer: dict[str, Any] = self._json("POST", "/v1/labels", body)
        return answer

    def label_many(self, batch: pa.RecordBatch | pa.Table) -> dict[str, Any]:
        """Report a batch of labels."""
        answer: dict[str, Any] = self._call("POST", "/v1/labels", _ipc(batch), {"content-type": ARROW}).json()
        return answer

    def rings(self, limit: int = 20) -> list[dict[str, Any]]:
        """The riskiest rings."""
        found: list[dict[str, Any]] = self._json("GET", f"/v1/rings?limit={limit}")
        return found

    def ring(self, ring_id: str) -> dict[str, Any]:
        """One ring."""
        found: dict[str, Any] = self._json("GET", f"/v1/rings/{ring_id}")
        return found

    def is_ready(self) -> bool:
        """Whether the service scores."""
        try:
            return self._http.get("/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def _json(self, method: str, path: str, body: Any = None, deadline: float | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        return self._call(method, path, content, {"content-type": "application/json"}, deadline).json()

    def _call(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        deadline: float | None = None,
    ) -> httpx.Response:
        until, pause, why = time.monotonic() + (deadline or self._deadline), 0.02, "no time was left"
        while (left := until - time.monotonic()) > 0:
            try:
                asked = {**headers, "x-ringwatch-deadline-ms": f"{1e3 * left:.0f}"} if left >= 0.001 else headers
                response = self._http.request(method, path, content=content, headers=asked, timeout=left)
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if response.status_code < 400:
                    return response
                if response.status_code not in RETRIED:
                    raise Refused(response.status_code, _problem(response))
                why = str(Refused(response.status_code, _problem(response)))
            time.sleep(min(max(0.0, until - time.monotonic()), pause * random.uniform(0.5, 1.5)))
            pause = min(1.0, 2 * pause)
        raise ServeError(f"{method} {path}: no answer before the deadline ({why})")


def _ipc(batch: pa.RecordBatch | pa.Table) -> bytes:
    return arrow_bytes(pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch)


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {"title": response.reason_phrase, "detail": response.text[:200]}
    return found if isinstance(found, dict) else {"detail": str(found)[:200]}
