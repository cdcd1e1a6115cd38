"""Inline SVG, colored by the page's own style: learning curves, and intervals as bars."""

import math
from collections.abc import Sequence
from html import escape
from itertools import count

Record = dict[str, float | str]
Point = tuple[float, float]

WIDTH, LEFT, RIGHT = 420, 60, 10
PANEL_HEIGHT, PANEL_GAP, TOP, BOTTOM = 112, 30, 26, 34


def learning_curves(title: str, records: Sequence[Record], metric: str = "ndcg@10") -> str:
    """Validation metric above training loss, epoch by epoch, with a line where each phase begins.

    Epochs are counted through all phases; a record of epoch 0 is a look at the model before or after training.
    """
    epochs = _epochs(records)
    panels = [
        (f"validation {metric}", _points(epochs, records, f"val/{metric}")),
        ("training loss", _points(epochs, records, "train/loss")),
    ]
    drawn, y = [], TOP
    for name, points in panels:
        drawn.append(_panel(name, points, max(epochs, default=1), y, mark_best=name.startswith("validation")))
        y += PANEL_HEIGHT + PANEL_GAP
    height = y - PANEL_GAP + BOTTOM
    phases = _phases(epochs, records, height - BOTTOM)
    axis = _epoch_axis(max(epochs, default=1), height)
    description = escape(_describe(title, metric, panels[0][1], len(records)))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{description}">'
        f"{phases}{''.join(drawn)}{axis}</svg>"
    )


def interval_bar(estimate: dict[str, float], upper: float) -> str:
    """A mean as a bar with its interval on it, on a scale from 0 to `upper`; the numbers stand beside it."""
    low, mean, high = (100 * estimate[end] / upper if upper else 0.0 for end in ("low", "mean", "high"))
    return (
        '<svg class="bar" viewBox="0 0 102 12" aria-hidden="true">'
        f'<rect class="mean" x="0" y="2" width="{mean:.1f}" height="8" rx="1"/>'
        f'<path class="interval" d="M{low:.1f} 6H{high:.1f}M{low:.1f} 3V9M{high:.1f} 3V9"/></svg>'
    )


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers that cover `low` to `high`, about `wanted` of them."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / wanted
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * factor for factor in (1, 2, 2.5, 5, 10) if base * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def tick_labels(marks: Sequence[float]) -> list[str]:
    """Evenly spaced marks with as many decimals as tell them apart, the same for all."""
    step = marks[1] - marks[0]
    digits = next(n for n in count() if abs(round(step, n) - step) < step / 1000)
    return [f"{mark:,.{digits}f}" for mark in marks]


def _epochs(records: Sequence[Record]) -> list[int]:
    """The place of each record on the axis of all epochs."""
    places: list[int] = []
    for record in records:
        is_look = int(record["epoch"]) == 0
        places.append((places[-1] if places else 0) + (0 if is_look else 1))
    return places


def _points(epochs: Sequence[int], records: Sequence[Record], key: str) -> list[Point]:
    return [(epoch, float(record[key])) for epoch, record in zip(epochs, records, strict=True) if key in record]


def _panel(name: str, points: list[Point], last_epoch: int, top: int, *, mark_best: bool) -> str:
    label = f'<text class="label" x="{LEFT}" y="{top - 8}">{escape(name)}</text>'
    if not points:
        return label
    values = [value for _, value in points]
    marks = ticks(min(values), max(values), wanted=3)

    def y(value: float) -> float:
        return top + PANEL_HEIGHT * (1 - (value - marks[0]) / (marks[-1] - marks[0]))

    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{told}</text>'
        for mark, told in zip(marks, tick_labels(marks), strict=True)
    )
    path = " ".join(f"{_x(epoch, last_epoch):.1f},{y(value):.1f}" for epoch, value in points)
    line = f'<polyline class="line" points="{path}"/>'
    if len(points) == 1:
        line = f'<circle class="dot" cx="{_x(points[0][0], last_epoch):.1f}" cy="{y(values[0]):.1f}" r="3"/>'
    if not mark_best:
        return label + grid + line
    epoch, value = max(points, key=lambda point: point[1])
    best = (
        f'<circle class="dot" cx="{_x(epoch, last_epoch):.1f}" cy="{y(value):.1f}" r="4"/>'
        f'<text class="best" x="{WIDTH - RIGHT}" y="{top - 8}" text-anchor="end">best {value:.4f}</text>'
    )
    return label + grid + line + best


def _phases(epochs: Sequence[int], records: Sequence[Record], bottom: float) -> str:
    """A dashed line and a name where each phase begins; none for a run of one phase."""
    trained = [(epoch, str(record["phase"])) for epoch, record in zip(epochs, records, strict=True) if record["epoch"]]
    starts = [(epoch - 1, name) for n, (epoch, name) in enumerate(trained) if n == 0 or trained[n - 1][1] != name]
    if len(starts) < 2:
        return ""
    last = max(epochs)
    drawn = []
    for start, name in starts:
        x = _x(start, last)
        if start:
            drawn.append(f'<line class="phase" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{bottom}"/>')
        y = bottom - PANEL_HEIGHT + 12
        drawn.append(f'<text class="phase-name" x="{x + 4:.1f}" y="{y}">{escape(name)}</text>')
    return "".join(drawn)


def _epoch_axis(last_epoch: int, height: int) -> str:
    marks = [mark for mark in ticks(0, last_epoch) if mark <= last_epoch and mark == int(mark)]
    numbers = "".join(
        f'<text class="tick" x="{_x(mark, last_epoch):.1f}" y="{height - 16}" text-anchor="middle">{mark:.0f}</text>'
        for mark in marks
    )
    return numbers + f'<text class="tick" x="{WIDTH - RIGHT}" y="{height - 4}" text-anchor="end">epoch</text>'


def _x(epoch: float, last_epoch: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * epoch / max(last_epoch, 1)


def _describe(title: str, metric: str, points: list[Point], num_records: int) -> str:
    if not points:
        return f"{title}: training loss over {num_records} epochs"
    best = max(value for _, value in points)
    return f"{title}: validation {metric} went from {points[0][1]:.4f} to {points[-1][1]:.4f}, best {best:.4f}"
