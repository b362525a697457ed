"""A ring as an offline picture for investigators."""

from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import networkx as nx
from matplotlib.figure import Figure

from data.currency import format_totals
from graph.rings.index import Ring

matplotlib.use("Agg")
STYLE = {"account": ("o", "#3b6ea5"), "device": ("s", "#d1603d"), "card": ("D", "#5a9367"), "ip": ("^", "#8d6a9f")}
OTHER = ("h", "#777777")
FRAUD = "#b00020"


def draw_ring(ring: Ring, graph: nx.Graph, path: Path) -> None:
    """Draw who shares what: accounts and entities by shape and colour, ties by number of payments.

    Args:
        ring: The ring.
        graph: `RingIndex.subgraph(ring)`.
        path: PNG or SVG to write.
    """
    n = max(1, len(graph))
    figure = Figure(figsize=(11, 8), dpi=110)
    axes = figure.add_axes((0.02, 0.02, 0.8, 0.84))
    at = nx.spring_layout(graph, seed=1, k=2.2 / n**0.5, iterations=200)
    for a, b, tie in graph.edges(data=True):
        (x0, y0), (x1, y1) = at[a], at[b]
        axes.plot([x0, x1], [y0, y1], color="#999999", lw=0.8 + min(5.0, tie["count"] ** 0.5), alpha=0.6, zorder=1)
    for role in dict.fromkeys(data["role"] for _, data in graph.nodes(data=True)):
        shape, colour = STYLE.get(role, OTHER)
        nodes = [(node, data) for node, data in graph.nodes(data=True) if data["role"] == role]
        axes.scatter(
            [at[node][0] for node, _ in nodes],
            [at[node][1] for node, _ in nodes],
            s=900 / n**0.4,
            marker=shape,
            c=colour,
            edgecolors=[FRAUD if data.get("frauds") else "white" for _, data in nodes],
            linewidths=[3 if data.get("frauds") else 1 for _, data in nodes],
            label=f"{role} ({len(nodes)})",
            zorder=2,
        )
    for node, data in graph.nodes(data=True):
        offset = (0, 11 if data["role"] == "account" else -15)
        size = 9 if n <= 25 else 7
        axes.annotate(
            data["name"],
            at[node],
            offset,
            textcoords="offset points",
            ha="center",
            fontsize=size,
            color="#333333",
            zorder=3,
        )
    axes.margins(0.12)
    axes.set_axis_off()
    if len(graph):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, labelspacing=1.4, markerscale=0.7)
    first, last = (
        f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M}" for us in (ring.first_seen, ring.last_seen)
    )
    figure.suptitle(
        f"Ring {ring.id}: {len(ring.accounts)} accounts, {ring.known_frauds} known frauds, "
        f"{format_totals(ring.at_risk)} at risk\nfirst seen {first}, last seen {last} UTC; risk {ring.risk:.2f}; "
        "a red rim marks accounts with known fraud",
        fontsize=12,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
