"""What nobody could better by much on hijacked agents: a bound from how their world is made.

A made world has *scripts*: an agent takes up a few new shops and pays there for many of its owners, because its maker
says so (honest) or because a ring does (`data.world.agents`). The oracle is told which payments belong to one script,
so that all others are honest, and what each owner usually lets the agent pay. What it is not told is which scripts are
a ring's: boosted trees, taught by many made worlds, judge that from what a script did so far, as of each payment.
"""

from collections import defaultdict
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from data.world.agents import DAY
from data.world.synthetic import World, WorldConfig, simulate

WORLDS: Final = range(9_001, 9_041)  # that teach it
NEW_SHOP: Final = "m9"  # how the names of new shops begin, behind it the number of the script, three digits
MCCS: Final = ("5732", "5947", "5399", "5816", "5411", "4511", "7011", "4899")
Floats = NDArray[np.float64]


def limit(worlds: list[World], like: WorldConfig, at_once: bool) -> list[Floats]:
    """The oracle's scores of all payments of each world, [N]: a probability for those of scripts, -1 for others.

    Args:
        worlds: Judged.
        like: What the worlds that teach it are like, but for the seed.
        at_once: Whether it is told every payment's label at once, in place of the reports when they come.
    """
    taught = [_described(simulate(replace(like, seed=seed)), at_once) for seed in WORLDS]
    x, y = (np.concatenate([part[i] for part in taught]) for i in (1, 2))
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=200, max_leaf_nodes=15, min_samples_leaf=40, random_state=0
    ).fit(x, y)
    found = []
    for world in worlds:
        rows, x, _ = _described(world, at_once)
        scores = np.full(len(world.transactions), -1.0)
        scores[rows] = trees.predict_proba(x)[:, 1]
        found.append(scores)
    return found


def _described(world: World, at_once: bool) -> tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]:
    """Payments of scripts, rows [n], what is known of each when it comes, [n, C], and whether it is a fraud."""
    payments = world.transactions
    names = ("transaction_id", "account_id", "merchant_id", "agent_id", "mcc")
    ids, account, merchant, agent, mcc = (payments[name].to_pylist() for name in names)
    time = payments["timestamp"].cast(pa.int64()).to_numpy()
    amount = np.log(payments["amount"].to_numpy())
    fraud = world.truth["is_fraud"].to_numpy()
    width = len(NEW_SHOP) + 7  # a script's number, a shop's, and chance
    scripted = [m is not None and m.startswith(NEW_SHOP) and len(m) == width for m in merchant]
    rows = np.flatnonzero(scripted)
    usual, owners = defaultdict(list), defaultdict(set)
    for i, name in enumerate(agent):
        if name is not None and not scripted[i]:
            usual[account[i]].append(amount[i])
            owners[name].add(account[i])
    label = dict(zip(ids, fraud.tolist(), strict=True)) if at_once else {}
    told = defaultdict(list)  # by payment: when, and what
    for name, at, said in zip(
        world.labels["transaction_id"].to_pylist(),
        world.labels["reported_at"].cast(pa.int64()).to_pylist(),
        world.labels["is_fraud"].to_pylist(),
        strict=True,
    ):
        told[name].append((at, said))
    past: dict[str, list[int]] = defaultdict(list)
    x = []
    for i in rows.tolist():
        mine = past[merchant[i][: len(NEW_SHOP) + 3]]
        now = int(time[i])
        ratio = [float(amount[j] - np.mean(usual[account[j]])) for j in (*mine, i)]
        since = [(now - int(time[j])) / DAY for j in mine]
        if at_once:
            said = [label[ids[j]] for j in mine]
        else:
            said = [bool([s for at, s in told[ids[j]] if at <= now][-1:] == [True]) for j in mine]
        silent = [age for age, known in zip(since, said, strict=True) if not known]
        people = {account[j] for j in mine}
        shops = {merchant[j] for j in mine}
        x.append([
            len(mine), max(since, default=0.0), len(mine) / (max(since, default=0.0) + 0.5), min(since, default=99.0),
            float(np.median(since)) if since else 99.0, len(people), len(people) / max(1, len(owners[agent[i]])),
            account[i] in people, ratio[-1], float(np.mean(ratio)), float(np.std(ratio)), len(shops | {merchant[i]}),
            sum(said), max(silent, default=0.0), sum(age > 7 for age in silent), MCCS.index(mcc[i]),
            len({mcc[j] for j in (*mine, i)} & set(MCCS[:2])), len({mcc[j] for j in (*mine, i)} & set(MCCS[4:])),
            (now - int(time[0])) / DAY,
        ])  # fmt: skip
        mine.append(i)
    return rows, np.array(x, np.float64), fraud[rows]
