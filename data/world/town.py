"""The stage of the seeded payment world: merchants, people with their habits, and what they share honestly.

Everything is drawn in NumPy columns over all people at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

HOUR = 3_600_000_000  # microseconds
DAY = 24 * HOUR

CHANNELS = ("ecom", "pos", "atm", "transfer")
ECOM, POS, ATM, TRANSFER = range(4)


class Country(NamedTuple):
    """A country: its currency, how many live there, and its price level in that currency."""

    code: str
    currency: str
    weight: float
    price: float


class Trade(NamedTuple):
    """A merchant category: median ticket in euro cents, its spread, share of its merchants online, weight."""

    mcc: str
    ticket: float
    spread: float
    online: float
    weight: float


COUNTRIES = (
    Country("DE", "EUR", 0.34, 1.0),
    Country("FR", "EUR", 0.18, 1.05),
    Country("NL", "EUR", 0.12, 1.1),
    Country("ES", "EUR", 0.10, 0.85),
    Country("PL", "PLN", 0.09, 3.2),
    Country("GB", "GBP", 0.11, 0.95),
    Country("US", "USD", 0.06, 1.3),
)
TRADES = (
    Trade("5411", 2600, 0.75, 0.10, 0.22),
    Trade("5812", 2300, 0.60, 0.10, 0.17),
    Trade("5541", 4800, 0.40, 0.00, 0.07),
    Trade("5651", 5500, 0.75, 0.40, 0.10),
    Trade("5732", 13000, 0.95, 0.55, 0.06),
    Trade("5816", 500, 0.95, 1.00, 0.06),
    Trade("4511", 21000, 0.75, 1.00, 0.03),
    Trade("7011", 16000, 0.65, 0.60, 0.04),
    Trade("5912", 1800, 0.65, 0.15, 0.07),
    Trade("4121", 1500, 0.55, 0.50, 0.05),
    Trade("4899", 1200, 0.45, 1.00, 0.05),
    Trade("5947", 4500, 0.70, 0.60, 0.03),
    Trade("5399", 3800, 0.95, 0.80, 0.05),
)
RESALE_MCCS = ("5732", "5947", "5399", "5816", "5651")  # goods that fraud turns into money
ATM_MCC, TRANSFER_MCC = "6011", "4829"
MCCS = (*(trade.mcc for trade in TRADES), ATM_MCC, TRANSFER_MCC)
BANK_COUNT = 12  # a transfer's merchant is the bank that receives it
STORES_PER_ACCOUNT, SITES_PER_ACCOUNT, PAYEES_PER_ACCOUNT = 8, 6, 5  # favourites
DEVICES_PER_ACCOUNT = 3  # the main one, its successor, a second one
LEASES_PER_PLACE = 3  # addresses that a household has one after another
MIN_OFFICE = 5  # accounts from which a place of work shares an address and devices


class Market:
    """Merchants in groups, each drawn in proportion to its size within its group.

    Args:
        members: Merchant numbers, int64 [m].
        group: Group of each, int64 [m]; every group below `groups` must have a member.
        size: Weight of each, float64 [m].
        groups: Number of groups.
    """

    def __init__(self, members: Ints, group: Ints, size: Floats, groups: int = 1) -> None:
        order = np.argsort(group, kind="stable")
        self._members = members[order]
        self._ends = np.cumsum(size[order])
        bounds = np.searchsorted(group[order], np.arange(groups + 1))
        self._edges = np.concatenate([[0.0], self._ends])[bounds]
        self._bounds = bounds

    def draw(self, rng: np.random.Generator, group: Ints) -> Ints:
        """One merchant for each entry of `group`."""
        low, high = self._edges[group], self._edges[group + 1]
        at = np.searchsorted(self._ends, low + rng.random(len(group)) * (high - low), side="right")
        return self._members[np.clip(at, self._bounds[group], self._bounds[group + 1] - 1)]


@dataclass(frozen=True)
class Merchants:
    """All merchants: shops first, then cash machines, then the banks that receive transfers."""

    trade: Ints
    country: Ints
    ticket: Floats  # log of the median ticket, minor units of a euro
    spread: Floats
    stores: Market  # by country
    sites: Market
    machines: Market  # by country
    cashable: Market
    small_sites: Ints
    first_bank: int
    events: Ints  # [days] the site with a sale on that day, or -1


@dataclass(frozen=True)
class People:
    """All accounts with their habits, one row each; `plant` rewrites the rows of ring members before anyone pays."""

    join: Ints  # first day
    leave: Ints  # day after the last
    rate: Floats
    home: Ints
    level: Floats  # log of spending relative to the median
    mix: Floats  # [a, 4] cumulative shares of the channels
    week: Ints  # profile of weekdays
    hour: Floats
    hour_spread: Floats
    stores: Ints  # [a, STORES_PER_ACCOUNT] favourites
    sites: Ints  # [a, SITES_PER_ACCOUNT]
    payees: Ints  # [a, PAYEES_PER_ACCOUNT]
    devices: Ints  # [a, DEVICES_PER_ACCOUNT] main, successor, second
    switch: Ints  # us at which the successor takes over
    second: Floats  # share of payments by the second device or card
    wallet: Floats  # share of in-store payments by phone
    shared_device: Ints
    shared_device_use: Floats
    place: Ints  # of the household; see `Town.address`
    shared_place: Ints
    shared_place_use: Floats
    trip: Ints  # [a, 2] us
    abroad: Ints

    def __len__(self) -> int:
        return len(self.join)


@dataclass(frozen=True)
class Town:
    """The stage: people, merchants, the calendar, and how many devices and addresses are numbered so far."""

    people: People
    merchants: Merchants
    start: int  # us since the epoch
    days: int
    calendar: Floats  # [weeks profiles, days + 1] cumulative weight of the days
    devices: int
    pool: int  # shared addresses of carriers and hotels in each country, numbered first
    places: int

    def address(self, place: Ints, lease: Ints | int = 0) -> Ints:
        """The number of the address that a place (an office, a household, a ring's hide-out) has in a lease."""
        return len(COUNTRIES) * self.pool + place * LEASES_PER_PLACE + lease


# Monday to Sunday: office worker, weekend shopper, even, shift worker.
WEEKDAY_PROFILES = np.array(
    [[1, 1, 1, 1, 1.3, 1.2, 0.7], [0.6, 0.6, 0.6, 0.8, 1.3, 2.0, 1.4], [1] * 7, [1.4, 0.8, 1.5, 0.7, 1.2, 0.8, 1]]
)


def draw_town(rng: np.random.Generator, payments: int, start: int, days: int) -> Town:
    """Draw the people, merchants, devices and addresses of a world.

    Args:
        rng: Source of every draw.
        payments: How many payments the world will hold; sets how many people and merchants live in it.
        start: First instant, us since the epoch, midnight.
        days: Length.

    Returns:
        The stage, without any ring.
    """
    accounts = max(240, payments // 28)
    merchants = _merchants(rng, max(80, payments // 110), max(len(COUNTRIES), accounts // 40), days)
    homes = _homes(rng, accounts, days)
    devices = _devices(rng, homes)
    return Town(
        people=_people(rng, homes, devices, merchants, start, days),
        merchants=merchants,
        start=start,
        days=days,
        calendar=_calendar(rng, start, days),
        devices=devices.numbered,
        pool=max(3, accounts // 60),
        places=homes.houses + homes.offices,
    )


class _Homes(NamedTuple):
    """Who lives and works with whom, and for how long each account exists. Arrays are int64 [accounts]."""

    country: Ints
    join: Ints  # first day
    leave: Ints  # day after the last
    household: Ints
    office: Ints
    houses: int
    offices: int

    @property
    def house_size(self) -> Ints:
        """Accounts in the household of each."""
        return np.bincount(self.household)[self.household]

    @property
    def office_size(self) -> Ints:
        """Accounts in the office of each."""
        return np.bincount(self.office)[self.office]


def _homes(rng: np.random.Generator, accounts: int, days: int) -> _Homes:
    """Draw households and offices: families share an address and often a tablet, offices both and a computer."""
    weights = _shares([c.weight for c in COUNTRIES])
    country = rng.choice(len(COUNTRIES), accounts, p=weights)
    join = np.where(rng.random(accounts) < 0.75, 0, rng.integers(0, days, accounts))
    leave = np.where(rng.random(accounts) < 0.92, days, join + 1 + rng.integers(0, days, accounts))
    household = _groups(rng, accounts, 0.50, 2, 5)
    office = _groups(rng, accounts, 0.40, 5, 40)
    houses, offices = int(household.max()) + 1, int(office.max()) + 1
    family = np.bincount(household)[household] > 1
    country = np.where(family, rng.choice(len(COUNTRIES), houses, p=weights)[household], country)
    # A third of the offices open their staff's accounts together, some day: many new accounts behind one address.
    opened = np.where(rng.random(offices) < 0.33, rng.integers(0, days, offices), -1)[office]
    together = (np.bincount(office)[office] >= MIN_OFFICE) & (opened >= 0)
    join = np.where(together, np.minimum(opened + rng.integers(0, 4, accounts), days - 1), join)
    leave = np.minimum(np.maximum(leave, join + 1), days)
    return _Homes(country, join, leave, household, office, houses, offices)


class _Devices(NamedTuple):
    """Devices by number: own ones first, then those of households, offices and libraries."""

    own: Ints  # [accounts, DEVICES_PER_ACCOUNT]
    shared: Ints  # [accounts], -1 for none
    shared_use: Floats  # [accounts] share of payments by the shared one
    numbered: int  # devices so far


def _devices(rng: np.random.Generator, homes: _Homes) -> _Devices:
    """Draw the devices that people own, and those that they share."""
    accounts, houses, offices = len(homes.join), homes.houses, homes.offices
    own = np.arange(accounts * DEVICES_PER_ACCOUNT).reshape(accounts, DEVICES_PER_ACCOUNT)
    second_hand = rng.random(accounts) < 0.04
    own[second_hand, 1] = own[rng.integers(0, accounts, accounts), 0][second_hand]
    libraries = max(1, accounts // 400)
    tablet, computer = own.size + homes.household, own.size + houses + homes.office
    library = own.size + houses + offices + rng.integers(0, libraries, accounts)
    family_shares = (homes.house_size > 1) & (rng.random(houses)[homes.household] < 0.7)
    office_shares = (homes.office_size >= MIN_OFFICE) & (rng.random(offices)[homes.office] < 0.6) & ~family_shares
    reader = rng.random(accounts) < 0.05
    shared = np.select([family_shares, office_shares, reader], [tablet, computer, library], -1)
    shared_use = np.select(
        [family_shares, office_shares, reader],
        [rng.uniform(0.1, 0.7, accounts), rng.uniform(0.05, 0.6, accounts), rng.uniform(0.02, 0.4, accounts)],
        0.0,
    )
    return _Devices(own, shared, shared_use, own.size + houses + offices + libraries)


def _people(
    rng: np.random.Generator, homes: _Homes, devices: _Devices, merchants: Merchants, start: int, days: int
) -> People:
    """Draw everybody's habits. The order of the draws is part of the world: a seed stands for one world."""
    accounts, home = len(homes.join), homes.country
    trip_start = start + (rng.random(accounts) * days * DAY).astype(np.int64)
    trip_days = np.where(rng.random(accounts) < 0.4, rng.uniform(2, 15, accounts), 0.0)
    landlords = rng.choice(np.flatnonzero(homes.join == 0), max(2, accounts // 30))
    payees = rng.integers(0, accounts, (accounts, PAYEES_PER_ACCOUNT))
    payees[:, 0] = landlords[rng.integers(0, len(landlords), accounts)]
    mix = rng.gamma(np.array([0.40, 0.44, 0.05, 0.11]) * 6, size=(accounts, 4))
    in_office = homes.office_size >= MIN_OFFICE
    return People(
        join=homes.join,
        leave=homes.leave,
        rate=rng.lognormal(0.0, 0.8, accounts),
        home=home,
        level=rng.normal(0.0, 0.45, accounts),
        mix=np.cumsum(mix / mix.sum(1, keepdims=True), axis=1),
        week=rng.integers(0, len(WEEKDAY_PROFILES), accounts),
        hour=np.where(rng.random(accounts) < 0.08, 1.0, rng.choice([9.5, 13.0, 18.5], accounts))
        + rng.normal(0, 1.5, accounts),
        hour_spread=rng.uniform(1.5, 5.0, accounts),
        stores=merchants.stores.draw(rng, np.repeat(home, STORES_PER_ACCOUNT)).reshape(accounts, -1),
        sites=merchants.sites.draw(rng, np.zeros(accounts * SITES_PER_ACCOUNT, np.int64)).reshape(accounts, -1),
        payees=payees,
        devices=devices.own,
        switch=start + (rng.uniform(0, 2.5, accounts) * days * DAY).astype(np.int64),
        second=np.where(rng.random(accounts) < 0.45, rng.uniform(0.05, 0.4, accounts), 0.0),
        wallet=np.where(rng.random(accounts) < 0.45, rng.uniform(0.2, 0.95, accounts), 0.0),
        shared_device=devices.shared,
        shared_device_use=devices.shared_use,
        place=homes.offices + homes.household,
        shared_place=np.where(in_office, homes.office, -1),
        shared_place_use=np.where(in_office, rng.uniform(0.1, 0.6, accounts), 0.0),
        trip=np.stack([trip_start, trip_start + (trip_days * DAY).astype(np.int64)], axis=1),
        abroad=rng.integers(0, len(COUNTRIES), accounts),
    )


def _shares(weights: Sequence[float]) -> Floats:
    """Weights scaled to add up to one."""
    return np.asarray(weights, np.float64) / np.sum(weights)


def _groups(rng: np.random.Generator, n: int, share: float, low: int, high: int) -> Ints:
    """Number n people by group: about `share` of them in groups of low..high, everybody else alone."""
    sizes = rng.integers(low, high + 1, int(n * share / low) + 1)
    sizes = sizes[: max(1, int(np.searchsorted(np.cumsum(sizes), n * share)))]
    sizes = sizes[np.cumsum(sizes) <= n]
    group = np.repeat(np.arange(len(sizes)), sizes)
    alone = np.arange(len(sizes), len(sizes) + n - len(group))
    return rng.permutation(np.concatenate([group, alone]))


def _merchants(rng: np.random.Generator, shops: int, machines: int, days: int) -> Merchants:
    """Draw shops of many sizes (Zipf), cash machines and banks."""
    countries = len(COUNTRIES)
    trade = rng.choice(len(TRADES), shops, p=_shares([t.weight for t in TRADES]))
    online = rng.random(shops) < np.array([t.online for t in TRADES])[trade]
    country = rng.choice(countries, shops, p=_shares([c.weight for c in COUNTRIES]))
    country[:countries], online[:countries] = np.arange(countries), False  # every country has a store
    online[countries] = True
    size: Floats = np.power(1.0 + rng.permutation(shops), -0.9)
    number = np.arange(shops)
    cashable = online & np.isin(np.array([t.mcc for t in TRADES])[trade], RESALE_MCCS)
    if not cashable.any():
        cashable = online
    sites = number[online]
    total = shops + machines + BANK_COUNT
    machine = np.arange(shops, shops + machines)
    trades = np.concatenate(
        [trade, np.full(machines, MCCS.index(ATM_MCC)), np.full(BANK_COUNT, MCCS.index(TRANSFER_MCC))]
    )
    place = np.concatenate([country, np.arange(machines) % countries, rng.integers(0, countries, BANK_COUNT)])
    ticket = np.log(np.array([t.ticket for t in TRADES]))[trade] + rng.normal(0.0, 0.35, shops)
    spread = np.array([t.spread for t in TRADES])[trade]
    rest = total - shops
    return Merchants(
        trade=trades,
        country=place,
        ticket=np.concatenate([ticket, np.full(machines, np.log(8000.0)), np.full(BANK_COUNT, np.log(4500.0))]),
        spread=np.concatenate([spread, np.full(rest, 0.7)]),
        stores=Market(number[~online], country[~online], size[~online], countries),
        sites=Market(sites, np.zeros(len(sites), np.int64), size[online]),
        machines=Market(machine, np.arange(machines) % countries, np.ones(machines), countries),
        cashable=Market(number[cashable], np.zeros(int(cashable.sum()), np.int64), size[cashable] ** 0.6),
        small_sites=sites[size[online] <= np.quantile(size[online], 0.7)],
        first_bank=shops + machines,
        events=np.where(rng.random(days) < 0.4, rng.choice(sites, days), -1),
    )


def _calendar(rng: np.random.Generator, start: int, days: int) -> Floats:
    """Cumulative weight of the days for each profile of weekdays, with paydays and holidays, [profiles, days + 1]."""
    day = np.datetime64(start // DAY, "D") + np.arange(days)
    of_month = (day - day.astype("datetime64[M]")).astype(np.int64)
    weight = np.where((of_month >= 24) & (of_month <= 28), 1.35, 1.0)
    holidays = rng.integers(0, days, max(1, days // 40))
    weight[np.clip(holidays[:, None] + np.arange(3), 0, days - 1)] *= 1.6
    weekday = (start // DAY + 3 + np.arange(days)) % 7  # 1970-01-01 was a Thursday
    return np.concatenate(
        [np.zeros((len(WEEKDAY_PROFILES), 1)), np.cumsum(WEEKDAY_PROFILES[:, weekday] * weight, axis=1)], axis=1
    )
