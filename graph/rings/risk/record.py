"""From what is kept of a ring to its record as of a moment: members and what they are, money, density and reasons."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from graph.rings.records import Member, MemberRole, Money, RingRecord
from graph.rings.risk.ledger import At, Case, Joined, Paid

DAY_US: Final = 86_400_000_000
NEW_DAYS: Final = 21  # an account or device first seen so shortly before it joined is worth a reason


def record_of(case: Case, paid: Mapping[int, Paid], roles: tuple[str, ...], at: At, number: int) -> RingRecord:
    """The record of a ring as of a moment.

    Args:
        case: What is kept of it.
        paid: Its payments by row.
        roles: Roles of the store.
        at: The moment.
        number: Its version then.
    """
    rows = [row for row in case.rests_on(at) if row in paid]
    evidence = [paid[row] for row in rows]
    frauds = set(case.known_frauds(at))
    who = _members(case, at)
    ties, accounts_of = _ties(who, evidence, roles)
    money = _money(case, rows, paid, frauds, at)
    roles_of = _roles(who, evidence, roles, accounts_of, money)
    members = tuple(
        Member(role, name, roles_of[role, name], joined.span.since[0], case.named_at(at, spans))
        for (role, name), (joined, spans) in _in_order(who, accounts_of)
    )
    shared = [m for m in members if m.role != "account"]
    accounts = [m for m in members if m.role == "account"]
    last_seen = max((p.time for p in evidence), default=case.born[0])
    return RingRecord(
        id=case.id,
        version=number,
        state=case.state(at, last_seen),
        confidence=case.confidence_at(at),
        first_seen=case.born[0],
        named_at=case.named_at(at),
        last_seen=last_seen,
        ended_at=case.ended_at(at),
        members=members,
        evidence=tuple(p.transaction_id for p in evidence),
        known_frauds=tuple(paid[row].transaction_id for row in sorted(frauds, reverse=True) if row in paid),
        money=tuple(money),
        density=min(1.0, len(ties) / max(1, len(accounts) * max(1, len(shared)))),
        parents=tuple(parent for since, parent in case.parents if since <= at),
        merged_into=case.merged_into[1] if case.merged_into and case.merged_into[0] <= at else None,
        reasons=_reasons(who, members, len(frauds), evidence, money),
    )


_Who = dict[tuple[str, str], tuple[Joined, list]]  # type: ignore[type-arg]


def _members(case: Case, at: At) -> _Who:
    """Who is in it: the first time that a member joined, and all the spans for which it was there."""
    found: _Who = {}
    when = case.last_moment(at)
    for key, times in case.members.items():
        by_then = [j for j in times if j.span.since <= when]
        if by_then and by_then[-1].span.holds(when):
            found[key] = by_then[0], [j.span for j in by_then]
    return found


def _ties(
    who: _Who, evidence: list[Paid], roles: tuple[str, ...]
) -> tuple[set[tuple[str, str, str]], dict[tuple[str, str], set[str]]]:
    """Pairs of an account and what it shares, and the accounts of each shared member."""
    ties, accounts = set(), defaultdict(set)
    for p in evidence:
        account = p.names[0]
        for role, name in zip(roles[1:], p.names[1:], strict=True):
            if account is None or name is None or ("account", account) not in who:
                continue
            key = ("account" if role == "payee" else role, name)
            if key in who and name != account:
                ties.add((account, *key))
                accounts[key].add(account)
    return ties, accounts


def _money(case: Case, rows: list[int], paid: Mapping[int, Paid], frauds: set[int], at: At) -> list[Money]:
    tried: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for row in rows:
        p = paid[row]
        stopped = case.stopped.get(row, (at[0] + 1, 0)) <= at
        tried[p.currency] += p.amount
        held[p.currency] += p.amount * stopped
        lost[p.currency] += p.amount * (row in frauds and not stopped)
    return [Money(code, total, lost[code], held[code]) for code, total in sorted(tried.items(), key=lambda i: -i[1])]


def _roles(
    who: _Who,
    evidence: list[Paid],
    roles: tuple[str, ...],
    accounts_of: Mapping[tuple[str, str], set[str]],
    money: list[Money],
) -> dict[tuple[str, str], MemberRole]:
    accounts = [key for key in who if key[0] == "account"]
    first = min(accounts, key=lambda key: who[key][0].span.since, default=None)
    times = Counter(p.names[0] for p in evidence)
    into: Counter[tuple[str, str, str]] = Counter()
    for p in evidence:
        for role, name in zip(roles, p.names, strict=True):
            if role in ("merchant", "payee") and name is not None:
                into["account" if role == "payee" else role, name, p.currency] += p.amount
    totals = {m.currency: m.tried for m in money}
    takes = {(r, n) for (r, n, code), amount in into.items() if 2 * amount > totals[code]}
    found = {}
    for key, (joined, _) in who.items():
        role, name = key
        if key in takes:
            found[key] = MemberRole.COLLECTOR
        elif role != "account":
            most = 2 * len(accounts_of.get(key, ())) >= len(accounts)
            found[key] = MemberRole.HUB if most and role != "merchant" else MemberRole.SHARED
        elif joined.own >= 5 and 2 * times[name] < joined.own:
            found[key] = MemberRole.VICTIM
        else:
            found[key] = MemberRole.FIRST_ACCOUNT if key == first else MemberRole.ACCOUNT
    return found


def _in_order(
    who: _Who, accounts_of: Mapping[tuple[str, str], set[str]]
) -> list[tuple[tuple[str, str], tuple[Joined, list]]]:  # type: ignore[type-arg]
    accounts = sorted((i for i in who.items() if i[0][0] == "account"), key=lambda i: (i[1][0].span.since, i[0]))
    others = (i for i in who.items() if i[0][0] != "account")
    return [*accounts, *sorted(others, key=lambda i: (-len(accounts_of.get(i[0], ())), i[1][0].span.since, i[0]))]


def _reasons(who: _Who, members: tuple[Member, ...], frauds: int, evidence: list[Paid], money: list[Money]) -> str:
    """One paragraph for people."""
    accounts = [m for m in members if m.role == "account"]
    kinds = Counter(m.role for m in members if m.role != "account")
    through = [_count(n, _PLURAL.get(role, f"{role}s"), role) for role, n in kinds.items()]
    seen = [who[m.role, m.name][0].first_seen for m in members if m.role != "account" and m.role != "merchant"]
    joined = [who[m.role, m.name][0] for m in accounts]
    said = [
        _count(len(accounts), "accounts", "account")
        + f" made {_count(len(evidence), 'risky payments', 'risky payment')}"
        + (f" that meet in {_list(through)}" if through else " to each other")
    ]
    if seen and max(seen) - min(seen) < 3 * DAY_US:
        said[0] += f", first seen on {_day(min(seen))}"
    collectors = [m for m in members if m.member_role is MemberRole.COLLECTOR]
    if collectors:
        said.append(f"{collectors[0].role} {collectors[0].name} takes in most of the money")
    if frauds:
        said.append(
            f"{_count(frauds, 'payments of these accounts were', 'payment of these accounts was')} reported as fraud"
        )
    new = sorted(j.first_seen for j in joined if j.span.since[0] - j.first_seen < NEW_DAYS * DAY_US)
    if len(new) >= 2:
        days = (new[-1] - new[0]) // DAY_US + 1
        said.append(f"{len(new)} of the accounts appeared within {_count(days, 'days', 'day')}")
    victims = sum(m.member_role is MemberRole.VICTIM for m in accounts)
    if victims:
        said.append(
            f"{_count(victims, 'accounts have', 'account has')} mostly other payments, so their access may be stolen"
        )
    return "; ".join(said) + "."


_PLURAL: Final = {"ip": "addresses"}


def _count(n: int, many: str, one: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _day(us: int) -> str:
    moment = datetime.fromtimestamp(us / 1e6, UTC)
    return f"{moment.day} {moment:%B %Y}"
