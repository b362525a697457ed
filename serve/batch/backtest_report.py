"""A backtest for people: tables for a terminal, and a page that needs nothing but itself."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from data.currency import format_amount, format_totals
from serve.batch.backtest import DECISIONS, SIDES

Row = tuple[str, str, str]
WIDTH, HEIGHT, MARGIN = 640, 300, 56


def overview(figures: Mapping[str, Any]) -> list[Row]:
    """What both policies did: a name, and a text for each."""
    live, candidate = (figures["sides"][side] for side in SIDES)

    def row(name: str, read: Any) -> Row:
        return name, read(live), read(candidate)

    rows = [row(f"payments: {name}", lambda s, name=name: f"{s['payments'][name]:,}") for name in DECISIONS]
    rows += [row(f"money: {name}", lambda s, name=name: format_totals(s["money"][name])) for name in DECISIONS[1:]]
    frauds = figures["frauds"]
    return [
        *rows,
        row("known frauds held", lambda s: f"{s['fraud_held']:,} of {frauds:,}"),
        row("money of frauds held", lambda s: format_totals(s["fraud_money_held"])),
        row("money of frauds approved", lambda s: format_totals(s["fraud_money_approved"])),
        row("honest payments touched", lambda s: f"{s['honest_touched']:,}"),
        row("honest payments declined", lambda s: f"{s['honest_declined']:,}"),
        row("reviews a day, mean", lambda s: f"{s['reviews_a_day']['mean']:.1f}"),
        row("reviews a day, most", lambda s: f"{s['reviews_a_day']['most']:,}"),
        row("cost", lambda s: format_amount(round(s["cost"]), figures["cost_currency"])),
    ]


def backtest_tables(figures: Mapping[str, Any]) -> list[Table]:
    """For a terminal."""
    title = f"{figures['payments']:,} payments, {figures['frauds']:,} of them known frauds"
    main = Table("", "live", figures["candidate"], title=title, caption="held: declined, reviewed or challenged")
    for row in overview(figures):
        main.add_row(*row)
    changes = Table("live", "candidate", "payments", "frauds", "money", title="what changes")
    for one in figures["changes"]:
        money = format_totals(one["money"])
        changes.add_row(one["live"], one["candidate"], f"{one['payments']:,}", f"{one['frauds']:,}", money)
    rules = Table("policy", "rule", "hits", "labelled", "frauds", "precision", title="rules, by confirmed labels")
    for one in figures["rules"]:
        rules.add_row(*_rule_cells(one))
    return [main, changes, rules]


def _rule_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    precision = "" if one["precision"] is None else f"{one['precision']:.0%}"
    counts = (f"{one[name]:,}" for name in ("hits", "labelled", "frauds"))
    return one["policy"], one["rule"], *counts, precision


def backtest_page(figures: Mapping[str, Any]) -> str:
    """A page of HTML that loads nothing."""
    segments = [
        (
            one["kind"],
            "(none)" if one["value"] is None else str(one["value"]),
            *(f"{one[name]:,}" for name in ("payments", "frauds")),
            *(f"{one[f'{what}_{side}']:,}" for what in ("fraud_held", "honest_touched") for side in SIDES),
        )
        for one in figures["segments"]
    ]
    changes = [
        (one["live"], one["candidate"], f"{one['payments']:,}", f"{one['frauds']:,}", format_totals(one["money"]))
        for one in figures["changes"]
    ]
    live = ", ".join(f"{version} ({count:,})" for version, count in figures["live"].items())
    parts = [
        f"<h1>{_text(figures['candidate'])} on recorded payments</h1>",
        f"<p>{figures['payments']:,} payments, {figures['labelled']:,} with a label, {figures['frauds']:,} known "
        f"frauds. Live: {_text(live)}. Every payment is scored and decided as of its own place in the journal, and "
        "judged with what is known by now. <em>Held</em> means declined, reviewed or challenged.</p>",
        "<h2>Side by side</h2>",
        _table(("", "live", "candidate"), overview(figures)),
        "<h2>Cost curve</h2>",
        curve_svg(figures),
        "<p>What declining every payment from a probability on would have cost, by that probability, beside what both "
        "policies cost. Costs are those of the cost model (docs/policy.md), all currencies in one.</p>",
        "<h2>What changes</h2>",
        _table(("live", "candidate", "payments", "frauds", "money"), changes),
        "<h2>Examples</h2>",
        _table(
            ("payment", "time", "account", "amount", "probability", "live", "candidate", "rules", "label"),
            [_example_cells(one) for one in figures["examples"]],
        ),
        "<h2>Rules</h2>",
        _table(
            ("policy", "rule", "hits", "labelled", "frauds", "precision"), [_rule_cells(r) for r in figures["rules"]]
        ),
        "<h2>Segments</h2>",
        _table(
            (
                "by",
                "value",
                "payments",
                "frauds",
                "frauds held, live",
                "candidate",
                "honest touched, live",
                "candidate",
            ),
            segments,
        ),
    ]
    return _PAGE.format(title=_text(f"Backtest of {figures['candidate']}"), body="\n".join(parts))


def _example_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    label = {None: "", True: "fraud", False: "honest"}[one["fraud"]]
    money = format_amount(one["amount"], one["currency"])
    names = (one["transaction_id"], one["timestamp"][:19], one["account_id"], money, f"{one['probability']:.3f}")
    return (*names, one["live"], one["candidate"], ", ".join(one["rules"]), label)


def curve_svg(figures: Mapping[str, Any]) -> str:
    """The cost of declining from a threshold on, and of both policies, as SVG."""
    points = figures["curve"]
    levels = {side: figures["sides"][side]["cost"] for side in SIDES}
    top = max([*(p["cost"] for p in points), *levels.values(), 1.0])
    first = math.log10(points[0]["threshold"])

    def x(threshold: float) -> float:
        return MARGIN + (1 - math.log10(threshold) / first) * (WIDTH - 2 * MARGIN)

    def y(cost: float) -> float:
        return HEIGHT - MARGIN - cost / top * (HEIGHT - 2 * MARGIN)

    line = " ".join(f"{x(p['threshold']):.1f},{y(p['cost']):.1f}" for p in points)
    right, bottom = WIDTH - MARGIN, HEIGHT - MARGIN
    drawn = [
        f'<line x1="{MARGIN}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="#888"/>',
        f'<line x1="{MARGIN}" y1="{MARGIN}" x2="{MARGIN}" y2="{bottom}" stroke="#888"/>',
        f'<polyline points="{line}" fill="none" stroke="#555" stroke-width="2"/>',
        f'<text x="{MARGIN}" y="{MARGIN - 10}">{_text(format_amount(round(top), figures["cost_currency"]))}</text>',
    ]
    for t in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        drawn.append(f'<text x="{x(t):.1f}" y="{bottom + 18}" text-anchor="middle">{t:g}</text>')
    for (side, cost), colour in zip(levels.items(), ("#b3541e", "#1e6fb3"), strict=True):
        at = y(cost)
        drawn.append(
            f'<line x1="{MARGIN}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" stroke="{colour}" stroke-width="2"/>'
        )
        drawn.append(f'<text x="{right}" y="{at - 5:.1f}" text-anchor="end" fill="{colour}">{side}</text>')
    label = f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">declined from this probability on</text>'
    inside = "".join([*drawn, label])
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Cost by threshold">{inside}</svg>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p>None.</p>"
    cells = "".join(f"<th>{_text(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: str) -> str:
    return html.escape(value)


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; margin: .5rem 0 1.5rem; }}
th, td {{ border-bottom: 1px solid #ddd; padding: .25rem .75rem; text-align: left; }}
td {{ font-variant-numeric: tabular-nums; }}
svg {{ width: 100%; max-width: 40rem; font-size: 12px; }}
</style></head><body>
{body}
</body></html>
"""
