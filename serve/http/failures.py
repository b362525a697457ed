"""Every failure of a route as a problem (RFC 9457)."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from serve.problems import Problem


def answer_failures(app: FastAPI) -> None:
    """Have an application answer problems, unknown routes and bad queries as problem details."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _query_problem)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    titles = {404: "Not found", 405: "Method not allowed"}
    title = titles.get(error.status_code, "Error")
    return Problem(error.status_code, title, str(error.detail), headers=error.headers).response()


async def _query_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [(str(e["loc"][-1]), e["msg"]) for e in error.errors()]
    return Problem(422, "Invalid content", f"{found[0][0]}: {found[0][1]}", found).response()
