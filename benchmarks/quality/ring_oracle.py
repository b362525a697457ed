"""How far it gets on the seeded world to be told its rings by the generator: an estimate of what can be known there.

The oracle is told of every ring who works for it, which devices, addresses and merchants are its own, of what kind it
is and when it attacks; of each of these from the moment when a second account of the ring has been seen there, before
which a ring's payment has nothing that ties it to another. What its members buy for themselves meanwhile looks like the
attack, so the oracle goes by the share of fraud among payments of the same cell (kind of ring, before, during or after
its attack, channel, and by which ties) in the worlds that teach, or by the model where that suspects more. It is no
strict bound: within a cell it looks at nothing else, so card testing, which amounts give away, the model finds more
often.
"""

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.quality.contest import Contest
from benchmarks.quality.histories import JUDGING, TEACHING, worlds
from data.world.planted import KINDS
from data.world.town import CHANNELS

THINGS: Final = ("device_id", "ip", "merchant_id")
MINE: Final = ("bust_out", "card_testing")  # kinds whose merchants are their own
NEVER: Final = np.iinfo(np.int64).max
NOBODY: Final = -1
TIES: Final = len(THINGS) + 2  # and who pays, and who is paid
CELLS: Final = len(KINDS) * 3 * (len(CHANNELS) + 1) << TIES
Ints = NDArray[np.int64]


def cells(folder: Path) -> tuple[Ints, NDArray[np.bool_]]:
    """The cell of each payment of a world and what it was.

    Args:
        folder: With the files of `data.world.synthetic.World.write`.

    Returns:
        Cells, -1 where the oracle is told nothing, int64 [N], and fraud, bool [N]; in order of time.
    """
    payments, truth = (pq.read_table(folder / f"{name}.parquet") for name in ("transactions", "truth"))
    members = pq.read_table(folder / "members.parquet")
    time = payments["timestamp"].cast(pa.int64()).to_numpy()
    fraud = truth["is_fraud"].to_numpy()
    accounts, account, payee, owned = _codes(payments["account_id"], payments["payee_id"], members["account_id"])
    rings, ring, of = _codes(truth["ring_id"], members["ring_id"])
    kind = np.full(rings + 1, NOBODY)  # the last ring, too, is none
    kind[of] = _positions(members["kind"], KINDS)
    boss = np.full(accounts + 1, NOBODY)  # the last one is nobody
    works = _positions(members["member_role"], ("victim", "source")) == NOBODY
    boss[owned[works]] = of[works]

    whose, ties = boss[account], (boss[account] >= 0).astype(np.int64)
    told = np.zeros(len(time), bool)
    seen = np.full(accounts + 1, NEVER)  # since when an account is known to be tied to another of its ring
    for bit, name in enumerate(THINGS, 1):
        things, thing = _codes(payments[name])
        theirs = ring < rings
        if name == "merchant_id":
            theirs &= fraud & np.isin(kind[ring], [KINDS.index(k) for k in MINE])
        owner, other = _shared(things, thing, account, ring, time, theirs, 2 + (name == "merchant_id"))
        mine = owner[thing] >= 0
        whose, ties = np.where(whose >= 0, whose, owner[thing]), ties | mine << bit
        told |= mine & (other < time)
        used = mine & theirs & (other < NEVER)
        np.minimum.at(seen, account[used], np.maximum(time, other)[used])
    paid = boss[payee] >= 0
    for end in (account, payee):
        within = paid & (ring < rings)
        np.minimum.at(seen, end[within], time[within])
    seen[-1] = NEVER
    whose, ties = np.where(whose >= 0, whose, boss[payee]), ties | paid << TIES - 1
    told |= ((boss[account] >= 0) & (seen[account] < time)) | (paid & (seen[payee] < time))

    first, last = np.full(rings + 1, NEVER), np.zeros(rings + 1, np.int64)
    struck = fraud & (ring < rings)
    np.minimum.at(first, ring[struck], time[struck])
    np.maximum.at(last, ring[struck], time[struck])
    phase = (time >= first[whose]).astype(np.int64) + (time > last[whose])
    channel = _positions(payments["channel"], CHANNELS) + 1
    cell = ((kind[whose] * 3 + phase) * (len(CHANNELS) + 1) + channel) << TIES | ties
    return np.where(told & (whose >= 0), cell, NOBODY), fraud


def oracle(contest: Contest, model: NDArray[np.float64]) -> NDArray[np.float64]:
    """The oracle's scores of the payments that the worlds' contest judges, [n].

    Args:
        contest: `histories.world()`.
        model: What the model makes of them, [n].
    """
    cell, fraud = cells(worlds(TEACHING))
    payments, frauds = (np.bincount(cell[of], minlength=CELLS) for of in (cell >= 0, (cell >= 0) & fraud))
    # A cell that no teaching world has is like any other that the oracle is told of.
    share = np.where(payments > 0, frauds / np.maximum(payments, 1), frauds.sum() / payments.sum())
    cell = cells(worlds(JUDGING))[0][contest.rows]
    return np.where(cell >= 0, np.maximum(share[cell], model), model)


def _shared(
    things: int, thing: Ints, account: Ints, ring: Ints, time: Ints, theirs: NDArray[np.bool_], least: int
) -> tuple[Ints, Ints]:
    """Things that two accounts of one ring use for it.

    Returns:
        The ring of each thing, -1 for none, int64 [things + 1], and for each payment when another account than its own
        was first seen there, int64 [N].
    """
    rows = np.flatnonzero(theirs & (thing < things))
    visits = np.unique(np.stack([thing[rows], ring[rows], account[rows]], 1), axis=0)
    used, whose = visits[:, 0], visits[:, 1]
    pairs, accounts = np.unique(used * (ring.max() + 1) + whose, return_counts=True)
    pairs = pairs[accounts >= least]
    owner = np.full(things + 1, NOBODY)
    owner[pairs // (ring.max() + 1)] = pairs % (ring.max() + 1)
    rows = rows[owner[thing[rows]] == ring[rows]]
    start, second, opener = np.full(things + 1, NEVER), np.full(things + 1, NEVER), np.full(things + 1, NOBODY)
    for row in rows[::-1]:  # the earliest is written last
        start[thing[row]], opener[thing[row]] = time[row], account[row]
    more = rows[account[rows] != opener[thing[rows]]]
    np.minimum.at(second, thing[more], time[more])
    return owner, np.where(account != opener[thing], start[thing], second[thing])


def _codes(*columns: pa.ChunkedArray) -> tuple[int, Ints]:
    """How many names there are in all columns together, and the number of each, as many as there are for no name."""
    joined = pa.concat_arrays([column.combine_chunks() for column in columns]).dictionary_encode()
    count = len(joined.dictionary)
    codes = joined.indices.fill_null(count).to_numpy().astype(np.int64)
    return count, *np.split(codes, np.cumsum([len(column) for column in columns])[:-1])


def _positions(column: pa.ChunkedArray, names: tuple[str, ...]) -> Ints:
    """Where each name stands, -1 if it does not."""
    found: Ints = pc.index_in(column.combine_chunks(), pa.array(names)).fill_null(NOBODY).to_numpy()
    return found.astype(np.int64)
