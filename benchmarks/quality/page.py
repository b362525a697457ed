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
INTRODUCTION = """
AP is average precision. Figures are means over seeds; in brackets is half the width of the 95 % interval. The best
rival is the one with the highest mean, whatever it is; it may have fewer seeds. The limit is what an oracle reaches
that knows how the data were made, where there is one.

![Ours, the best rival and the limit on each data set](quality.png)

## How to read this page

It is made by `python -m benchmarks.quality` from the result files in `benchmarks/results`. Each section names its
command, commit, date and machine. Unless a variant says otherwise:

- Every test payment is later than those that trained.
- A label is used only after it was reported.
- Rivals are trained on the same payments and labels, and choose on the same validation payments.

**Some figures are optimistic.** Within a run nothing is chosen on test payments. Between runs, people saw test
figures:

- Dropout, weight decay, learning rate, epochs, pre-training and the number of simulated worlds were chosen in trials
  on the book's week, S-FFSD and a simulated world. Their test figures were printed beside those of validation.
- No trial has seen the test of `other_weeks`, or the worlds that judge in `world`. When twelve teaching worlds were
  chosen (on another world), it was known what six reach there.
- The inputs of Tolokers and the second round of AMLSim were tried after test figures had missed their goals. They
  were chosen on validation workers of one split and on the training part of one fold; these are judged in other
  splits and folds.
- Trees on S-FFSD's raw history were tried with its test figures in view. Three questions followed: whether to train
  again with the validation payments, to leave out made-up times, and to have the head always in. Each was answered on
  periods before the tests ([decisions](decisions/README.md)).

**Not every table is of the same training.** Models and rivals were trained again with the payments that chose them,
with these exceptions: `prequential` (commit 72dd7c4) has no second training and no rival on raw history; models of
`ablation` are trained once. `tolokers` and `amlsim` do not depend on it.
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
            lines += [f"**{variant}**", ""]
        lines += [*_table(table, NAMES.get(name, OURS)), ""]
    goals = [(key, f) for key, f in content["figures"].items() if f["goal"] is not None]
    if goals:
        lines += ["| goal | reached | asked | met |", "|---|---|---|---|"]
        for key, f in goals:
            sign = ">=" if f["better"] == "higher" else "<="
            lines.append(f"| {key} | {f['value']:.4f} | {sign} {f['goal']:g} | {'yes' if f['met'] else '**no**'} |")
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
        lines.append(f"| {f'**{ours}**' if name == OURS else name} | " + " | ".join(cells) + " |")
    return lines


def _cell(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return ""
    half = f" ({(value['high'] - value['low']) / 2:.3f})" if "low" in value else ""
    return f"{value['mean']:.4f}{half}"


def _short(measure: str) -> str:
    for long, short in SHORT.items():
        measure = measure.replace(long, short)
    return measure
