"""What the ring engine keeps: a list of ties between accounts and entities with a hash table, and forests over them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.digests import close_gap
from data.jit import jit
from graph.memory import grown

FRAUD = -1  # `link` of a known fraud

Records = NDArray[np.void]
TIE = np.dtype(
    [
        ("key", "i8"),  # account << 32 | entity; of a known fraud, ~ its row
        ("last", "i8"),  # row of its newest payment
        ("account", "i4"),
        ("link", "i4"),  # linking role
        ("entered", "i4"),  # newest generation that has it; the live one has then, too
        ("counted", "i4"),  # 1 while it counts in `uses`
    ],
    align=True,
)
USE = np.dtype(
    [
        ("users", "i4"),  # accounts that use this entity
        ("fan", "i4"),  # accounts that this account pays
        ("account", "i4"),  # 1 for accounts
    ]
)
NODE = np.dtype(
    [
        ("parent", "i4"),  # node + 1; 0 while the forest has not met the node
        ("next", "i4"),  # next member of the component, a circle
        ("size", "i4"),  # nodes in the component; this and the next three are kept at the root
        ("accounts", "i4"),
        ("shared", "i4"),  # entities that tie two accounts or more
        ("frauds", "i4"),  # payments of its accounts that are known frauds
        ("tied", "i4"),  # accounts united through this entity
        ("votes", "i4"),  # scratch of a claim, zero outside it
        ("ring", "i8"),  # at the root: ring id + 1, 0 none
    ],
    align=True,
)
RING = np.dtype([("id", "i8"), ("born", "i8"), ("anchor", "i4")], align=True)
HEIR = np.dtype([("id", "i8"), ("heir", "i8")])
PROGRESS = np.dtype(
    [
        ("ties", "i8"),  # ties in the list
        ("clock", "i8"),  # journal time of the newest payment, us
        ("cut", "i8"),  # oldest row inside the window
        ("scan_cut", "i8"),  # `cut` when the builder, or if it rests the one before, began its scan
        ("past_cut", "i8"),  # the same of the builder before that one
        ("safe", "i8"),  # no tie, and no node in a forest, was last seen before this row
        ("phase", "i8"),
        ("at", "i8"),  # next tie to scan (0 at rest), or next ring to claim
        ("age", "i8"),  # payments since the last takeover
        ("retired", "i8"),  # entries of `heirs`
        ("generation", "i8"),  # of the live forest; the builder's is the next
    ]
)


class Ties(NamedTuple):
    """What both generations share. P, N and Q are capacities."""

    list: Records  # [P] TIE, in no order that matters
    table: NDArray[np.int32]  # [H] open addressing by key: tie + 1, 0 free; H a power of two, at least 2 P
    uses: Records  # [N] USE, by node
    heirs: Records  # [Q] HEIR, in order of retirement: an id that is gone, and the older one that took its place
    progress: Records  # [1] PROGRESS


class Forest(NamedTuple):
    """One generation. N and K are capacities."""

    nodes: Records  # [N] NODE
    rings: Records  # [K] RING, in order of id; one whose id is not at its anchor's root has merged
    counts: NDArray[np.int64]  # [1] rings


class Rules(NamedTuple):
    """What ties. L linking roles."""

    links: NDArray[np.int64]  # [L] column of each linking role
    limits: NDArray[np.int64]  # [L] accounts above which an entity is a hub
    transfer: NDArray[np.bool_]  # [L] the entity is an account that is paid
    window_us: int  # a tie stays for this long after its newest payment,
    window_rows: int  # and for this many payments
    min_accounts: int  # a component of this many is a ring
    stride: int  # ties, or members of rings, that the builder moves on by for each payment
    rest: int  # payments between a takeover and the next builder's start
    listen: bool  # whether events are told


def empty_ties() -> Ties:
    """No ties yet."""
    return Ties(
        np.zeros(1024, TIE), np.zeros(2048, np.int32), np.zeros(1024, USE), np.zeros(64, HEIR), np.zeros(1, PROGRESS)
    )


def empty_forest(nodes: int, rings: int) -> Forest:
    """No nodes met yet. Zeroed memory comes page by page on first use, so this takes no time."""
    return Forest(np.zeros(nodes, NODE), np.zeros(rings, RING), np.zeros(1, np.int64))


def ties_with_room(t: Ties, ties: int, nodes: int, heirs: int) -> Ties:
    """The ties, arrays that are too short at least doubled."""
    rows, table = grown(t.list, ties), t.table
    if len(table) < 2 * len(rows):
        table = np.zeros(1 << (2 * len(rows) - 1).bit_length(), np.int32)
        _rehash(rows, table, int(t.progress["ties"][0]))
    return Ties(rows, table, grown(t.uses, nodes), grown(t.heirs, heirs), t.progress)


def forest_with_room(f: Forest, nodes: int, rings: int) -> Forest:
    """The forest, arrays that are too short at least doubled."""
    return Forest(grown(f.nodes, nodes), grown(f.rings, rings), f.counts)


@jit()
def _rehash(rows: Records, table: NDArray[np.int32], n: int) -> None:
    for i in range(n):
        table[slot_of_key(rows, table, rows[i].key)] = i + 1


@jit(inline=True)
def home(table: NDArray[np.int32], key: int) -> int:
    """Place of the table where a search begins: SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014)."""
    x = np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int(np.int64(x >> np.uint64(1)) & (table.shape[0] - 1))


@jit(inline=True)
def _home_of_tie(table: NDArray[np.int32], rows: Records, tie: int) -> int:
    return home(table, rows[tie].key)


@jit(inline=True)
def slot_of_key(rows: Records, table: NDArray[np.int32], key: int) -> int:
    """Slot of the table that holds the key, or the free one where it belongs."""
    at = home(table, key)
    while table[at] and rows[table[at] - 1].key != key:
        at = (at + 1) & (table.shape[0] - 1)
    return at


@jit()
def add_tie(t: Ties, at: int, key: int, account: int, link: int, last: int) -> int:
    """Append a tie to the list, not yet entered anywhere; `at` is its free place in the table. Returns its number."""
    i = int(t.progress[0].ties)
    tie = t.list[i]
    tie.key = key
    tie.account = account
    tie.link = link
    tie.last = last
    tie.entered = -1
    tie.counted = 0
    t.table[at] = i + 1
    t.progress[0].ties = i + 1
    return i


@jit()
def drop_tie(t: Ties, i: int) -> None:
    """Take a tie out; the last of the list takes its place."""
    rows, table = t.list, t.table
    close_gap(table, slot_of_key(rows, table, rows[i].key), _home_of_tie, rows)
    last = int(t.progress[0].ties) - 1
    if i != last:
        table[slot_of_key(rows, table, rows[last].key)] = i + 1
        rows[i] = rows[last]
    t.progress[0].ties = last


@jit(inline=True)
def find(f: Forest, node: int) -> int:
    """Root of a node that the forest has met. Halves the path, which changes no answer."""
    nodes = f.nodes
    while nodes[node].parent - 1 != node:
        up = nodes[node].parent - 1
        nodes[node].parent = nodes[up].parent
        node = up
    return node
