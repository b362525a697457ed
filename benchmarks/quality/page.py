"""docs/quality.md and docs/quality.png from benchmarks/results/quality_*.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.quality.contest import MEAN, OURS
from benchmarks.quality.oracle import LIMIT
from benchmarks.report import RESULTS, ROOT

PAGE = ROOT / "docs" / "quality.md"
ORDER = (
    *("audit", "handbook", "handbook_week", "other_weeks", "prequential", "s_ffsd", "tolokers", "amlsim"),
    *("world", "ablation"),
)
SHORT = {"average_precision": "AP", "roc_auc": "ROC AUC", "card_precision_at_100": "CP@100"}
NAMES = {"amlsim": "two rounds of trees, no network"}  # what stands for us where it is not the whole model
HEADLINES = (  # result, table within it, measure, data
    ("handbook", "", "average_precision", "Handbook, the book's test week"),
    ("handbook_week", "", "average_precision", "Handbook, same week, seven days of training"),
    ("other_weeks", "", "average_precision", "Handbook, a week that no trial has seen"),
    ("s_ffsd", "no_labels", "average_precision", "S-FFSD, no labels in the inputs"),
    ("s_ffsd", "delayed", "average_precision", "S-FFSD, labels after seven days"),
    ("s_ffsd", "at_once", "average_precision", "S-FFSD, labels at once"),
    ("world", "", "average_precision", "simulated worlds"),
    ("tolokers", "", "roc_auc", "Tolokers (attention layers alone)"),
    ("amlsim", "", "average_precision", "AMLSim (two rounds of trees, no network)"),
)
SHOWN = {  # names in the result files that a reader would not understand
    "limit: an oracle of the generator": "limit: an oracle that knows the generator",
    "ringwatch, mean of all seeds' networks": "ringwatch, mean of the models of all seeds",
    "all of it": "the whole model",
    "no head of trees": "no boosted trees",
    "one layer": "one attention layer, not two",
    "no labels in sight": "no labels in the inputs",
    "no ring columns": "no ring features",
    "no prospects": "no auxiliary task on an entity's next payments",
    "every label right": "training labels correct",
    "every label right, recent payments too": "training labels correct, recent payments included",
    "every fraud known right behind its payment": "every fraud reported immediately",
    "trees on features": "boosted trees on the same features",
    "trees, and what neighbours became": "boosted trees, and later frauds of neighbours",
    "more AP": "AP gained",
    "distance_closed": "share of the gap between the best trees and an AP of 1 that is closed",
    "training_s_a_million": "training time per million payments, graph and trees included",
    "score_1_p50": "scoring one payment, median",
    "score_64_p50": "scoring 64 payments, median",
    "seeded world, sound": "simulated world: no leak, both planted ones found",
    "S-FFSD, sound": "S-FFSD: no leak, both planted ones found",
    "Handbook, sound": "Handbook: no leak, both planted ones found",
    "seeded world": "simulated world",
}
UNITS = {"training_s_a_million": " s", "score_1_p50": " ms", "score_64_p50": " ms"}
INTRODUCTION = """
AP is average precision. Each figure is a mean over several training seeds; in brackets is half the width of the 95 %
confidence interval. The best rival is the one with the highest mean; it may have fewer seeds. Where the data come from
a known generator, the limit is what an oracle reaches that knows how the generator makes frauds.

![Ours, the best rival and the limit on each data set](quality.png)

## How to read this page

`python -m benchmarks.quality` makes this page from the result files in `benchmarks/results`. Each section names its
command, commit, date and machine. Unless a section says otherwise:

- Every test payment is later than every training payment.
- A label is used only from the moment at which it was reported.
- Rivals are trained on the same payments and labels, and tuned on the same validation payments.

| rival | what it is |
|---|---|
| trees: columns | gradient-boosted trees on the columns of the payment itself |
| trees: raw history | those columns, and amounts and times of the last payments of each entity |
| trees: features | gradient-boosted trees on Ringwatch's point-in-time features |
| trees: history | those features, and what relates the payment to each of the last payments of its entities |
| trees: forty columns | the payment's columns; gaps, counts, sums, reported frauds; how often each pair met before |
| trees: Snap ML | the payment's columns, and the graph features of IBM's Snap ML |
| logistic | logistic regression on Ringwatch's features |
| PyG | a graph neural network in PyTorch Geometric, on the same sampled neighbours |
| rules | hand-written rules, the ones that answer when a model fails |

**Some figures are optimistic.** Within a run nothing is chosen on test payments. Between runs, the developers saw test
figures:

- Dropout, weight decay, learning rate, epochs, pre-training and the number of simulated worlds were chosen in trials
  on the book's week, S-FFSD and a simulated world. Those trials printed test figures beside validation figures.
- No trial has used the test week of `other_weeks` or the test worlds of `world`. But when it was decided, on another
  world, to train on twelve worlds, the test result with six was known.
- The inputs for Tolokers and the second round of trees for AMLSim were tried after test figures had missed their goals.
  They were chosen on the validation workers of one split and on the training accounts of one fold. The same workers and
  accounts are test data in other splits and folds.
- Trees on S-FFSD's raw history were tried while its test figures were visible. Three decisions followed: to train again
  with the validation payments, to leave out artificial times, and to use the boosted trees always. Each was taken on
  periods before the tests ([decisions](decisions/README.md)).

**Not all sections train in the same way.** The model and its rivals are trained a second time, with the validation
payments added, except in two sections: `prequential` (commit 72dd7c4) has no second training and no rival on raw
history, and the models of `ablation` are trained once. `tolokers` and `amlsim` have no such second training.
"""


@dataclass(frozen=True)
class Headline:
    """One row of the table that opens the page.

    Attributes:
        data: What was judged.
        measure: Which measure, as in the result file.
        ours: Our figure.
        rival: Name of the best rival.
        best: Its figure.
        limit: What an oracle reaches, if there is one.
        commit: Of the run.
        date: Of the run, YYYY-MM-DD.
    """

    data: str
    measure: str
    ours: Mapping[str, Any]
    rival: str
    best: Mapping[str, Any]
    limit: Mapping[str, Any] | None
    commit: str
    date: str


def headlines(results: Path) -> list[Headline]:
    """The rows of the table, in its order; data without a result file are left out."""
    rows = []
    for name, variant, measure, data in HEADLINES:
        path = results / f"quality_{name}.json"
        content = json.loads(path.read_text()) if path.exists() else {"tables": {}}
        if variant not in content["tables"]:
            continue
        table = content["tables"][variant]
        rivals = {rival: of[measure] for rival, of in table.items() if rival not in (OURS, MEAN, LIMIT)}
        best = max(rivals, key=lambda rival: float(rivals[rival]["mean"]))
        limit = table.get(LIMIT, {}).get(measure)
        made = content["commit"], content["date"][:10]
        rows.append(Headline(data, measure, table[OURS][measure], best, rivals[best], limit, *made))
    return rows


def rebuild(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Write the page, and its picture beside it."""
    rows = headlines(results)
    lines = [
        "# Quality",
        "",
        "| data | measure | ours | best rival | limit | commit, date |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        cells = (
            *(row.data, _short(row.measure), _cell(row.ours), f"{_cell(row.best)}, {row.rival}"),
            *(_cell(row.limit), f"{row.commit}, {row.date}"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += INTRODUCTION.rstrip("\n").split("\n")
    draw(rows, page.with_suffix(".png"))
    for name in ORDER:
        path = results / f"quality_{name}.json"
        if path.exists():
            lines += _section(name, json.loads(path.read_text()))
    page.write_text("\n".join(lines) + "\n")


def draw(rows: list[Headline], path: Path) -> None:
    """The table as a picture: one line for each data set, ours, the best rival and the limit on it."""
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.45 * len(rows)), layout="constrained")
    for y, row in enumerate(reversed(rows)):
        axes.plot([row.best["mean"], row.ours["mean"]], [y, y], color="#bbbbbb", zorder=1)
        for value, style in ((row.ours, STYLES[0]), (row.best, STYLES[1]), (row.limit, STYLES[2])):
            if value is not None:
                axes.scatter(value["mean"], y, zorder=2, **style)
    for style in STYLES:
        axes.scatter([], [], **style)
    axes.set_yticks(range(len(rows)), [row.data for row in reversed(rows)])
    axes.set_xlabel("average precision; Tolokers: ROC AUC")
    axes.legend(axes.collections[-3:], ["ours", "best rival", "limit"], loc="lower left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0b6e4f", "marker": "o", "s": 45},
    {"color": "#c0392b", "marker": "s", "s": 35},
    {"color": "#333333", "marker": "|", "s": 140},
)


def _section(name: str, content: Mapping[str, Any]) -> list[str]:
    made = content["machine"]
    lines = ["", f"## {name}", "", content["about"], ""]
    for variant, table in content["tables"].items():
        if variant:
            lines += [f"**{SHOWN.get(variant, variant)}**", ""]
        lines += [*_table(table, NAMES.get(name, OURS)), ""]
    goals = [(key, f) for key, f in content["figures"].items() if f["goal"] is not None]
    if goals:
        lines += ["| figure with a goal | reached | goal | met |", "|---|---|---|---|"]
        for key, f in goals:
            sign = ">=" if f["better"] == "higher" else "<="
            unit, met = UNITS.get(key, ""), "yes" if f["met"] else "**no**"
            lines.append(f"| {_short(key)} | {f['value']:.4f}{unit} | {sign} {f['goal']:g}{unit} | {met} |")
        lines.append("")
    if picture := content["facts"].get("picture"):
        lines += [f"![{name}]({picture})", ""]
    lines.append(
        f"{content['seeds']} seed{'s' if content['seeds'] != 1 else ''}; `{content['command']}` at commit "
        f"{content['commit']}, {content['date'][:10]}, {made['cores']} cores of {made['cpu']}."
    )
    return lines


def _table(table: Mapping[str, Mapping[str, Mapping[str, Any]]], ours: str) -> list[str]:
    measures = list(dict.fromkeys(measure for of in table.values() for measure in of))
    lines = ["| | " + " | ".join(_short(m) for m in measures) + " |", "|---|" + "---:|" * len(measures)]
    first = measures[0]
    names = list(table)
    if OURS in table:  # ours, what stands for itself, then rivals from the best on; protocols stay in their order
        names.sort(key=lambda n: (n != OURS, n not in (MEAN, LIMIT), -table[n].get(first, {"mean": 0})["mean"]))
    for name in names:
        cells = [_cell(table[name].get(measure)) for measure in measures]
        lines.append(f"| {f'**{ours}**' if name == OURS else SHOWN.get(name, name)} | " + " | ".join(cells) + " |")
    return lines


def _cell(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return ""
    half = f" ({(value['high'] - value['low']) / 2:.3f})" if "low" in value else ""
    return f"{value['mean']:.4f}{half}"


def _short(measure: str) -> str:
    """A measure or a goal as the page names it."""
    measure = SHOWN.get(measure, measure).replace(", above trees: features", " minus that of trees: features")
    for long, short in SHORT.items():
        measure = measure.replace(long, short)
    return measure
