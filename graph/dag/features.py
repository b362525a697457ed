"""Point-in-time features of a payment: its own, those of each entity it touches, and of its ring.

Counts and amounts over 1 h, 24 h, 7 d and 30 d are exact: a search along jump pointers (Myers 1983) adds up what it
jumps over. Distinct counterparts, known frauds and known labels are counted over the entity's last 256 rows inside the
window. Every feature is a function of the row's own past; the row itself is not counted.

Labels come late. A payment is *settled* once it is labelled, or older than labels usually take. The share of fraud
among an entity's settled payments, and how it changes with their age, says whether a compromise is still going on.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.jit import chunked, jit, signed
from graph.dag.jumps import role_in, saturating_sum
from graph.dag.rows import RING_COLUMNS, View, believed
from graph.dag.sampler import back_from, walk_within
from graph.dag.search import find_oldest, sum_back_to

WINDOWS_US = np.array([3_600_000_000, 86_400_000_000, 7 * 86_400_000_000, 30 * 86_400_000_000], np.int64)
WINDOW_NAMES = ("1h", "24h", "7d", "30d")
DEPTH = 256  # an entity's newest rows, over which distinct counterparts and known labels are counted
ROWS_PER_BLOCK = 16  # rows described together: what their chains touch fits into the second level of the cache
NEVER_S = 3.2e8  # ten years: the gap of an entity that was never seen before, seconds

PAYMENT_FEATURES = ("amount", "hour_sin", "hour_cos", "week_sin", "week_cos", "lateness")
ENTITY_FEATURES = ("present", "gap", "age", "amount_ratio")
WINDOW_STATISTICS = ("count", "amount", "fraud", "labelled")
BANDS = 3  # weeks of settled payments, the newest first; each has its own share of fraud
BAND_US = 7 * 86_400_000_000
SETTLED_FEATURES = (
    "fraud_newest",  # age of the newest payment known as fraud, s
    "fraud_oldest",  # age of the oldest
    "fraud_last",  # whether the newest settled payment was fraud
    "clean_since",  # settled payments since the newest fraud, and one; 0 where there is no fraud
    *(f"fraud_share_{band}" for band in range(BANDS)),
    "settled",  # settled payments
)
SETTLED_COUNT = len(SETTLED_FEATURES)
# Where the features of an entity begin among its own, in the order of `feature_names`.
WINDOWS = len(WINDOW_NAMES)
AT_COUNT = len(ENTITY_FEATURES)
AT_AMOUNT, AT_FRAUD, AT_LABELLED = AT_COUNT + WINDOWS, AT_COUNT + 2 * WINDOWS, AT_COUNT + 3 * WINDOWS
AT_SETTLED = AT_COUNT + len(WINDOW_STATISTICS) * WINDOWS
AT_COUNTERPARTS = (
    AT_SETTLED + SETTLED_COUNT
)  # for each counterpart: distinct ones by window, and meetings with this one
RING_FEATURES = ("accounts", "shared", "frauds")


def counterparts(roles: Sequence[str]) -> NDArray[np.int32]:
    """Which other roles each role's entities are counted against.

    An account is counted against every other role, every other role against the account.

    Returns:
        Role numbers, int32 [R, R - 1], padded with -1.
    """
    out = np.full((len(roles), max(1, len(roles) - 1)), -1, np.int32)
    out[0, : len(roles) - 1] = np.arange(1, len(roles))
    out[1:, 0] = 0
    return out


def feature_names(roles: Sequence[str]) -> tuple[str, ...]:
    """The features in order, `{scope}.{feature}[.{window}]`; logarithms (log1p) of counts, seconds and minor units.

    Shares of fraud are as they are, between 0 and 1.
    """
    names = [f"payment.{name}" for name in PAYMENT_FEATURES]
    pairs = counterparts(roles)
    for r, name in enumerate(roles):
        names += [f"{name}.{feature}" for feature in ENTITY_FEATURES]
        names += [f"{name}.{stat}.{window}" for stat in WINDOW_STATISTICS for window in WINDOW_NAMES]
        names += [f"{name}.{feature}" for feature in SETTLED_FEATURES]
        for c in pairs[r]:
            if c >= 0:
                other = roles[c]
                names += [f"{name}.distinct_{other}.{window}" for window in WINDOW_NAMES] + [f"{name}.met_{other}"]
    return (*names, *(f"ring.{name}" for name in RING_FEATURES))


def features(view: View, roles: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The features of any rows still in the buffer, as of each row.

    Args:
        view: The graph.
        roles: The store's roles.
        rows: int64 [B].

    Returns:
        float32 [B, F] in the order of `feature_names(roles)`.
    """
    out = np.empty((len(rows), len(feature_names(roles))), np.float32)
    pairs = counterparts(roles)
    chunked(lambda i, j: describe(view, pairs, rows[i:j], out[i:j]), len(rows))
    return out


@jit(inline=True)
def _bands(view: View) -> tuple[int, int]:
    """Ages, us: that at which the first band of settled payments begins, and the oldest that any feature looks at."""
    begin = view.settle_us if view.settle_us < view.window_us else 0
    return begin, max(WINDOWS_US[WINDOWS - 1], begin + BANDS * BAND_US)


@jit(inline=True)
def _count_windows(
    view: View,
    row: int,
    role: int,
    near: NDArray[np.int64],
    steps: int,
    counts: NDArray[np.int64],
    totals: NDArray[np.int64],
) -> None:
    """Fill `counts` and `totals`, int64 [WINDOWS], with an entity's payments in each time window and their amount.

    The newest `steps` of them are in `near` [DEPTH]. A window that holds all DEPTH may hold more: jump pointers count
    those, a wider window going on where a narrower one ended.
    """
    capacity = view.rows.shape[0]
    here = row % capacity
    time, node = view.rows[here].time, view.rows[here].entity[role]
    count, amount = DEPTH - 1, 0
    for n in range(steps):
        y = view.rows[back_from(here, row - near[n], capacity)]
        if n < count:
            amount = saturating_sum(amount, y.amount)
        for w in range(WINDOWS):
            if time - y.time <= WINDOWS_US[w]:
                counts[w] += 1
                totals[w] = saturating_sum(totals[w], y.amount)
    if steps < DEPTH:
        return
    at, q = near[DEPTH - 1], role_in(view.rows, view.role_type, near[DEPTH - 1] % capacity, role, node)
    for w in range(WINDOWS):
        if counts[w] == DEPTH:
            at, q, count, amount = sum_back_to(view, row, time, node, WINDOWS_US[w], at, q, count, amount)
            counts[w], totals[w] = count + 1, saturating_sum(amount, view.rows[at % capacity].amount)


@jit(inline=True)
def _count_label(out: NDArray[np.float32], age: int, belief: int) -> None:
    """Count a payment with a known label, `age` us old, in the windows that hold it: as fraud, and as labelled."""
    for w in range(WINDOWS):
        if age <= WINDOWS_US[w]:
            out[AT_FRAUD + w] += belief
            out[AT_LABELLED + w] += 1


@jit(inline=True)
def _count_settled(
    out: NDArray[np.float32],
    in_band: NDArray[np.float64],
    frauds_in_band: NDArray[np.float64],
    age: int,
    band: int,
    fraud: bool,
    settled: int,
    frauds: int,
    clean: int,
) -> tuple[int, int, int]:
    """Count a settled payment; an entity's come newest first.

    Args:
        out: The entity's features; ages of its frauds and whether the newest settled payment was one are written here.
        in_band: Settled payments in each band of ages, float64 [BANDS].
        frauds_in_band: Frauds among them, float64 [BANDS].
        age: Of the payment, us.
        band: That holds it; BANDS or more for none.
        fraud: Whether it is a known fraud.
        settled: Settled payments so far.
        frauds: Frauds among them.
        clean: Settled payments newer than the newest fraud.

    Returns:
        The last three, this payment included.
    """
    if band < BANDS:
        in_band[band] += 1
    if fraud:
        if frauds == 0:
            out[AT_SETTLED] = math.log1p(age * 1e-6)
            clean = settled
        out[AT_SETTLED + 1] = math.log1p(age * 1e-6)
        if settled == 0:
            out[AT_SETTLED + 2] = 1
        if band < BANDS:
            frauds_in_band[band] += 1
        frauds += 1
    return settled + 1, frauds, clean


@jit(inline=True)
def _count_counterparts(
    view: View,
    pairs: NDArray[np.int32],
    here: int,
    role: int,
    p: int,
    q: int,
    age: int,
    size: int,
    keys: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Count whom an entity met in a past payment.

    Args:
        view: The graph.
        pairs: From `counterparts`, int32 [R, P].
        here: Slot of the payment that is described.
        role: The entity's role in it.
        p: Slot of the past payment.
        q: The entity's role in that one.
        age: Of the past payment, us.
        size: Places of a hash set, a power of two.
        keys: A hash set of nodes for each counterpart role, -1 where free, int64 [P, >= size].
        out: The entity's features.
    """
    x, y, at = view.rows[here], view.rows[p], AT_COUNTERPARTS
    for c in range(pairs.shape[1]):
        other = pairs[role, c]
        if other < 0:
            continue
        # Where the entity stands at the other end of a transfer, its counterpart is in its own role.
        met = y.entity[role if q == other else other]
        if met >= 0:
            if met == x.entity[other]:
                out[at + WINDOWS] += 1
            h = (met * 2654435761) & (size - 1)
            while keys[c, h] >= 0 and keys[c, h] != met:
                h = (h + 1) & (size - 1)
            if keys[c, h] < 0:
                keys[c, h] = met
                for w in range(WINDOWS):
                    if age <= WINDOWS_US[w]:
                        out[at + w] += 1
        at += WINDOWS + 1


@jit(inline=True)
def _describe_past(
    view: View,
    row: int,
    role: int,
    pairs: NDArray[np.int32],
    near: NDArray[np.int64],
    steps: int,
    keys: NDArray[np.int64],
    in_band: NDArray[np.float64],
    frauds_in_band: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    """One walk over an entity's newest `steps` rows, in `near`, for labels, settled payments and counterparts.

    `in_band` and `frauds_in_band`, float64 [BANDS], are zeros; `keys` [P, 2 * DEPTH] is scratch.
    """
    capacity = view.rows.shape[0]
    here = row % capacity
    time, node = view.rows[here].time, view.rows[here].entity[role]
    begin, _ = _bands(view)
    settled, frauds, clean = 0, 0, 0
    size = 4  # of a hash set for each counterpart, no larger than it must be: clearing it costs most
    while size < 2 * steps:
        size *= 2
    for c in range(keys.shape[0]):
        for h in range(size):
            keys[c, h] = -1
    for n in range(steps):
        p = back_from(here, row - near[n], capacity)
        age = time - view.rows[p].time
        q = role_in(view.rows, view.role_type, p, role, node)
        belief = believed(view, p, row)
        if belief >= 0:
            _count_label(out, age, belief)
        if belief >= 0 or age >= view.settle_us:
            band = max(0, age - begin) // BAND_US
            settled, frauds, clean = _count_settled(
                out, in_band, frauds_in_band, age, band, belief == 1, settled, frauds, clean
            )
        if n and age > WINDOWS_US[WINDOWS - 1]:
            continue
        _count_counterparts(view, pairs, here, role, p, q, age, size, keys, out)
    if frauds:
        out[AT_SETTLED + 3] = math.log1p(float(clean + 1))
    for band in range(BANDS):
        if in_band[band]:
            out[AT_SETTLED + 4 + band] = frauds_in_band[band] / in_band[band]
    out[AT_SETTLED + 4 + BANDS] = math.log1p(float(settled))


@jit()
def _entity(
    view: View,
    row: int,
    role: int,
    pairs: NDArray[np.int32],
    near: NDArray[np.int64],
    first: int,
    keys: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Features of one entity of one row, whose newest rows are `near` [DEPTH], and whose oldest in sight is `first`.

    `keys` [P, 2 * DEPTH] is scratch.
    """
    capacity = view.rows.shape[0]
    x = view.rows[row % capacity]
    out[:] = 0
    if x.entity[role] < 0:
        return
    out[0] = 1
    out[1] = out[AT_SETTLED] = out[AT_SETTLED + 1] = math.log1p(NEVER_S)
    if near[0] < 0:
        return
    steps = 0
    while steps < DEPTH and near[steps] >= 0:
        steps += 1
    counts, totals = np.zeros(WINDOWS, np.int64), np.zeros(WINDOWS, np.int64)
    _count_windows(view, row, role, near, steps, counts, totals)
    out[1] = math.log1p((x.time - view.rows[near[0] % capacity].time) * 1e-6)
    out[2] = math.log1p((x.time - view.rows[first % capacity].time) * 1e-6)
    if counts[WINDOWS - 1]:
        mean = float(totals[WINDOWS - 1]) / counts[WINDOWS - 1]
        out[3] = math.log1p(float(x.amount)) - math.log1p(mean)
    for w in range(WINDOWS):
        if counts[w]:
            out[AT_COUNT + w] = math.log1p(float(counts[w]))
            out[AT_AMOUNT + w] = math.log1p(float(totals[w]))
    _describe_past(view, row, role, pairs, near, steps, keys, np.zeros(BANDS), np.zeros(BANDS), out)
    for i in range(AT_FRAUD, AT_SETTLED):
        out[i] = math.log1p(out[i])
    for i in range(AT_COUNTERPARTS, out.shape[0]):
        out[i] = math.log1p(out[i])


@jit()
def _features_row(
    view: View,
    pairs: NDArray[np.int32],
    row: int,
    near: NDArray[np.int64],
    first: NDArray[np.int64],
    keys: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Fill `out` [F] with the features of one row.

    `near` [R, DEPTH] is from `walk`, `first` [R] from `oldest`, `keys` [R - 1, 2 * DEPTH] scratch.
    """
    x = view.rows[row % view.rows.shape[0]]
    late_ms = signed(x.late)
    raw = x.time - late_ms * 1000
    day = (raw % 86_400_000_000) / 86_400_000_000 * 2 * math.pi
    week = (raw % 604_800_000_000) / 604_800_000_000 * 2 * math.pi
    out[0] = math.log1p(float(x.amount))
    out[1], out[2] = math.sin(day), math.cos(day)
    out[3], out[4] = math.sin(week), math.cos(week)
    out[5] = math.log1p(late_ms * 1e-3)
    at = 6
    for r in range(view.role_type.shape[0]):
        width = AT_COUNTERPARTS
        for c in range(pairs.shape[1]):
            if pairs[r, c] >= 0:
                width += WINDOWS + 1
        _entity(view, row, r, pairs, near[r], first[r], keys, out[at : at + width])
        at += width
    for i in range(RING_COLUMNS):
        out[at + i] = math.log1p(float(x.ring[i]))


@jit()
def describe(view: View, pairs: NDArray[np.int32], rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    """Fill `out` [B, F] with the features of rows, a few at a time: their chains are walked together beforehand."""
    keys = np.empty((pairs.shape[1], 2 * DEPTH), np.int64)
    near = np.empty((ROWS_PER_BLOCK, view.role_type.shape[0], DEPTH), np.int64)
    newest = np.empty((ROWS_PER_BLOCK, view.role_type.shape[0], 1), np.int64)
    first = np.empty((ROWS_PER_BLOCK, view.role_type.shape[0]), np.int64)
    span = min(view.window_us, _bands(view)[1])
    for start in range(0, rows.shape[0], ROWS_PER_BLOCK):
        stop = min(rows.shape[0], start + ROWS_PER_BLOCK)
        # Only the newest row of an entity counts whatever its age.
        walk_within(view, rows[start:stop], view.window_us, newest[: stop - start])
        walk_within(view, rows[start:stop], span, near[: stop - start])
        near[: stop - start, :, 0] = newest[: stop - start, :, 0]
        find_oldest(view, rows[start:stop], near, first)
        for b in range(start, stop):
            _features_row(view, pairs, rows[b], near[b - start], first[b - start], keys, out[b])
