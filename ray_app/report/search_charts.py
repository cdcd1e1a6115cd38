"""Pictures of a search as inline SVG: best so far, trials as lines over their settings, importance as bars."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from ray_app.report.charts import LEFT, RIGHT, TOP, WIDTH, tick_labels, ticks
from ray_app.tune_config import Distribution
from ray_app.tuning.findings import Importance
from ray_app.tuning.space import Space
from ray_app.tuning.trials import Trial, best_of

HEIGHT, BOTTOM = 194, 36
AXIS_GAP, AXIS_HEIGHT, AXIS_TOP = 150, 210, 46
BAR_ROW = 26


def best_so_far(trials: Sequence[Trial], metric: str) -> str:
    """Each trial's score, and the best until then, against the epochs that were trained until then."""
    spent, best, dots, steps = 0, -math.inf, list[tuple[int, float]](), list[tuple[int, float]]()
    for trial in trials:
        spent += trial.spent
        if trial.score is None:
            continue
        dots.append((spent, trial.score))
        steps += [(spent, best)] if steps else []
        best = max(best, trial.score)
        steps.append((spent, best))
    if not dots:
        return ""
    marks = ticks(min(score for _, score in dots), max(score for _, score in dots), wanted=3)
    span = max(spent, 1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * point[0] / span
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - (point[1] - marks[0]) / (marks[-1] - marks[0]))

    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{told}</text>'
        for mark, told in zip(marks, tick_labels(marks), strict=True)
        for y in [place((0, mark))[1]]
    )
    numbers = "".join(
        f'<text class="tick" x="{place((mark, 0))[0]:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{mark:.0f}</text>'
        for mark in ticks(0, span)
        if mark <= span and mark == int(mark)
    )
    line = " ".join("{:.1f},{:.1f}".format(*place(step)) for step in [*steps, (span, best)])
    points = "".join('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.5"/>'.format(*place(dot)) for dot in dots)
    label = f"best {metric} of {len(dots)} trials after {spent} epochs: {best:.4f}"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'<text class="label" x="{LEFT}" y="{TOP - 8}">validation {escape(metric)}, best so far</text>{grid}'
        f'<polyline class="line" points="{line}"/>{points}{numbers}'
        f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">epochs trained</text></svg>'
    )


def parallel_coordinates(space: Space, trials: Sequence[Trial], metric: str) -> str:
    """A line for each trial through its strategy, its settings and its score; the best one stands out.

    A line passes below the axis of a setting that its strategy has no use for.
    """
    scored = [trial for trial in trials if trial.score is not None]
    best = best_of(scored)
    if best is None:
        return ""
    strategies = [name for name in space.strategies if any(trial.strategy == name for trial in scored)]
    strategies += [name for name in dict.fromkeys(trial.strategy for trial in scored) if name not in strategies]
    paths = [path for path in space.distributions if any(path in space.active(trial.strategy) for trial in scored)]
    scores = Distribution(uniform=_ends([float(trial.score or 0.0) for trial in scored]))
    axes = [("strategy", Distribution(choice=tuple(strategies)))]
    axes += [(path, space.distributions[path]) for path in paths] + [(metric, scores)]
    width = AXIS_GAP * len(axes)

    def values(trial: Trial) -> list[Any]:
        active = space.active(trial.strategy)
        inner = [trial.values.get(path, space.configured(path)) if path in active else None for path in paths]
        return [trial.strategy, *inner, trial.score]

    def line(trial: Trial) -> str:
        points = " ".join(
            f"{_axis_x(number):.1f},{_axis_y(distribution, value):.1f}"
            for number, ((_, distribution), value) in enumerate(zip(axes, values(trial), strict=True))
        )
        share = 1 - _share(scores, trial.score)
        style = 'class="line"' if trial is best else f'class="trial" opacity="{0.75 - 0.6 * share:.2f}"'
        return f'<polyline {style} points="{points}"><title>trial {trial.number}: {trial.score:.4f}</title></polyline>'

    lines = "".join(line(trial) for trial in sorted(scored, key=lambda trial: (trial is best, trial.score)))
    drawn = "".join(_axis(number, space.label(path), distribution) for number, (path, distribution) in enumerate(axes))
    label = f"{len(scored)} trials by their settings and {metric}; the best is trial {best.number}"
    return (
        f'<div class="scroll"><svg class="chart" style="min-width:{width * 0.8:.0f}px" role="img" '
        f'viewBox="0 0 {width} {AXIS_TOP + AXIS_HEIGHT + 40}" aria-label="{escape(label)}">{lines}{drawn}</svg></div>'
    )


def importance_bars(space: Space, found: Sequence[Importance]) -> str:
    """How much each setting mattered."""
    if not found:
        return ""
    rows = "".join(
        f'<text x="0" y="{row * BAR_ROW + 17}">{escape(space.label(one.path))}</text>'
        f'<rect class="mean" x="170" y="{row * BAR_ROW + 6}" width="{140 * one.share:.1f}" height="14" rx="2"/>'
        f'<text x="320" y="{row * BAR_ROW + 17}">{one.share:.0%} of {one.trials} trials</text>'
        for row, one in enumerate(found)
    )
    label = "importance: " + ", ".join(f"{space.label(one.path)} {one.share:.0%}" for one in found)
    height = len(found) * BAR_ROW + 6
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{rows}</svg>'


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _axis_x(number: int) -> float:
    return AXIS_GAP / 2 + number * AXIS_GAP


def _axis_y(distribution: Distribution, value: Any) -> float:
    if value is None and not distribution.has(None):
        return AXIS_TOP + AXIS_HEIGHT + 24
    return AXIS_TOP + AXIS_HEIGHT * (1 - _share(distribution, value))


def _share(distribution: Distribution, value: Any) -> float:
    """Place of a value between the ends of its distribution, from 0 to 1; a configured value may lie outside."""
    if distribution.kind == "choice":
        last = len(distribution.bounds) - 1
        return next((n / last for n, one in enumerate(distribution.bounds) if last and one == value), 0.5)
    low, high = distribution.bounds[:2]
    if distribution.kind == "loguniform":
        low, high, value = math.log(low), math.log(high), math.log(max(value, low / 10))
    return float(min(max((value - low) / (high - low), 0.0), 1.0))


def _axis(number: int, name: str, distribution: Distribution) -> str:
    x = _axis_x(number)
    marks = "".join(
        f'<text class="tick" x="{x + 5:.1f}" y="{_axis_y(distribution, value) + 4:.1f}">'
        f"{escape(f'{value:.3g}' if isinstance(value, float) else str(value))}</text>"
        for value in distribution.ends()
    )
    return (
        f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{AXIS_TOP}" y2="{AXIS_TOP + AXIS_HEIGHT}"/>'
        f'<text class="label" x="{x:.1f}" y="{20 + 14 * (number % 2)}" text-anchor="middle">{escape(name)}</text>'
        f"{marks}"
    )
