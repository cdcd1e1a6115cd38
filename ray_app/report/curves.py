"""Line charts with intervals as standalone SVG: readable on light and dark pages, in print, and without color."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from ray_app.report.charts import tick_labels, ticks

Curve = list[tuple[float, float, float, float]]
"""(x, low, mean, high) of each point."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 820, 430, 70, 190, 24, 56
STYLES = (
    ("#7a7a7a", "2 4"), ("#b3541e", ""), ("#c9a227", "8 4"), ("#3a7ca5", "8 4 2 4"), ("#5b8c5a", "4 3"),
    ("#14213d", ""), ("#8e3b8a", "10 3"), ("#c2185b", "12 3 2 3"),
)  # fmt: skip
"""Color and dashes of each line; of more lines the styles begin again."""
STYLE = (
    ".curves polyline{fill:none;stroke-width:2}.curves .bar{stroke-width:1.2;opacity:.55}.curves .grid{stroke:#dde3ec}"
    ".curves text{fill:#33415c}.curves .name{font-weight:600}.curves .title{font-weight:600}"
)
"""Of these pictures alone, since a page may hold others beside them."""
LABEL_GAP = 16
KEY = WIDTH - RIGHT + 14
"""Where a piece of each line stands before its name."""


def draw(curves: Mapping[str, Curve], x_label: str, y_label: str) -> str:
    """One line per name, on a logarithmic x axis; its interval is a bar at each point."""
    xs = sorted({x for curve in curves.values() for x, *_ in curve})
    marks = ticks(
        min(low for curve in curves.values() for _, low, _, _ in curve),
        max(high for curve in curves.values() for *_, high in curve),
    )

    def x(value: float) -> float:
        spread = math.log(xs[-1] / xs[0]) or 1.0
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / xs[0]) / spread

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (marks[-1] - value) / (marks[-1] - marks[0])

    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y(mark) + 4:.1f}" text-anchor="end">{told}</text>'
        for mark, told in zip(marks, tick_labels(marks), strict=True)
    )
    axis = "".join(
        f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{value:,.0f}</text>' for value in xs
    )
    ends = _spread({name: y(curve[-1][2]) for name, curve in curves.items()})
    drawn = []
    for number, (name, curve) in enumerate(curves.items()):
        color, dashes = STYLES[number % len(STYLES)]
        shift = 3 * (number - (len(curves) - 1) / 2)  # so that intervals at the same x stand side by side
        points = [(x(at) + shift, y(low), y(mean), y(high)) for at, low, mean, high in curve]
        line = " ".join(f"{at:.1f},{mean:.1f}" for at, _, mean, _ in points)
        bars = "".join(f"M{at:.1f} {low:.1f}V{high:.1f}" for at, low, _, high in points)
        dots = "".join(f'<circle cx="{at:.1f}" cy="{mean:.1f}" r="3.2" fill="{color}"/>' for at, _, mean, _ in points)
        drawn.append(
            f'<g stroke="{color}"><polyline points="{line}" stroke-dasharray="{dashes}"/>'
            f'<path class="bar" d="{bars}"/></g>{dots}'
            f'<path stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}" d="M{KEY} {ends[name]:.1f}h24"/>'
            f'<text class="name" x="{KEY + 30}" y="{ends[name] + 4:.1f}">{escape(name)}</text>'
        )
    description = escape(_describe(curves, x_label, y_label))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curves" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-size="12.5" font-family="system-ui, sans-serif" aria-label="{description}">'
        f"<style>{STYLE}</style>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fbfcfe"/>{grid}{axis}{"".join(drawn)}'
        f'<text class="title" x="{LEFT}" y="16">{escape(y_label)}</text>'
        f'<text class="title" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">'
        f"{escape(x_label)}</text></svg>\n"
    )


def _spread(ends: Mapping[str, float]) -> dict[str, float]:
    """Heights of the names, moved apart where lines end close together."""
    placed: dict[str, float] = {}
    lowest = -math.inf
    for name, end in sorted(ends.items(), key=lambda pair: pair[1]):
        placed[name] = lowest = max(end, lowest + LABEL_GAP)
    return placed


def _describe(curves: Mapping[str, Sequence[tuple[float, float, float, float]]], x_label: str, y_label: str) -> str:
    ends = ", ".join(f"{name} from {curve[0][2]:.4f} to {curve[-1][2]:.4f}" for name, curve in curves.items())
    return f"{y_label} by {x_label}: {ends}"
