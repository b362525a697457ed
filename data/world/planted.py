"""Fraud of the seeded payment world: rings of six kinds, each with a life, and lone fraud.

A ring builds up (its members pay like honest people), attacks (the fraud) and burns out. Its payments come from the
same `habitual` as everybody's; a script changes only what the scheme needs: who pays, on which device, where, how much.
`camouflage` scales how often a script leaves the habit as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data.world.habits import PaymentColumns
from data.world.stage import Stage
from data.world.town import ATM, DAY, ECOM, HOUR, POS, TRANSFER, Ints, Town

KINDS = ("device_farm", "account_takeover", "bust_out", "card_testing", "mule_chain", "synthetic_identity")
ROLES = ("farmed", "attacker", "victim", "colluder", "tester", "mule", "source", "synthetic")
FARMED, ATTACKER, VICTIM, COLLUDER, TESTER, MULE, SOURCE, SYNTHETIC = range(len(ROLES))


@dataclass(frozen=True)
class Planted:
    """What the rings and lone fraudsters did; `ring` and `role` are -1 outside rings."""

    payments: PaymentColumns
    fraud: NDArray[np.bool_]
    ring: Ints
    role: Ints
    kind: Ints  # [rings]
    begins: Ints  # [rings] us, start of the build-up
    owner: Ints  # [accounts] ring that the account works for
    owner_role: Ints  # [accounts]
    devices: int  # numbered so far, the rings' own included
    places: int


def _farm(stage: Stage, attack: int, room: float) -> int:
    """Many accounts opened from a few devices, that shop a little and then all at once."""
    rng, people = stage.rng, stage.town.people
    begins = attack - int(min(rng.uniform(6, 25), 0.4 * room) * DAY)
    end = min(attack + int(rng.uniform(2, 9) * DAY), stage.last)
    crew = stage.recruit(stage.size(7, 22), FARMED, new=True)
    devices, places = stage.new_devices(stage.size(2, 4)), stage.new_places(2)
    _open(stage, crew, begins, begins + (attack - begins) // 2, end)
    people.shared_device[crew] = rng.choice(devices, len(crew))
    people.shared_device_use[crew] = rng.uniform(0.3, 0.95, len(crew)) * (1 - 0.3 * stage.camouflage)
    home = ~stage.hidden(len(crew), 0.6)
    people.place[crew[home]] = rng.choice(places, int(home.sum()))
    early = stage.repeat(crew, 1, 3)
    opened = stage.town.start + people.join[early] * DAY
    stage.pay(early, stage.when(early, np.minimum(opened, attack - 2 * DAY), attack - DAY), FARMED, False)
    late = stage.repeat(crew, 1, 4)
    stage.pay(
        late, stage.when(late, attack, end), FARMED, True, ECOM, stage.shops(late), factor=stage.factor(len(late), 2.5)
    )
    return begins


def _takeover(stage: Stage, attack: int, room: float) -> int:
    """One attacker's device on many people's accounts."""
    rng, people = stage.rng, stage.town.people
    begins = attack - int(min(rng.uniform(4, 15), 0.4 * room) * DAY)
    crew = stage.recruit(stage.size(1, 2), ATTACKER)
    devices, places = stage.new_devices(stage.size(1, 2)), stage.new_places(3)
    people.devices[crew, 2], people.second[crew] = devices[0], 0.3
    early = stage.repeat(crew, 2, 5)
    stage.pay(
        early, stage.when(early, begins, attack - DAY), ATTACKER, False, ECOM, device=rng.choice(devices, len(early))
    )
    victims = stage.victims(stage.size(5, 16), attack)
    first = stage.when(victims, attack, attack + int(rng.uniform(1, 8) * DAY))
    times = rng.integers(1, 4, len(victims))
    hit, time = np.repeat(victims, times), np.repeat(first, times)
    time = time + (rng.exponential(40, len(time)) * HOUR / 60).astype(np.int64)
    n = len(hit)
    sent = rng.random(n) < 0.25
    stage.pay(
        hit,
        time,
        VICTIM,
        True,
        np.where(sent, TRANSFER, ECOM),
        stage.shops(hit),
        stage.spoofed(n, devices),
        rng.choice(places, n),
        stage.factor(n, 2.5),
        payee=rng.choice(crew, n),
    )
    return begins


def _bust_out(stage: Stage, attack: int, room: float) -> int:
    """Small merchants and their buyers in league: ordinary sales first, then amounts climb until they vanish."""
    rng = stage.rng
    begins = attack - int(min(rng.uniform(12, 35), 0.4 * room) * DAY)
    end = min(attack + int(rng.uniform(5, 14) * DAY), stage.last)
    crew = stage.recruit(stage.size(5, 14), COLLUDER)
    merchants = rng.choice(stage.town.merchants.small_sites, stage.size(1, 3))
    device = stage.new_devices(1)[0]
    for account, first, last, fraud in (
        (stage.repeat(crew, 1, 4), begins, attack - DAY, False),
        (stage.repeat(crew, 1, 5), attack, end, True),
    ):
        time = stage.when(account, first, last)
        climb = (1.5 + (4 - 3 * stage.camouflage) * (time - attack) / (end - attack)) if fraud else None
        stage.pay(account, time, COLLUDER, fraud, ECOM, rng.choice(merchants, len(account)), factor=climb)
        stage.lend(device, 0.25)
    return begins


def _card_testing(stage: Stage, attack: int, room: float) -> int:
    """Stolen cards tried with tiny payments at one merchant; those that work are spent elsewhere."""
    rng = stage.rng
    begins = attack - int(min(rng.uniform(3, 10), 0.4 * room) * DAY)
    crew = stage.recruit(1, TESTER)
    devices, places = stage.new_devices(stage.size(2, 4)), stage.new_places(3)
    merchant = rng.choice(stage.town.merchants.small_sites)
    early = stage.repeat(crew, 2, 5)
    at = np.full(len(early), merchant)
    stage.pay(early, stage.when(early, begins, attack - DAY), TESTER, False, ECOM, at, rng.choice(devices, len(early)))
    cards = stage.victims(stage.size(10, 32), attack)
    n = len(cards)
    time = stage.when(cards, attack, attack + int(rng.uniform(0.3, 4) * DAY))
    tiny = np.exp(np.log(250) + 0.8 * rng.standard_normal(n)).astype(np.int64)
    stage.pay(
        cards,
        time,
        VICTIM,
        True,
        ECOM,
        np.full(n, merchant),
        stage.spoofed(n, devices),
        rng.choice(places, n),
        amount=tiny,
    )
    works = rng.random(n) < 0.5
    spent = np.repeat(np.flatnonzero(works), rng.integers(1, 3, int(works.sum())))
    later = time[spent] + (rng.exponential(24, len(spent)) * HOUR).astype(np.int64) + HOUR // 4
    hit, n = cards[spent], len(spent)
    factor, device = stage.factor(n, 2.5), stage.spoofed(n, devices)
    stage.pay(hit, later, VICTIM, True, ECOM, stage.shops(hit), device, rng.choice(places, n), factor)
    return begins


def _mule_chain(stage: Stage, attack: int, room: float) -> int:
    """Stolen money handed from account to account within hours, a cut kept at each hop, and drawn at the end."""
    rng = stage.rng
    begins = attack - int(min(rng.uniform(4, 14), 0.4 * room) * DAY)
    mules = stage.recruit(stage.size(5, 11), MULE)
    device = stage.new_devices(1)[0]
    n = len(mules)
    turn = stage.repeat(np.arange(n), 1, 2)
    early, known = mules[turn], mules[(turn + 1 + rng.integers(0, max(1, n - 1), len(turn))) % n]
    stage.pay(early, stage.when(early, begins, attack - DAY), MULE, False, TRANSFER, payee=known)
    hops: list[tuple[int, int, float, float]] = []  # payer, payee, hours since the attack began, amount
    for _ in range(stage.size(3, 7)):
        amount, hours = np.exp(rng.normal(np.log(45_000), 0.7)), rng.uniform(0, 8 * 24)
        path = [*stage.victims(1, attack), *rng.permutation(mules)[: rng.integers(3, 6)]]
        for sender, receiver in pairwise(path):
            hops.append((sender, receiver, hours, amount))
            hours, amount = hours + rng.exponential(2.5), amount * rng.uniform(0.7, 0.98)
    account, payee, delay, money = (np.array(column) for column in zip(*hops, strict=True))
    time = attack + (delay * HOUR).astype(np.int64)
    role = np.where(np.isin(account, mules), MULE, SOURCE)
    last = rng.random(len(account)) < 0.12
    channel = np.where(last & (role == MULE), ATM, TRANSFER)
    value = np.where(channel == ATM, np.minimum(np.ceil(money / 1000), 80) * 1000, money)
    stage.pay(account, time, role, True, channel, amount=value.astype(np.int64), payee=payee)
    stage.lend(device, 0.5)
    return begins


def _synthetic(stage: Stage, attack: int, room: float) -> int:
    """Invented people who pay well for weeks, share a device now and then, and max out one after another."""
    rng, people = stage.rng, stage.town.people
    begins = attack - int(min(rng.uniform(25, 50), 0.6 * room) * DAY)
    crew = stage.recruit(stage.size(5, 12), SYNTHETIC, new=True)
    devices, places = stage.new_devices(2), stage.new_places(2)
    end = min(attack + 10 * DAY, stage.last)
    _open(stage, crew, begins, begins + (attack - begins) // 3, end)
    people.shared_device[crew], people.shared_device_use[crew] = (
        rng.choice(devices, len(crew)),
        0.3 - 0.2 * stage.camouflage,
    )
    people.shared_place[crew], people.shared_place_use[crew] = (
        rng.choice(places, len(crew)),
        0.4 - 0.2 * stage.camouflage,
    )
    early = stage.repeat(crew, 2, 5)
    opened = stage.town.start + people.join[early] * DAY
    stage.pay(early, stage.when(early, np.minimum(opened, attack - 2 * DAY), attack - DAY), SYNTHETIC, False)
    first = stage.when(crew, attack, end - 2 * DAY)
    times = rng.integers(2, 6, len(crew))
    late, time = np.repeat(crew, times), np.repeat(first, times)
    time = time + (rng.random(len(time)) * DAY).astype(np.int64)
    stage.pay(late, time, SYNTHETIC, True, ECOM, stage.shops(late), factor=stage.factor(len(late), 4.0))
    stage.lend(devices[0], 0.6)
    return begins


def _open(stage: Stage, crew: Ints, first: int, last: int, end: int) -> None:
    """Have the crew's accounts opened between two instants and dropped soon after the end."""
    people, town = stage.town.people, stage.town
    opened = (first + stage.rng.random(len(crew)) * (last - first) - town.start) // DAY
    people.join[crew] = np.clip(opened.astype(np.int64), 1, town.days - 1)
    gone = (end - town.start) // DAY + stage.rng.integers(1, 5, len(crew))
    people.leave[crew] = np.clip(gone, people.join[crew] + 1, town.days)


def _alone(stage: Stage, payments: int) -> None:
    """Fraud without a ring: stolen details online, stolen cards in stores, and payers who deny what they bought."""
    rng, town = stage.rng, stage.town
    time = town.start + (rng.random(payments) * town.days * DAY).astype(np.int64)
    account = rng.integers(0, len(town.people), payments)
    day = (time - town.start) // DAY
    living = (town.people.join[account] <= day) & (day < town.people.leave[account]) & (stage.owner[account] < 0)
    account, time = account[living], time[living]
    way = rng.random(len(account))
    online, store, denied = way < 0.4, (way >= 0.4) & (way < 0.65), way >= 0.65
    hit = account[online]
    n = len(hit)
    fresh = np.where(rng.random(n) < 0.3, -1, stage.new_devices(n))
    fresh = np.where(stage.hidden(n, 0.3), town.people.devices[hit, 0], fresh)
    stage.pay(hit, time[online], -1, True, ECOM, stage.shops(hit), fresh, factor=stage.factor(n, 2.0))
    hit = account[store]
    n = len(hit)
    merchant = town.merchants.stores.draw(rng, town.people.home[hit])
    stage.pay(hit, time[store], -1, True, POS, merchant, np.full(n, -1), factor=stage.factor(n, 2.0))
    hit = account[denied]
    stage.pay(hit, stage.when(hit, time[denied], time[denied] + DAY), -1, True)


Script = Callable[[Stage, int, float], int]
SCRIPTS: tuple[Script, ...] = (_farm, _takeover, _bust_out, _card_testing, _mule_chain, _synthetic)


def plant(rng: np.random.Generator, town: Town, rings: int, lone: int, camouflage: float) -> Planted:
    """Play all rings and lone frauds on a stage.

    Args:
        rng: Source of every draw.
        town: The stage. Rows of ring members in `town.people` are rewritten: when they join and leave, what they share.
        rings: Number of rings; kinds take turns, so six or more have one of each.
        lone: About how many lone fraudulent payments to add.
        camouflage: 0 (blatant) to 1 (as hidden as the schemes allow).

    Returns:
        Their payments and what is true of them; the members' daily life comes from `data.world.habits.honest`
        afterwards.

    Raises:
        DataError: The town has too few accounts for so many rings.
    """
    stage = Stage(rng, town, camouflage)
    kind, turn = np.arange(rings) % len(KINDS), np.arange(rings) // len(KINDS)
    begins = np.zeros(rings, np.int64)
    for ring in rng.permutation(rings):
        stage.ring = int(ring)
        script = SCRIPTS[kind[ring]]
        # The attacks of one kind are spread evenly over the time, so that every month has some of each.
        share = (turn[ring] + rng.random()) / (kind == kind[ring]).sum()
        earliest = 0.35 if script is _synthetic else 0.12
        attack = town.start + int((earliest + (0.92 - earliest) * share) * town.days * DAY)
        begins[ring] = script(stage, attack, (attack - town.start) / DAY)
    stage.ring = -1
    _alone(stage, lone)
    return Planted(
        payments=PaymentColumns.join([scene[0] for scene in stage.scenes]),
        fraud=np.concatenate([scene[1] for scene in stage.scenes]),
        ring=np.concatenate([scene[2] for scene in stage.scenes]),
        role=np.concatenate([scene[3] for scene in stage.scenes]),
        kind=kind,
        begins=begins,
        owner=stage.owner,
        owner_role=stage.owner_role,
        devices=stage.devices,
        places=stage.places,
    )
