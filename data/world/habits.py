"""How people pay in the seeded payment world: times, merchants, amounts, devices and addresses by habit.

Ring members and their victims pay through the same `habitual` (see `data.world.planted`), so that what sets a fraud
apart is only what its ring changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from data.world.town import (
    ATM,
    BANK_COUNT,
    COUNTRIES,
    DAY,
    ECOM,
    HOUR,
    LEASES_PER_PLACE,
    PAYEES_PER_ACCOUNT,
    POS,
    SITES_PER_ACCOUNT,
    STORES_PER_ACCOUNT,
    TRANSFER,
    Ints,
    Town,
)

PRICE_LEVEL = np.array([country.price for country in COUNTRIES])


@dataclass(frozen=True)
class PaymentColumns:
    """Payments as columns of equal length [n]; an absent device, ip, card or payee is -1."""

    time: Ints  # us since the epoch
    account: Ints
    merchant: Ints
    device: Ints
    amount: Ints  # minor units of the merchant's country
    ip: Ints
    card: Ints
    payee: Ints
    channel: Ints
    country: Ints

    def __len__(self) -> int:
        return len(self.time)

    @staticmethod
    def join(parts: "Sequence[PaymentColumns]") -> "PaymentColumns":
        """The payments of all parts, one after another."""
        return PaymentColumns(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(PaymentColumns))
        )

    def take(self, index: Ints) -> "PaymentColumns":
        """The payments at some positions, in that order."""
        return PaymentColumns(*(getattr(self, f.name)[index] for f in fields(PaymentColumns)))


def habitual(
    rng: np.random.Generator,
    town: Town,
    account: Ints,
    time: Ints,
    channel: Ints | None = None,
    merchant: Ints | None = None,
) -> PaymentColumns:
    """Payments as these accounts would make them at these times.

    Args:
        rng: Source of every draw.
        town: The stage.
        account: Payers, int64 [n].
        time: Instants, us, int64 [n].
        channel: Channels, int64 [n]; by habit where not given.
        merchant: Merchants, int64 [n]; by habit where not given.

    Returns:
        The payments, in the order of `account`.
    """
    people, shops, n = town.people, town.merchants, len(account)
    if channel is None:
        channel = (rng.random(n)[:, None] > people.mix[account, :3]).sum(1)
    ecom, transfer = channel == ECOM, channel == TRANSFER
    away = (time >= people.trip[account, 0]) & (time < people.trip[account, 1])
    here = np.where(away, people.abroad[account], people.home[account])
    payee = people.payees[account, _favourite(rng, n, PAYEES_PER_ACCOUNT)]
    # Nobody is paid before the account exists: the first favourite, who was always there, is paid instead.
    payee = np.where(town.start + people.join[payee] * DAY > time, people.payees[account, 0], payee)
    payee = np.where(transfer, payee, -1)
    if merchant is None:
        merchant = _merchant(rng, town, account, channel, here, time, away, payee)
    country = np.where(channel == POS, here, shops.country[merchant])
    country = np.where(transfer, people.home[account], country)
    return PaymentColumns(
        time=time,
        account=account,
        merchant=merchant,
        device=_device(rng, town, account, time, channel),
        amount=_amount(rng, town, account, merchant, channel, country),
        ip=np.where(ecom, _address(rng, town, account, time, away, here), -1),
        card=np.where(transfer, -1, account * 2 + (rng.random(n) < people.second[account] / 2)),
        payee=payee,
        channel=channel,
        country=country,
    )


def _favourite(rng: np.random.Generator, n: int, kept: int) -> Ints:
    """Positions among favourites, the first ones far more often (a power law)."""
    return (kept * rng.random(n) ** 2.2).astype(np.int64)


def _merchant(
    rng: np.random.Generator,
    town: Town,
    account: Ints,
    channel: Ints,
    here: Ints,
    time: Ints,
    away: np.ndarray,
    payee: Ints,
) -> Ints:
    people, shops, n = town.people, town.merchants, len(account)
    usual = rng.random(n) < 0.72
    store = np.where(
        usual & ~away, people.stores[account, _favourite(rng, n, STORES_PER_ACCOUNT)], shops.stores.draw(rng, here)
    )
    site = np.where(
        usual,
        people.sites[account, _favourite(rng, n, SITES_PER_ACCOUNT)],
        shops.sites.draw(rng, np.zeros(n, np.int64)),
    )
    sale = shops.events[np.clip((time - town.start) // DAY, 0, town.days - 1)]
    site = np.where((rng.random(n) < 0.06) & (sale >= 0), sale, site)
    bank = shops.first_bank + np.maximum(payee, 0) % BANK_COUNT
    return np.choose(channel, [site, store, shops.machines.draw(rng, here), bank])


def _amount(rng: np.random.Generator, town: Town, account: Ints, merchant: Ints, channel: Ints, country: Ints) -> Ints:
    shops, n = town.merchants, len(account)
    log = shops.ticket[merchant] + town.people.level[account] + shops.spread[merchant] * rng.standard_normal(n)
    amount = np.exp(log) * PRICE_LEVEL[country]
    # Prices end in .00, .50 or .99 often; machines give notes.
    ending = rng.random(n)
    amount = np.where(
        ending < 0.25, np.round(amount / 50) * 50, np.where(ending < 0.5, np.ceil(amount / 100) * 100 - 1, amount)
    )
    amount = np.where(channel == ATM, np.maximum(1, np.round(amount / 1000)) * 1000, amount)
    return np.maximum(np.round(amount), 1).astype(np.int64)


def _device(rng: np.random.Generator, town: Town, account: Ints, time: Ints, channel: Ints) -> Ints:
    people, n = town.people, len(account)
    main = people.devices[account, (time >= people.switch[account]).astype(np.int64)]
    device = np.where(rng.random(n) < people.second[account], people.devices[account, 2], main)
    shared = (rng.random(n) < people.shared_device_use[account]) & (channel != POS)
    device = np.where(shared, people.shared_device[account], device)
    unseen = rng.random(n)
    absent = (
        (channel == ATM)
        | ((channel == POS) & (unseen >= people.wallet[account]))
        | ((channel != POS) & (unseen < 0.03))
    )
    return np.where(absent, -1, device)


def _address(rng: np.random.Generator, town: Town, account: Ints, time: Ints, away: np.ndarray, here: Ints) -> Ints:
    people, n = town.people, len(account)
    place = people.place[account]
    lease = np.minimum((time - town.start + place * 7 * HOUR) // (30 * DAY) % LEASES_PER_PLACE, LEASES_PER_PLACE - 1)
    home = town.address(place, lease)
    office = town.address(people.shared_place[account])
    pooled = here * town.pool + (town.pool * rng.random(n) ** 1.5).astype(np.int64)
    where = rng.random(n)
    ip = np.where(where < 0.25, pooled, home)
    ip = np.where(where >= 1 - people.shared_place_use[account], office, ip)
    return np.where(away, pooled, ip)


def honest(rng: np.random.Generator, town: Town, count: int) -> PaymentColumns:
    """Exactly `count` payments of everybody's daily life, salaries and rents among them.

    Raises:
        ValueError: `count` is negative.
    """
    people = town.people
    monthly = _monthly(rng, town)
    monthly = monthly.take(np.sort(rng.permutation(len(monthly))[: count // 8]))
    forwards = (count - len(monthly)) // 200
    daily = count - len(monthly) - forwards

    weight = people.rate * np.maximum(people.leave - people.join, 0)
    account = np.repeat(np.arange(len(people)), rng.multinomial(daily, weight / weight.sum()))
    time = _times(rng, town, account)
    # One payment in eight follows the one before within minutes: a walk through shops, a basket split in two.
    follows = np.flatnonzero((rng.random(daily) < 0.12) & (account == np.roll(account, 1)) & (np.arange(daily) > 0))
    time[follows] = time[follows - 1] + (rng.exponential(9.0, len(follows)) * HOUR / 60).astype(np.int64)
    paid = habitual(rng, town, account, time)

    # Money is passed on within hours by honest people too (a bill shared out), or every chain would be a mule's.
    transfers = np.flatnonzero(paid.payee >= 0)
    received = rng.choice(transfers if len(transfers) else np.arange(daily), forwards)
    payer = np.where(paid.payee[received] >= 0, paid.payee[received], account[received])
    later = time[received] + (rng.exponential(2.0, forwards) * HOUR).astype(np.int64)
    passed = habitual(rng, town, payer, later, np.full(forwards, TRANSFER))
    passed = replace(
        passed, amount=np.maximum((paid.amount[received] * rng.uniform(0.3, 1.0, forwards)).astype(np.int64), 1)
    )
    return PaymentColumns.join([paid, monthly, passed])


def _times(rng: np.random.Generator, town: Town, account: Ints) -> Ints:
    """Instants at which the accounts pay: days by their weeks and the calendar, hours by their clock."""
    people, n = town.people, len(account)
    width = town.days + 1
    # The profiles' cumulative weights end to end are one ascending line, so one search serves all.
    base = np.cumsum(np.concatenate([[0.0], town.calendar[:-1, -1]]))
    line = (town.calendar + base[:, None]).ravel()
    week = people.week[account]
    low, high = line[week * width + people.join[account]], line[week * width + people.leave[account]]
    day = np.searchsorted(line, low + rng.random(n) * (high - low), side="right") - 1 - week * width
    day = np.clip(day, people.join[account], people.leave[account] - 1)
    hour = np.mod(people.hour[account] + people.hour_spread[account] * rng.standard_normal(n), 24.0)
    return town.start + day * DAY + (hour * HOUR).astype(np.int64)


def _monthly(rng: np.random.Generator, town: Town) -> PaymentColumns:
    """Salaries near the 25th and rents near the 1st, in transfers of nearly the same amount each month."""
    people, n = town.people, len(town.people)
    employers = rng.choice(np.flatnonzero(people.join == 0), max(2, n // 80))
    first = np.datetime64(town.start // DAY, "D")
    months = np.unique((first + np.arange(town.days)).astype("datetime64[M]"))
    parts = []
    regular = rng.random(n)
    for month in months:
        begins = int((month.astype("datetime64[D]") - first).astype(np.int64))
        for due, share in ((24, regular < 0.5), (0, regular > 0.65)):
            who = np.flatnonzero(share)
            day = begins + due + rng.integers(0, 3, len(who))
            living = (day >= people.join[who]) & (day < people.leave[who])
            who, day = who[living], day[living]
            hour = np.mod(rng.normal(9.5, 2.5, len(who)), 24.0)
            time = town.start + day * DAY + (hour * HOUR).astype(np.int64)
            salary = due > 0
            payer = employers[who % len(employers)] if salary else who
            paid = habitual(rng, town, payer, time, np.full(len(who), TRANSFER))
            payee = who if salary else people.payees[who, 0]
            usual = np.exp(people.level[who]) * (230_000 if salary else 80_000) * PRICE_LEVEL[people.home[who]]
            amount = np.round(usual / 100 * rng.choice([1.0, 1.0, 1.0, 1.05], len(who))).astype(np.int64) * 100
            bank = town.merchants.first_bank + payee % BANK_COUNT
            parts.append(replace(paid, payee=payee, amount=amount, merchant=bank))
    return PaymentColumns.join(parts)
