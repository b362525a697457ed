"""The tables of docs/anticipation.md, written from benchmarks/results/forecast.json and guidance.json.

Example: python -m benchmarks.quality.anticipation
"""

import json
import re
from pathlib import Path

from benchmarks.report import RESULTS, ROOT

PAGE = ROOT / "docs" / "anticipation.md"
SHOWN = {"handbook": "Handbook", "cdnow": "CDNOW"}


def forecast_table(found: dict) -> str:
    """Losses of each way to forecast."""
    lines = ["| pinball loss | " + " | ".join(f"{s}: when | {s}: amount" for s in SHOWN.values()) + " |"]
    lines.append("|---|" + "---:|" * (2 * len(SHOWN)))
    first = found["details"]["handbook"]["losses"]
    for name in ["ours", *(n for n in first if n != "ours")]:
        cells = []
        for data in SHOWN:
            loss = found["details"][data]["losses"][name]
            cells += [f"{loss[t]:.4f}" if loss[t] == loss[t] else "" for t in ("when", "amount")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    covered = []
    for data in SHOWN:
        seen = found["details"][data]["seen"]
        covered += [f"{100 * seen['covered when']:.1f} %", f"{100 * seen['covered amount']:.1f} %"]
    return "\n".join([*lines, "| our 80 % intervals cover | " + " | ".join(covered) + " |"])


def guidance_table(found: dict) -> str:
    """Precision and recall by kind."""
    lines = ["| | told | right | planted | precision | recall |", "|---|---:|---:|---:|---:|---:|"]
    for key, figure in found["figures"].items():
        name, _, measure = key.rpartition(".")
        if measure == "precision":
            counts, recall = figure["peer"], found["figures"][f"{name}.recall"]["value"]
            cells = [f"{counts[c]:,}" for c in ("told", "right", "planted")]
            lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} | {figure['value']:.3f} | {recall:.3f} |")
    return "\n".join(lines)


def rebuild(page: Path = PAGE) -> None:
    """Write the tables between their markers."""
    text = PAGE.read_text()
    for name, table in (("forecast", forecast_table), ("guidance", guidance_table)):
        made = table(json.loads((RESULTS / f"{name}.json").read_text()))
        text = re.sub(
            rf"(<!-- {name} -->).*?(<!-- end -->)", lambda m, t=made: f"{m[1]}\n{t}\n{m[2]}", text, flags=re.S
        )
    page.write_text(text)


if __name__ == "__main__":
    rebuild()
