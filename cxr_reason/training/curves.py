"""``training.svg``: how loss and rewards went and what the evaluations said, as text, without a plotting library."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 200, 60, 30, 50
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df")
MOST_POINTS = 600
LOSSES = ("loss", "eval_loss")
REWARDS = re.compile(r"reward|reward_std|rewards/.*/mean")
SHOWN = ("accuracy", "radrscore", "balanced_radrscore", "factuality", "completeness")
Point = tuple[float, float]


def svg(rows: Iterable[Mapping[str, Any]], *, title: str) -> str:
    """A page of panels, losses, rewards and the measures of the evaluations, by step. `rows` as ``metrics.jsonl``."""
    series: dict[str, list[Point]] = {}
    for row in rows:
        for name, value in row.items():
            if _panel_of(name) and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(name, []).append((float(row["step"]), float(value)))
    panels = [
        (name, panel)
        for name in ("loss", "reward", "evaluation")
        if (panel := {label: points for label, points in series.items() if _panel_of(label) == name})
    ]
    height = TOP + max(1, len(panels)) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="18" font-size="13">{escape(title)}</text>',
    ]
    for number, (name, panel) in enumerate(panels):
        parts += _panel(name, panel, top=TOP + number * (HEIGHT + GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel_of(name: str) -> str | None:
    if name in LOSSES:
        return "loss"
    if REWARDS.fullmatch(name):
        return "reward"
    return "evaluation" if name.removeprefix("eval_") in SHOWN else None


def _panel(name: str, series: Mapping[str, Sequence[Point]], *, top: float) -> list[str]:
    points = [point for line in series.values() for point in line]
    last = max(x for x, _ in points) or 1
    low, high = (
        (0.0, 1.0) if name == "evaluation" else (min(0.0, *(y for _, y in points)), max(y for _, y in points) or 1.0)
    )
    right = WIDTH - 20

    def at(x: float, y: float) -> str:
        across = LEFT + x / last * (right - LEFT)
        down = top + HEIGHT - (min(max(y, low), high) - low) / (high - low or 1) * HEIGHT
        return f"{across:.1f},{down:.1f}"

    parts = []
    for part in range(5):
        value = low + (high - low) * part / 4
        y = at(0, value).partition(",")[2]
        parts.append(f'<path d="M{LEFT},{y}H{right}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{value:.3g}</text>')
        parts.append(f'<text x="{at(last * part / 4, low).partition(",")[0]}" y="{top + HEIGHT + 14}" '
                     f'text-anchor="middle">{last * part / 4:,.0f}</text>')  # fmt: skip
    for number, (label, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        drawn = " ".join(at(x, y) for x, y in _thinned(line))
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{(xy := at(*line[-1]).split(","))[0]}" cy="{xy[1]}" r="2.5" fill="{colour}"/>']
        parts.append(f'<text x="{LEFT + 8 + 130 * number}" y="{top - 4}" fill="{colour}">{escape(label)}</text>')
    return parts


def _thinned(line: Sequence[Point]) -> Sequence[Point]:
    """Means of neighbours, where there are more points than can be seen."""
    size = math.ceil(len(line) / MOST_POINTS)
    if size == 1:
        return line
    runs = [line[start : start + size] for start in range(0, len(line), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]
