"""Which mandates get into a commit: repeats are told from new versions and from contradictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import pyarrow as pa

from data.journal.protocol import SCHEMAS, Kind
from serve.decide.mandates import Mandate, MandateBook, follows
from serve.decide.terms import Terms, shown
from serve.problems import Problem

UNKNOWN: Final = "there is no such mandate, or it ended long ago"


@dataclass(frozen=True)
class MandateCall:
    """A mandate to grant, a new version of one, or its revocation.

    Attributes:
        mandate_id: Which.
        terms: What it says; None to revoke it.
        version: Its number: 1 for a new one, one more than the newest for a change; None where the caller names none.
        at: When it was given, us.
    """

    mandate_id: str
    terms: Terms | None
    version: int | None
    at: int


@dataclass(frozen=True)
class Granted:
    """What became of a call.

    Attributes:
        mandate_id: Which.
        version: Its newest.
        state: `active` or `revoked`.
        repeated: Whether it was so before.
    """

    mandate_id: str
    version: int
    state: Literal["active", "revoked"]
    repeated: bool


@dataclass
class GrantedMandates:
    """Mandates that one commit lets in.

    Attributes:
        book: As of the commit's beginning.
    """

    book: MandateBook
    _new: dict[str, Mandate] = field(default_factory=dict)  # of this commit, without what was spent

    def take(self, call: MandateCall) -> tuple[Granted, pa.RecordBatch | None]:
        """What a call does, and its event; None where it changes nothing.

        Raises:
            Problem: 404 for the revocation of an unknown one, 409 for a version that cannot follow, 422 for terms that
                have expired.
        """
        name, there = call.mandate_id, self._new.get(call.mandate_id) or self.book.get(call.mandate_id)
        if call.terms is None:
            if there is None:
                raise Problem(404, "Not found", f"no mandate {name!r}: {UNKNOWN}")
            if there.state == "revoked":
                return Granted(name, there.version, "revoked", True), None
            return self._put(call, replace(there, state="revoked"))
        if there is not None and there.terms == call.terms and call.version in (None, there.version):
            return Granted(name, there.version, there.state, True), None
        version = call.version or 1
        if there is None:
            wrong = None if version == 1 else ("version", "there is no such mandate yet: the first version is 1")
        else:
            wrong = _changed(there, call.terms) if version <= there.version else follows(there, version, call.terms)
        if wrong is not None:
            raise Problem(409, "Conflict", f"mandate {name!r}: {wrong[0]}: {wrong[1]}", [wrong])
        if call.terms.expires_at <= self.book.clock:
            reason = f"is not after {shown(self.book.clock)}, the time of the newest payment"
            raise Problem(422, "Invalid content", f"expires_at: {reason}", [("expires_at", reason)])
        return self._put(call, Mandate(call.terms, version))

    def _put(self, call: MandateCall, mandate: Mandate) -> tuple[Granted, pa.RecordBatch]:
        self._new[call.mandate_id] = mandate
        return Granted(call.mandate_id, mandate.version, mandate.state, False), _event(call, mandate)


def _changed(there: Mandate, terms: Terms) -> tuple[str, str]:
    """Why terms under a number that is taken are refused: the field that differs, and the number to send."""
    names = there.terms.differing(terms)
    if not names:
        return "version", f"the newest is {there.version}: the next is {there.version + 1}"
    was, now = getattr(there.terms, names[0]), getattr(terms, names[0])
    way = f"to change it send version {there.version + 1}"
    return names[0], f"is {was!r} in version {there.version}, sent {now!r}; {way}"


def _event(call: MandateCall, mandate: Mandate) -> pa.RecordBatch:
    terms = mandate.terms
    row: Mapping[str, Any] = {
        "mandate_id": call.mandate_id,
        "version": mandate.version,
        "state": mandate.state,
        "account_id": terms.account_id,
        "agent_id": terms.agent_id,
        "currency": terms.currency,
        "budget": terms.budget,
        "terms": terms.json(),
        "at": call.at,
    }
    return pa.RecordBatch.from_pylist([row], SCHEMAS[Kind.MANDATE])
