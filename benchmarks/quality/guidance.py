"""What an account's owner is told, on seeded households with planted cases and traps: benchmarks/results/guidance.json.

No seed here was used while guidance was developed (those were 1 and 2).

Example: python -m benchmarks.quality.guidance
"""

import argparse
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta

from benchmarks.quality.households import AFTER, NOW, World, households
from benchmarks.report import Figure, show, write
from serve.decide.spending.crowd import Crowd
from serve.decide.spending.guidance import guidance, upcoming
from serve.decide.spending.profile import Profile, profile
from serve.decide.spending.recurring import stem_of

SEEDS = (101, 102, 103)
KINDS = ("duplicate_charge", "unusual_charge", "price_rise", "trial_became_fee", "ring")


def judged(world: World, show_wrong: bool = False) -> tuple[Counter[str], Counter[str], Counter[str], float]:
    """How often each kind was told, told rightly, and planted; and seconds for an account."""
    told, right, planted = Counter[str](), Counter[str](), Counter[str]()
    crowd = Crowd.of(world.pasts)
    begin = time.perf_counter()
    for past, around, marks, due in zip(world.pasts, world.around, world.planted, world.due, strict=True):
        known = profile(past, crowd)
        found = guidance(past, known, around)
        planted.update(kind for kind, _ in marks)
        hit: set[tuple[str, str]] = set()
        for one in found:
            if one.kind not in KINDS:
                continue
            told[one.kind] += 1
            evidence = {(one.kind, name) for name in one.transaction_ids} | {(one.kind, str(one.name))}
            mine = evidence & set(marks)
            right[one.kind] += bool(mine)
            hit |= mine
            if show_wrong and not mine:
                print("wrong", past.account, one.kind, one.name, one.text)
        if show_wrong:
            print(*(f"missed {past.account} {mark}" for mark in set(marks) - hit), sep="\n", end="")
        _bills(known, due, told, right, planted, show_wrong)
    return told, right, planted, (time.perf_counter() - begin) / len(world.pasts)


def _bills(
    known: Profile,
    due: list[tuple[str, date]],
    told: Counter[str],
    right: Counter[str],
    planted: Counter[str],
    show_wrong: bool,
) -> None:
    """Bills and pay of the month ahead: told within the days that they came on."""
    left = list(due)
    planted["upcoming"] += sum(day <= NOW + timedelta(AFTER) for _, day in due)  # one due on the last may come after it
    for one, _ in upcoming((*known.recurring, *known.income), known.as_of):
        assert one.earliest is not None
        assert one.latest is not None
        first, last = (datetime.fromtimestamp(us / 1e6, UTC).date() for us in (one.earliest, one.latest))
        names = (one.name, stem_of(one.name).upper())
        match = next((d for d in left if d[0] in names and first <= d[1] <= last), None)
        told["upcoming"] += 1
        right["upcoming"] += match is not None
        if match is not None:
            planted["upcoming"] += match[1] > NOW + timedelta(AFTER)
            left.remove(match)
        elif show_wrong:
            print("wrong due", known.account, one.name, one.period, one.amount, first, last, len(one.transaction_ids))
    if show_wrong and left:
        print("missed due", known.account, left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--wrong", action="store_true", help="print what was told wrongly, and what was missed")
    options = parser.parse_args()
    told, right, planted, seconds = Counter[str](), Counter[str](), Counter[str](), []
    for seed in options.seeds:
        t, r, p, s = judged(households(seed), options.wrong)
        told, right, planted = told + t, right + r, planted + p
        seconds.append(s)
    figures = {}
    for name, kinds in (("all", KINDS), *((kind, (kind,)) for kind in (*KINDS, "upcoming"))):
        n_told, n_right, n_planted = (sum(c[k] for k in kinds) for c in (told, right, planted))
        goals = (0.95, 0.7) if name in ("all", "upcoming") else (None, None)
        counts = {"told": n_told, "right": n_right, "planted": n_planted}
        figures[f"{name}.precision"] = Figure(round(n_right / max(n_told, 1), 4), "1", goals[0], "higher", counts)
        figures[f"{name}.recall"] = Figure(round(n_right / max(n_planted, 1), 4), "1", goals[1])
    figures["account_ms"] = Figure(round(1e3 * sum(seconds) / len(seconds), 1), "ms")
    show("guidance", figures)
    if options.seeds == list(SEEDS):
        write("guidance", figures)


if __name__ == "__main__":
    main()
