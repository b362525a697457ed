"""What the API says of itself: bodies that routes read raw, problems, and the key."""

from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter
from starlette.requests import Request

from serve.http.guard import OPEN
from serve.http.wire import ARROW
from serve.problems import MEDIA_TYPE, Problem, ProblemDetails

JSON = "application/json"
REFERENCE = "#/components/schemas/{model}"
KEY = "key"
_BODIES: dict[str, type[BaseModel]] = {}  # that routes read raw, as `raw_body` was told of them
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": what,
        "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model="ProblemDetails")}}},
    }
    for status, what in {
        400: "Malformed body",
        401: "No valid key",
        403: "The key has not the scope",
        404: "Not found",
        408: "The request was not complete in time",
        409: "Recorded with other content",
        413: "Too large",
        415: "Unsupported media type",
        422: "Invalid content",
        429: "Overloaded",
        503: "Not ready, or not able to record",
        504: "Deadline exceeded",
    }.items()
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of the problems that a route may answer; all of them where none is named."""
    return {status: PROBLEMS[status] for status in statuses} if statuses else PROBLEMS


def raw_body(shape: Any, *, arrow: bool = False) -> dict[str, Any]:
    """The description of a body that a route reads raw.

    Args:
        shape: A model of the API, a list of one, or either.
        arrow: Whether an Arrow IPC stream is taken too.
    """
    content: dict[str, Any] = {JSON: {"schema": _schema(shape)}}
    if arrow:
        content[ARROW] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> None:
    """Have an application describe itself with the schemas that `raw_body` and `PROBLEMS` refer to, and the key."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    models: list[type[BaseModel]] = [*_BODIES.values(), ProblemDetails]
    for model in models:
        schema = model.model_json_schema(ref_template=REFERENCE)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    components["securitySchemes"] = {KEY: {"type": "http", "scheme": "bearer"}}
    found["security"] = [{KEY: []}]
    for path in OPEN:
        for operation in found["paths"].get(path, {}).values():
            operation["security"] = []
    return found


def _schema(shape: Any) -> dict[str, Any]:
    """A reference to each model of a shape; the models themselves are among the components."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        _BODIES[shape.__name__] = shape
        return {"$ref": REFERENCE.format(model=shape.__name__)}
    if isinstance(shape, type) or getattr(shape, "__origin__", None) is list:
        return {"type": "array", "items": _schema(get_args(shape)[0])}
    if get_args(shape):
        return {"anyOf": [_schema(part) for part in get_args(shape)]}
    return TypeAdapter(shape).json_schema()


def refuse_unknown(request: Request, *known: str) -> None:
    """Refuse what a query asks for and nobody would heed: it must not be taken for the answer to it."""
    for name in request.query_params:
        if name not in known:
            reason = f"is no parameter here; known are {', '.join(known)}" if known else "is no parameter here"
            raise Problem(422, "Invalid content", f"{name[:100]}: {reason}", [(name[:100], reason)])


def expect(request: Request, *kinds: str) -> str:
    """The content type of a request, one of these: another is refused."""
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind not in kinds:
        raise Problem(415, "Unsupported media type", f"send {' or '.join(kinds)}, not {kind[:100]!r}")
    return kind
