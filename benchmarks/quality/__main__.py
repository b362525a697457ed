"""Detection quality beside its rivals: benchmarks/results/quality_*.json and docs/quality.md.

Example: python -m benchmarks.quality --only s_ffsd,world --seeds 5 --rivals

A run that was interrupted goes on where it stopped; a whole run of all takes hours on two cores.
"""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.quality import ablation, about, amlsim, histories, prequential, tolokers
from benchmarks.quality.about import ABOUT
from benchmarks.quality.contest import OURS, Contest, entrants, ours, table
from benchmarks.quality.oracle import LIMIT, limit
from benchmarks.quality.page import rebuild
from benchmarks.quality.ring_oracle import oracle
from benchmarks.quality.runs import cached_run, folder
from benchmarks.quality.speed import speed
from benchmarks.quality.summary import Table, figures_of, put
from benchmarks.report import ROOT, Figure
from data.history import History
from data.world.synthetic import LONE
from gnn.model.artifact import load
from gnn.quality.audit import audit
from gnn.quality.card import make_card, markdown
from gnn.quality.prequential import draw

BOOK = datetime(2018, 8, 8, tzinfo=UTC)
OTHER = datetime(2018, 8, 22, tzinfo=UTC)
TREES = ("trees: columns", "trees: raw history", "trees: features", "trees: history")
SAGE = "PyG SAGEConv"
MAX_RECALL_LOSS = 0.03  # by so much a ring kind's recall may fall behind


def judged(contest: Contest, options: argparse.Namespace) -> Table:
    """One contest, every entrant, every seed."""
    return table(contest, entrants(contest, options.seeds, options.rivals))


def handbook(options: argparse.Namespace) -> None:
    contest = histories.handbook("handbook", BOOK)
    found = judged(contest, options) | {LIMIT: limit(contest)}
    goals = {"average_precision": 0.74, "roc_auc": 0.90, "card_precision_at_100": 0.31}
    model = folder("handbook") / "model-0"
    cost = speed(contest, model, cached_run("handbook", "ours-0", lambda: ours(contest, 0))[1])
    put("handbook", ABOUT["handbook"], figures_of(found, goals) | cost, {"": found})
    card = make_card(
        load(model),
        History.read(*histories.handbook_files(), stop=BOOK + histories.WEEK),
        start=BOOK,
        stop=BOOK + histories.WEEK,
        protocol="handbook",
        device="cpu",
    )
    (ROOT / "docs" / "model_card.md").write_text(markdown(card))


def handbook_week(options: argparse.Namespace) -> None:
    contest = histories.handbook("handbook_week", BOOK, days=7)
    found = judged(contest, options) | {LIMIT: limit(contest)}
    put("handbook_week", ABOUT["handbook_week"], figures_of(found, {"average_precision": 0.68}), {"": found})


def other_weeks(options: argparse.Namespace) -> None:
    contest = histories.handbook("other_weeks", OTHER)
    found = judged(contest, options) | {LIMIT: limit(contest)}
    put("other_weeks", ABOUT["other_weeks"], figures_of(found, {}), {"": found})


def s_ffsd(options: argparse.Namespace) -> None:
    goals = {
        "no_labels": {"average_precision": 0.93, "roc_auc": 0.965},
        "delayed": {},
        "at_once": {"average_precision": 0.965},
    }
    tables, figures = {}, {}
    for variant, wanted in goals.items():
        tables[variant] = judged(histories.s_ffsd(variant), options)
        figures |= figures_of(tables[variant], wanted, f"{variant}.")
    put("s_ffsd", ABOUT["s_ffsd"], figures, tables)


def world(options: argparse.Namespace) -> None:
    contest = histories.world()
    runs = entrants(contest, options.seeds, options.rivals)
    for scores in runs:
        scores[LIMIT] = oracle(contest, scores[OURS])
    found = table(contest, runs)
    figures = figures_of(found, {})
    limit = float(np.mean(found[LIMIT]["average_precision"]))
    if all(name in found for name in TREES):
        best = max(TREES, key=lambda name: float(np.mean(found[name]["average_precision"])))
        rival, mine = found[best], found[OURS]
        ap = [float(np.mean(of["average_precision"])) for of in (mine, rival)]
        figures["best_tree_average_precision"] = Figure(ap[1], "1, meant to be 0.4 to 0.75", None)
        figures["distance_closed"] = Figure((ap[0] - ap[1]) / (1 - ap[1]), "1", 0.40)
        figures["distance_closed_by_the_limit"] = Figure((limit - ap[1]) / (1 - ap[1]), "1", None)
        for measure in mine:
            if measure.startswith("recall, ") and measure != f"recall, {LONE}" and measure in rival:
                gap = float(np.mean(mine[measure])) - float(np.mean(rival[measure]))
                figures[f"{measure}, above {best}"] = Figure(gap, "1", -MAX_RECALL_LOSS)
    put("world", about.world(len(histories.TEACHING), len(histories.JUDGING)), figures, {"": found})


def parts(options: argparse.Namespace) -> None:
    found: Table = {}
    for seed in range(options.seeds):
        for name, values in ablation.run(seed).items():
            for measure, value in values.items():
                found.setdefault(name, {}).setdefault(measure, []).append(value)
    gain = {}
    for name, of in found.items():
        beside = found[ablation.FEATURES if name == ablation.BECAME else ablation.WHOLE]
        more = np.subtract(of["average_precision"], beside["average_precision"])
        of["more AP"] = more.tolist()
        gain[name] = float(more.mean())
    better = (ablation.TRUTH, ablation.RECENT, ablation.INSTANT)
    left_out = [ablation.HEADLESS, *(n for n in ablation.VARIANTS if n not in (ablation.WHOLE, *better))]
    figures = {f"gain over {name}": Figure(-gain[name], "AP") for name in left_out}
    figures |= {f"gain of {name}": Figure(gain[name], "AP") for name in better}
    figures["gain of what neighbours became"] = Figure(gain[ablation.BECAME], "AP of trees")
    put("ablation", about.ablation(ablation.WORLDS), figures, {"": found})


def static_tolokers(options: argparse.Namespace) -> None:
    graph = tolokers.read()
    found: Table = {}
    for split in range(tolokers.SPLITS):
        scores = dict(
            cached_run("tolokers", f"ours-{split}", lambda split=split: ({OURS: tolokers.ours(graph, split)}, {}))[0]
        )
        if options.rivals:
            scores |= cached_run("tolokers", f"trees-{split}", lambda split=split: (tolokers.trees(graph, split), {}))[
                0
            ]
            scores |= cached_run(
                "tolokers", f"research-{split}", lambda split=split: ({SAGE: tolokers.research(graph, split)}, {})
            )[0]
        of = graph.test[split]
        for name, score in scores.items():
            found.setdefault(name, {}).setdefault("roc_auc", []).append(float(roc_auc_score(graph.y[of], score[of])))
            ap = float(average_precision_score(graph.y[of], score[of]))
            found[name].setdefault("average_precision", []).append(ap)
    put("tolokers", ABOUT["tolokers"], figures_of(found, {"roc_auc": 0.85}), {"": found})


def static_amlsim(options: argparse.Namespace) -> None:
    data = amlsim.read()
    basic, read = amlsim.basic(data), amlsim.reading(data)
    found: Table = {}
    for fold, (train, test) in enumerate(amlsim.folds(data, 0)):

        def make(train=train, fold=fold):
            found = {OURS: amlsim.two_rounds(data, read, train, fold)}
            if options.rivals:
                found["trees: degree, amount, time"] = amlsim.trees(basic, data.fraud, train, fold)
            return found, {}

        scores = dict(cached_run("amlsim", f"{'all' if options.rivals else 'ours'}-{fold}", make)[0])
        if options.rivals:
            scores |= cached_run(
                "amlsim",
                f"research-{fold}",
                lambda train=train, fold=fold: ({SAGE: amlsim.research(data, train, fold)}, {}),
            )[0]
        for name, score in scores.items():
            truth = data.fraud[test]
            found.setdefault(name, {}).setdefault("average_precision", []).append(
                float(average_precision_score(truth, score[test]))
            )
            found[name].setdefault("roc_auc", []).append(float(roc_auc_score(truth, score[test])))
    put("amlsim", ABOUT["amlsim"], figures_of(found, {"average_precision": 0.85}), {"": found})


def weekly(options: argparse.Namespace) -> None:
    found = prequential.run(options.every or None, options.weeks)
    draw(found, prequential.PICTURE, bold=OURS)
    figures = {
        f"{name}, mean of {len(weeks)} weeks": Figure(float(np.mean(list(weeks.values()))), "1")
        for name, weeks in found.items()
    }
    tables = {"": {name: {week: [ap] for week, ap in weeks.items()} for name, weeks in found.items()}}
    text = about.prequential(options.weeks, prequential.FIRST.date(), options.every)
    put("prequential", text, figures, tables, {"picture": prequential.PICTURE.name})


def audits(options: argparse.Namespace) -> None:
    tables, figures, leaks = {}, {}, {}
    for name, (files, arguments) in histories.audited().items():
        print(f"audit: {name} ...", flush=True)
        found = audit(History.read(*files), **arguments)
        tables[name] = {
            case.name: {"average_precision": [case.average_precision], "roc_auc": [case.roc_auc]}
            for case in (*found.splits, *found.planted)
        }
        leaks[name] = {case.name: list(case.leaks) for case in (*found.splits, *found.planted)}
        strict = found.splits[-1].average_precision
        figures[f"{name}, published above strict"] = Figure(found.splits[0].average_precision - strict, "AP")
        figures[f"{name}, sound"] = Figure(float(found.sound), "1 is yes", 1.0)
    put("audit", ABOUT["audit"], figures, tables, {"leaks": leaks})


BENCHES: dict[str, Callable[[argparse.Namespace], None]] = {
    "audit": audits,
    "amlsim": static_amlsim,
    "s_ffsd": s_ffsd,
    "world": world,
    "ablation": parts,
    "tolokers": static_tolokers,
    "handbook_week": handbook_week,
    "handbook": handbook,
    "other_weeks": other_weeks,
    "prequential": weekly,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"some of {', '.join(BENCHES)}, separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rivals", action="store_true", help="train the rivals as well")
    parser.add_argument("--weeks", type=int, default=prequential.WEEKS, help="of the prequential evaluation")
    parser.add_argument("--every", type=int, default=1, help="weeks between trainings of its network; 0: none")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; 1 where others use the machine too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.only.split(",") if options.only else list(BENCHES)
    if unknown := set(names) - set(BENCHES):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    for name in names:
        BENCHES[name](options)
        rebuild()


if __name__ == "__main__":
    main()
