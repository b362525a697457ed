"""A ring as a picture that stands still, for reports: SVG, PNG or PDF, as the file's name says."""

import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from graph.rings.picture.scene import ring_scene, risks
from graph.rings.records import RingRecord

matplotlib.use("Agg")
MARKERS: Final = {"account": "o", "device": "s", "merchant": "D", "card": "P", "ip": "^", "location": "h"}
RISK: Final = LinearSegmentedColormap.from_list("risk", ["#4a7fbf", "#c9c5bb", "#e66100"])  # as on the page
FRAUD: Final = "#b00020"
TIE: Final = "#8a949e"
INK: Final = "#1b1f24"
SEATS: Final = (  # where a name may stand: points from its node, and how it is aligned there
    ((0, -11), "center", "top"),
    ((0, 11), "center", "bottom"),
    ((12, 0), "left", "center"),
    ((-12, 0), "right", "center"),
)
# Under a name, so that ties do not run through it; outlined letters would turn into paths that nobody can search.
PLATE: Final = {"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
INCHES: Final = (12.0, 8.0)


def draw_record(record: RingRecord, payments: pa.Table, path: Path) -> None:
    """Draw a ring's members, what ties them and the money in it.

    Shapes say what a node is, its colour the mean risk of its payments (1 where one was reported as fraud), a red rim
    that some were, the width of a tie the money that went over it. Neighbours are left out.

    Args:
        record: The ring.
        payments: Of `RING_PAYMENTS`, see `ring_scene`.
        path: Where to write; its suffix, .svg, .png or .pdf, says what.

    Raises:
        GraphError: The payments are not of `RING_PAYMENTS`.
    """
    scene = ring_scene(record, payments)
    figure = Figure(figsize=INCHES, dpi=130)
    axes = figure.add_axes((0.02, 0.03, 0.78, 0.79))
    shown = np.array([member is not None for member in scene["nodes"]["member"]], bool)
    at = np.column_stack([scene["nodes"]["x"], scene["nodes"]["y"]]).reshape(-1, 2)
    axes.set_axis_off()
    axes.set_aspect("equal")
    if shown.any():
        low, high = at[shown].min(axis=0), at[shown].max(axis=0)
        margin = 0.09 * max(1.0, float((high - low).max()))
        axes.set_xlim(low[0] - margin, high[0] + margin)
        axes.set_ylim(low[1] - margin, high[1] + margin)
    risk, frauds = _node_figures(scene)
    _ties(axes, scene, at, shown)
    _nodes(axes, scene, at, shown, risk, frauds)
    left_out = _names(figure, axes, scene, at, shown, risk)
    _legend(axes, scene, shown)
    figure.text(0.02, 0.965, _title(scene), fontsize=15, fontweight="bold", color=INK, va="top")
    figure.text(0.02, 0.925, _subtitle(scene, left_out), fontsize=9.5, color=INK, va="top", linespacing=1.35)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": record.id, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _node_figures(scene: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean risk and number of reported frauds of each node's payments."""
    n = len(scene["nodes"]["name"])
    total, count, frauds = np.zeros(n), np.zeros(n), np.zeros(n, np.int64)
    payments = scene["payments"]
    for nodes, risk, reported in zip(payments["nodes"], risks(scene), payments["reported"], strict=True):
        total[nodes] += risk
        count[nodes] += 1
        frauds[nodes] += reported is not None
    return total / np.maximum(1, count), frauds


def _ties(axes: Axes, scene: dict[str, Any], at: NDArray[np.float64], shown: NDArray[np.bool_]) -> None:
    ties, payments = scene["ties"], scene["payments"]
    n = len(ties["source"])
    weight, risk, count = np.zeros(n), np.zeros(n), np.zeros(n)
    for row, money, p in zip(payments["ties"], payments["weight"], risks(scene), strict=True):
        weight[row] += money
        risk[row] += p
        count[row] += 1
    risk /= np.maximum(1, count)
    crowd = min(1.0, (60 / max(1, int(shown.sum()))) ** 0.4)
    for i in range(n):
        a, b = ties["source"][i], ties["target"][i]
        if not (shown[a] and shown[b]):
            continue
        style = "-|>,head_length=.5,head_width=.25" if ties["directed"][i] else "-"
        colour = TIE if risk[i] < 0.25 else RISK(0.5 + risk[i] / 2)
        width = crowd * min(6.0, 0.8 + 1.2 * float(np.log1p(weight[i])))
        look = {"arrowstyle": style, "color": colour, "lw": width, "alpha": 0.75, "shrinkA": 0, "shrinkB": 7 * crowd}
        axes.annotate("", at[b], at[a], arrowprops={**look, "mutation_scale": 12 * crowd + 2}, zorder=1)


def _nodes(
    axes: Axes,
    scene: dict[str, Any],
    at: NDArray[np.float64],
    shown: NDArray[np.bool_],
    risk: NDArray[np.float64],
    frauds: NDArray[np.int64],
) -> None:
    size = 230 * min(1.0, (30 / max(1, int(shown.sum()))) ** 0.75)
    roles = np.array(scene["nodes"]["role"])
    for role in dict.fromkeys(roles[shown].tolist()):
        of = np.flatnonzero(shown & (roles == role))
        axes.scatter(
            *(at[of, 0], at[of, 1]),
            s=size * (0.8 if role in ("merchant", "device") else 1.0),
            marker=MARKERS.get(role, "h"),
            c=RISK(risk[of]),
            edgecolors=[FRAUD if frauds[i] else "white" for i in of],
            linewidths=[0.158 * size**0.5 if frauds[i] else 0.8 for i in of],
            zorder=2,
        )


def _names(
    figure: Figure,
    axes: Axes,
    scene: dict[str, Any],
    at: NDArray[np.float64],
    shown: NDArray[np.bool_],
    risk: NDArray[np.float64],
) -> int:
    """Write names that do not run into each other, those with a part in the ring first; how many were left out."""
    nodes = scene["nodes"]
    parts = ("account", "shared")
    order = sorted(np.flatnonzero(shown).tolist(), key=lambda i: (nodes["member"][i] in parts, -risk[i], i))
    renderer, left_out = FigureCanvasAgg(figure).get_renderer(), 0
    taken: list[Bbox] = []
    for i in order:
        name = textwrap.shorten(nodes["name"][i], 26, placeholder="…") or nodes["name"][i][:25] + "…"
        text = name if nodes["member"][i] in parts else f"{name}\n{nodes['member'][i]}"
        for offset, across, along in SEATS:
            said = axes.annotate(
                text.replace("$", r"\$"),
                at[i],
                offset,
                textcoords="offset points",
                ha=across,
                va=along,
                fontsize=8.5,
                color=INK,
                zorder=3,
                bbox=PLATE,
            )
            box = said.get_window_extent(renderer)
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            said.remove()
        else:
            left_out += 1
    return left_out


def _legend(axes: Axes, scene: dict[str, Any], shown: NDArray[np.bool_]) -> None:
    roles = [role for role, there in zip(scene["nodes"]["role"], shown, strict=True) if there]

    def mark(marker: str, label: str, **look: Any) -> Line2D:
        return Line2D([], [], marker=marker, linestyle="", markersize=9, label=label, **look)

    lines = [
        mark(MARKERS.get(role, "h"), f"{role} ({roles.count(role)})", color="#59636e") for role in dict.fromkeys(roles)
    ]
    for value, what in ((0.0, "mean risk 0"), (0.5, "mean risk .5"), (1.0, "mean risk 1")):
        lines.append(mark("o", what, color=RISK(value)))
    rim = {"markerfacecolor": "white", "markeredgecolor": FRAUD, "markeredgewidth": 2.4}
    lines.append(mark("o", "red rim: some of its\npayments were\nreported as fraud", **rim))
    lines.append(Line2D([], [], color=TIE, lw=3, label="width: money, log\nscale; arrow: to payee\nor merchant"))
    axes.legend(handles=lines, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, labelspacing=1.1, fontsize=9)


def _title(scene: dict[str, Any]) -> str:
    ring = scene["ring"]
    return f"Ring {ring['id']}: {ring['accounts']} accounts, {ring['state']}, confidence {ring['confidence']:.2f}"


def _subtitle(scene: dict[str, Any], left_out: int) -> str:
    ring = scene["ring"]
    money = [f"{amount} {kind}" for kind, amount in ring["money"].items() if amount != "0"]
    lines = [
        f"{ring['known_frauds']} known frauds; {'; '.join(money)}; {_day(ring['first_seen'])} to "
        f"{_day(ring['last_seen'])} UTC",
        ring["reasons"],
    ]
    if left_out:
        lines.append(f"{left_out} of the names would run into others and are left out.")
    return "\n".join(_wrapped(line.replace("$", r"\$") for line in lines))


def _wrapped(lines: Iterable[str]) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, 160, max_lines=2, placeholder=" …")]


def _day(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M}"
