"""The investigator's API of an account's spending: its profile, and what to tell its owner."""

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from data.schema import MAX_AMOUNT
from serve.cases.protocol import Investigation
from serve.cases.spending_wire import GuidanceOut, ProfileOut, guidance_out, profile_out
from serve.console.ring_routes import At, Who
from serve.http.openapi import JSON, problems, refuse_unknown
from serve.problems import Problem

_BALANCE: Final = re.compile(r"([A-Z]{3}):(-?\d{1,16})")
Balance = Annotated[
    list[str] | None,
    Query(description="what the account holds, minor units, such as EUR:125000; one for each currency"),
]


def account_routes(investigation: Investigation, who: Who) -> APIRouter:
    """The routes over an investigation.

    Args:
        investigation: What answers.
        who: Asked for every request.
    """
    routes = APIRouter(prefix="/v1", dependencies=[Depends(who)], tags=["accounts"])

    @routes.get("/accounts/{account:path}/profile", response_model=ProfileOut, responses=problems(401, 403, 404, 422))
    async def profile(request: Request, account: str, as_of: At = None) -> Response:
        """What the account pays again and again, what it earns, its next payment, and what was unusual."""
        refuse_unknown(request, "as_of")

        def found() -> bytes:
            known = investigation.profile(account, as_of)
            if known is None:
                raise _nobody(account)
            return profile_out(known).model_dump_json().encode()

        return Response(await asyncio.to_thread(found), media_type=JSON)

    @routes.get("/accounts/{account:path}/guidance", response_model=GuidanceOut, responses=problems(401, 403, 404, 422))
    async def guidance(request: Request, account: str, balance: Balance = None, as_of: At = None) -> Response:
        """What to tell the account's owner, with evidence; only what is certain enough."""
        refuse_unknown(request, "balance", "as_of")
        held = balances(balance or [])

        def found() -> bytes:
            advice = investigation.guidance(account, held, as_of)
            if advice is None:
                raise _nobody(account)
            return guidance_out(account, advice).model_dump_json().encode()

        return Response(await asyncio.to_thread(found), media_type=JSON)

    return routes


def balances(given: Sequence[str]) -> dict[str, int]:
    """Balances as a query names them: minor units by currency.

    Raises:
        Problem: One cannot be read, is out of range, or a currency is named twice.

    Example:
        >>> balances(["EUR:125000", "USD:-300"])
        {'EUR': 125000, 'USD': -300}
    """
    found: dict[str, int] = {}
    for text in given:
        read = _BALANCE.fullmatch(text)
        if read is None or abs(int(read[2])) > MAX_AMOUNT:
            reason = "must be a currency and minor units, such as EUR:125000 for 1,250.00 EUR"
        elif read[1] in found:
            reason = f"names {read[1]} twice"
        else:
            found[read[1]] = int(read[2])
            continue
        raise Problem(422, "Invalid content", f"balance: {reason}", [("balance", reason)])
    return found


def _nobody(account: str) -> Problem:
    reason = f"no account {account[:100]!r} in the graph: it was never seen, or has left the window"
    return Problem(404, "Not found", reason)
