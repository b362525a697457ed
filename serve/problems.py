"""Problem details for every error over HTTP (RFC 9457)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from serve.errors import ServeError

MEDIA_TYPE = "application/problem+json"


class FieldError(BaseModel):
    """One thing that is wrong: where, and why."""

    field: str
    reason: str


class ProblemDetails(BaseModel):
    """The body of an error, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class Problem(ServeError):
    """An error that a caller is told of.

    Args:
        status: HTTP status.
        title: The kind of problem; the same for every occurrence.
        detail: What happened this time.
        errors: (field, reason) of each thing that is wrong.
        headers: To send along.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail
        self.errors, self.headers = list(errors), dict(headers or {})

    def response(self) -> Response:
        """For HTTP."""
        body: dict[str, Any] = {
            "type": "urn:ringwatch:problem:" + self.title.lower().replace(" ", "-"),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [{"field": field, "reason": reason} for field, reason in self.errors]
        return Response(json.dumps(body), self.status, self.headers, MEDIA_TYPE)


def invalid(errors: Sequence[tuple[str, str]]) -> Problem:
    """A body that breaks the schema."""
    field, reason = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Problem(422, "Invalid content", f"{field}: {reason}{more}", errors[:100])


def too_many(most: int) -> Problem:
    """A call with more items than one may have."""
    return Problem(413, "Too many items", f"one call takes at most {most:,} items")
