"""What every fraud script of the payment world needs: accounts to recruit or to rob, devices, times and payments."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from data.world.habits import PaymentColumns, habitual
from data.world.town import ATM, BANK_COUNT, DAY, ECOM, HOUR, TRANSFER, Floats, Ints, Town


class Stage:
    """Collects the scenes of all rings, and hands out accounts, devices and places.

    Args:
        rng: Source of every draw.
        town: The stage; rows of recruited people are rewritten.
        camouflage: 0 (blatant) to 1 (as hidden as the scheme allows).
    """

    def __init__(self, rng: np.random.Generator, town: Town, camouflage: float) -> None:
        self.rng, self.town, self.camouflage = rng, town, camouflage
        self.devices, self.places = town.devices, town.places
        self.owner = np.full(len(town.people), -1)
        self.owner_role = np.full(len(town.people), -1)
        self.scenes: list[tuple[PaymentColumns, NDArray[np.bool_], Ints, Ints]] = []
        self.ring = -1
        self.last = town.start + town.days * DAY - 1
        self.hit = np.zeros(len(town.people), np.bool_)
        new = town.people.join > 0
        self._new = rng.permutation(np.flatnonzero(new))
        self._old = rng.permutation(np.flatnonzero(~new))

    def size(self, low: int, high: int) -> int:
        """A whole number in low..high, small ones more often."""
        return low + int((high - low + 1) * self.rng.random() ** 1.6)

    def recruit(self, n: int, role: int, new: bool = False) -> Ints:
        """Accounts that work for the present ring, or fewer where the town runs out of them."""
        # Who has been a victim keeps the day of joining.
        pool = self._new[~self.hit[self._new]] if new else self._old
        if not len(pool):
            raise DataError(f"a world of {len(self.owner)} accounts is too small for so many rings")
        chosen, rest = pool[:n], pool[n:]
        if new:
            self._new = rest
        else:
            self._old = rest
            self.town.people.leave[chosen] = self.town.days
        self.owner[chosen], self.owner_role[chosen] = self.ring, role
        return chosen

    def victims(self, n: int, time: int) -> Ints:
        """Honest accounts that live at an instant."""
        people, day = self.town.people, (time - self.town.start) // DAY
        chosen = self.rng.choice(len(people), min(4 * n, len(people)), replace=False)
        living = (people.join[chosen] <= day) & (people.leave[chosen] > day + 2) & (self.owner[chosen] < 0)
        chosen = chosen[living][:n]
        self.hit[chosen] = True
        return chosen

    def new_devices(self, n: int) -> Ints:
        """Devices nobody has used before."""
        self.devices += n
        return np.arange(self.devices - n, self.devices)

    def new_places(self, n: int) -> Ints:
        """Places with addresses nobody has used before."""
        self.places += n
        return np.arange(self.places - n, self.places)

    def hidden(self, n: int, share: float) -> NDArray[np.bool_]:
        """Which of n payments stay as habit has them."""
        return self.rng.random(n) < share * self.camouflage

    def factor(self, n: int, top: float) -> Floats:
        """By how much amounts exceed habit: about `top` without camouflage, less with it."""
        return np.exp(np.log1p((top - 1) * (1 - 0.75 * self.camouflage)) + 0.35 * self.rng.standard_normal(n))

    def repeat(self, account: Ints, low: int, high: int) -> Ints:
        """Each account low..high times."""
        return np.repeat(account, self.rng.integers(low, high + 1, len(account)))

    def when(self, account: Ints, first: Ints | int, last: Ints | int) -> Ints:
        """Instants in [first, last), many at the hours that the accounts keep."""
        low, high = np.broadcast_to(first, account.shape), np.broadcast_to(last, account.shape)
        n, people = len(account), self.town.people
        free = low + (self.rng.random(n) * (high - low)).astype(np.int64)
        hour = np.mod(people.hour[account] + people.hour_spread[account] * self.rng.standard_normal(n), 24.0)
        usual = free - (free - self.town.start) % DAY + (hour * HOUR).astype(np.int64)
        fits = self.hidden(n, 1.0) & (usual >= low) & (usual < high)
        return np.where(fits, usual, free)

    def shops(self, account: Ints) -> Ints:
        """Where stolen money is spent: goods that sell again, or any site with camouflage."""
        nowhere, market = np.zeros(len(account), np.int64), self.town.merchants
        anywhere = market.sites.draw(self.rng, nowhere)
        return np.where(self.hidden(len(account), 0.7), anywhere, market.cashable.draw(self.rng, nowhere))

    def spoofed(self, n: int, devices: Ints) -> Ints:
        """The ring's devices, with some payments from a device used once or from none."""
        hide, absent = self.hidden(n, 0.45), self.rng.random(n) < 0.4
        device = self.rng.choice(devices, n)
        device[hide] = self.new_devices(int(hide.sum()))
        return np.where(hide & absent, -1, device)

    def pay(
        self,
        account: Ints,
        time: Ints,
        role: int | Ints,
        fraud: bool,
        channel: Ints | int | None = None,
        merchant: Ints | None = None,
        device: Ints | None = None,
        place: Ints | None = None,
        factor: Floats | None = None,
        amount: Ints | None = None,
        payee: Ints | None = None,
    ) -> None:
        """Add payments of the present ring: by habit, but for what is given."""
        n = len(account)
        if channel is not None:
            channel = np.broadcast_to(np.int64(channel), n)
        paid = habitual(self.rng, self.town, account, time, channel, merchant)
        if device is not None:
            paid = replace(paid, device=np.where(paid.channel == ATM, -1, device))
        if place is not None:
            address = self.town.address(place, self.rng.integers(0, 3, n))
            paid = replace(paid, ip=np.where((paid.channel == ECOM) & ~self.hidden(n, 0.5), address, paid.ip))
        if payee is not None:
            bank = self.town.merchants.first_bank + payee % BANK_COUNT
            sent = paid.channel == TRANSFER
            paid = replace(paid, payee=np.where(sent, payee, -1), merchant=np.where(sent, bank, paid.merchant))
        if amount is None and factor is not None:
            amount = np.round(paid.amount * factor).astype(np.int64)
        if amount is not None:
            paid = replace(paid, amount=np.maximum(amount, 1))
        roles = np.broadcast_to(np.int64(role), n)
        self.scenes.append((paid, np.full(n, fraud), np.full(n, self.ring), roles))

    def lend(self, device: int, share: float) -> None:
        """Move a share of the last scene's payments to one device of the ring."""
        paid, fraud, ring, role = self.scenes[-1]
        lent = (self.rng.random(len(paid)) < share) & ~self.hidden(len(paid), 0.5) & (paid.channel != ATM)
        self.scenes[-1] = (replace(paid, device=np.where(lent, device, paid.device)), fraud, ring, role)
