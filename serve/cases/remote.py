"""An investigation at a running service: the same answers as the one in this process gives, over HTTP."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import pyarrow as pa

from graph.rings.records import RING_PAYMENTS, RingRecord
from serve.cases.comparison import COMPARISON
from serve.cases.protocol import EVERY, Entity, GivenVerdict, RingFilter, Verdict
from serve.cases.spending_wire import GuidanceOut, ProfileOut, guidance_in, profile_in
from serve.cases.wire import (
    EntityOut,
    PaymentOut,
    RingDetail,
    RingLineage,
    RingPage,
    VerdictOut,
    entity_in,
    payments_in,
    ring_in,
    verdict_in,
)
from serve.decide.spending.guidance import Advice
from serve.decide.spending.profile import Profile
from serve.http.client import Refused, RingwatchClient
from serve.http.values import EPOCH, TICK


class RemoteInvestigation:
    """`serve.cases.protocol.Investigation` over HTTP.

    Args:
        client: Of the investigator's address, with a key that may investigate.
    """

    def __init__(self, client: RingwatchClient) -> None:
        self._client = client

    @property
    def clock(self) -> int:
        """Journal time of the newest payment, us."""
        return (datetime.fromisoformat(self._get("/readyz")["clock"]) - EPOCH) // TICK

    @property
    def position(self) -> int:
        """The journal offset that is read next."""
        return int(self._get("/readyz")["journal_offset"])

    def rings(
        self, wanted: RingFilter = EVERY, limit: int = 100, after: str | None = None, as_of: int | None = None
    ) -> list[RingRecord]:
        """See `Investigation.rings`."""
        query: list[tuple[str, Any]] = [("state", state) for state in wanted.states]
        query += [("entity", ":".join(wanted.entity))] if wanted.entity else []
        named = {"since": wanted.since, "until": wanted.until, "after": after, "as_of": as_of}
        query += [(name, value) for name, value in named.items() if value is not None]
        query += [("confidence", wanted.confidence), ("limit", limit)]
        found = self._find(f"/v1/rings?{urlencode(query)}")
        if found is None:
            raise KeyError(after)
        return [ring_in(ring) for ring in RingPage.model_validate(found).rings]

    def ring(self, ring_id: str, as_of: int | None = None) -> RingRecord | None:
        """See `Investigation.ring`."""
        found = self._find(f"/v1/rings/{quote(ring_id, safe='')}" + ("" if as_of is None else f"?as_of={as_of}"))
        return None if found is None else ring_in(RingDetail.model_validate(found))

    def versions(self, ring_id: str) -> list[RingRecord]:
        """See `Investigation.versions`."""
        found = self._find(f"/v1/rings/{quote(ring_id, safe='')}")
        return [] if found is None else [ring_in(ring) for ring in RingLineage.model_validate(found).versions]

    def ring_payments(self, ring_id: str, neighbours: bool = False) -> pa.Table:
        """See `Investigation.ring_payments`."""
        found = self._ring_part(ring_id, f"payments?neighbours={str(neighbours).lower()}")
        return payments_in([PaymentOut.model_validate(row) for row in found]) if found else RING_PAYMENTS.empty_table()

    def entity(self, role: str, name: str, limit: int = 200) -> Entity | None:
        """See `Investigation.entity`."""
        found = self._find(f"/v1/entities/{quote(role, safe='')}/{quote(name, safe='')}?limit={limit}")
        return None if found is None else entity_in(EntityOut.model_validate(found))

    def profile(self, account: str, as_of: int | None = None) -> Profile | None:
        """See `Investigation.profile`."""
        found = self._of_account(account, "profile", [] if as_of is None else [("as_of", as_of)])
        return None if found is None else profile_in(ProfileOut.model_validate(found))

    def guidance(
        self, account: str, balance: Mapping[str, int] | None = None, as_of: int | None = None
    ) -> tuple[Advice, ...] | None:
        """See `Investigation.guidance`."""
        query: list[tuple[str, Any]] = [("balance", f"{code}:{minor}") for code, minor in (balance or {}).items()]
        found = self._of_account(account, "guidance", query + ([] if as_of is None else [("as_of", as_of)]))
        return None if found is None else guidance_in(GuidanceOut.model_validate(found))

    def payment(self, transaction_id: str) -> pa.Table | None:
        """See `Investigation.payment`."""
        found = self._find(f"/v1/payments/{quote(transaction_id, safe='')}")
        return None if found is None else payments_in([PaymentOut.model_validate(found)])

    def comparison(self, ring_id: str) -> pa.Table:
        """See `Investigation.comparison`."""
        return pa.Table.from_pylist(self._ring_part(ring_id, "comparison"), schema=COMPARISON)

    def alike(self, ring_id: str, limit: int = 10) -> list[tuple[str, float]]:
        """See `Investigation.alike`."""
        return [(row["id"], row["likeness"]) for row in self._ring_part(ring_id, f"alike?limit={limit}")]

    def verdicts(self, ring_id: str | None = None) -> Sequence[GivenVerdict]:
        """See `Investigation.verdicts`."""
        if ring_id is None:
            found = self._get("/v1/verdicts")
        else:
            one = self._find(f"/v1/rings/{quote(ring_id, safe='')}")
            found = [] if one is None else one["verdicts"]
        return [verdict_in(VerdictOut.model_validate(row)) for row in found]

    def give_verdict(
        self,
        ring_id: str,
        verdict: Verdict,
        transaction_ids: Sequence[str],
        by: str,
        note: str = "",
        verdict_id: str = "",
    ) -> GivenVerdict:
        """See `Investigation.give_verdict`. Who gives it is whose key this is: the service does not read `by`."""
        body = {"verdict": verdict, "transaction_ids": list(transaction_ids), "note": note, "verdict_id": verdict_id}
        try:
            found = self._client.call("POST", f"/v1/rings/{quote(ring_id, safe='')}/verdict", body)
        except Refused as error:
            if error.status == 404:
                raise KeyError(ring_id) from None
            if error.status == 422:
                raise ValueError(str(error.problem.get("detail"))) from None
            raise
        return verdict_in(VerdictOut.model_validate(found))

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def _get(self, path: str) -> Any:
        return self._client.call("GET", path)

    def _ring_part(self, ring_id: str, part: str) -> Any:
        found = self._find(f"/v1/rings/{quote(ring_id, safe='')}/{part}")
        if found is None:
            raise KeyError(ring_id)
        return found

    def _of_account(self, account: str, part: str, query: list[tuple[str, Any]]) -> Any:
        path = f"/v1/accounts/{quote(account, safe='')}/{part}"
        return self._find(f"{path}?{urlencode(query)}" if query else path)

    def _find(self, path: str) -> Any:
        """What is there, None where nothing is."""
        try:
            return self._get(path)
        except Refused as error:
            if error.status == 404:
                return None
            raise
