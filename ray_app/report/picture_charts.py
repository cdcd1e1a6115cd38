"""Inline SVG about a classifier: how sure it is against how right, and which classes it takes for which."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from ray_app.data.picture_set import Kind

WIDTH, LEFT, RIGHT, TOP = 420, 46, 24, 26
SQUARE = WIDTH - LEFT - RIGHT
COUNTS_HEIGHT, COUNTS_GAP = 60, 44
CELL, MAX_NAMED, NAME_WIDTH, NUMBER_WIDTH = 14, 30, 150, 44
"""Names stand at a matrix of up to so many classes; of larger ones, the numbers of the list beside it."""


def calibration_diagram(title: str, bins: dict[str, list[float]], kind: Kind = "pictures") -> str:
    """Accuracy over confidence, bin by bin (on the diagonal: as sure as right), above the number of answers."""
    filled = [
        (confidence, accuracy, pictures)
        for confidence, accuracy, pictures in zip(bins["confidence"], bins["accuracy"], bins["pictures"], strict=True)
        if pictures
    ]
    width = SQUARE / len(bins["pictures"])
    most = max((pictures for *_, pictures in filled), default=1)
    bottom = TOP + SQUARE
    floor = bottom + COUNTS_GAP + COUNTS_HEIGHT
    marks = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{LEFT + SQUARE}" y1="{_y(share):.1f}" y2="{_y(share):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{_y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        f'<text class="tick" x="{LEFT + SQUARE * share:.1f}" y="{bottom + 16}" text-anchor="middle">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    points = " ".join(f"{LEFT + SQUARE * sure:.1f},{_y(right):.1f}" for sure, right, _ in filled)
    dots = "".join(
        f'<circle class="dot" cx="{LEFT + SQUARE * sure:.1f}" cy="{_y(right):.1f}" '
        f'r="{2.5 + 5 * math.sqrt(pictures / most):.1f}"><title>{pictures:,.0f} {kind}: {sure:.0%} sure, '
        f"{right:.0%} right</title></circle>"
        for sure, right, pictures in filled
    )
    bars = "".join(
        f'<rect class="mean" x="{LEFT + number * width + 1:.1f}" y="{floor - COUNTS_HEIGHT * pictures / most:.1f}" '
        f'width="{width - 2:.1f}" height="{COUNTS_HEIGHT * pictures / most:.1f}"/>'
        for number, pictures in enumerate(bins["pictures"])
    )
    said = "; ".join(f"{sure:.0%} sure: {right:.0%} right" for sure, right, _ in filled)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {floor + 8}" role="img" aria-label="{escape(f"{title}: {said}")}">'
        f'<text class="label" x="{LEFT}" y="{TOP - 8}">right, by how sure</text>{marks}'
        f'<line class="phase" x1="{LEFT}" y1="{bottom}" x2="{LEFT + SQUARE}" y2="{TOP}"/>'
        f'<polyline class="line" points="{points}"/>{dots}'
        f'<text class="label" x="{LEFT}" y="{floor - COUNTS_HEIGHT - 8}">{kind} (at most {most:,.0f})</text>{bars}'
        f'<line class="axis" x1="{LEFT}" x2="{LEFT + SQUARE}" y1="{floor}" y2="{floor}"/></svg>'
    )


def _y(share: float) -> float:
    return TOP + SQUARE * (1 - share)


def confusion_map(results: dict[str, Any], order: Sequence[int], breaks: Sequence[int], kind: Kind = "pictures") -> str:
    """Labels by answers, each row's shares as shades: what is right on the diagonal, what is wrong in another color.

    Args:
        results: the evaluation; `confusion` lists label, answer, count.
        order: classes from the top and from the left, those alike side by side.
        breaks: where in this order a group ends.
        kind: what has the labels.
    """
    classes = results["classes"]
    place, size = {number: k for k, number in enumerate(order)}, len(order)
    named = size <= MAX_NAMED
    margin = NAME_WIDTH if named else NUMBER_WIDTH
    cells = "".join(
        _cell(place[label], place[said], count / classes[label]["test"], margin, label == said)
        + f"<title>{escape(classes[label]['name'])} taken for {escape(classes[said]['name'])}: {count}</title></rect>"
        for label, said, count in results["confusion"]
    )
    side = CELL * size
    lines = "".join(
        f'<path class="group" d="M{margin} {margin + CELL * at}h{side}M{margin + CELL * at} {margin}v{side}"/>'
        for at in breaks
    )
    titles = "".join(
        _title(number if named else k + 1, k, classes[number]["name"], margin, named) for k, number in enumerate(order)
    )
    right = sum(count for label, said, count in results["confusion"] if label == said)
    total = sum(count for *_, count in results["confusion"])
    whole = side + margin + 2
    return (
        f'<svg class="heat" viewBox="0 0 {whole} {whole}" role="img" '
        f'aria-label="Labels by answers: {right:,} of {total:,} {kind} on the diagonal">'
        f'<rect class="field" x="{margin}" y="{margin}" width="{side}" height="{side}"/>{lines}{cells}{titles}</svg>'
    )


def _cell(row: int, column: int, share: float, margin: int, is_right: bool) -> str:
    shade = 0.12 + 0.88 * math.sqrt(share)
    return (
        f'<rect class="{"right" if is_right else "wrong"}" x="{margin + CELL * column}" y="{margin + CELL * row}" '
        f'width="{CELL}" height="{CELL}" opacity="{shade:.2f}">'
    )


def _title(number: int, place: int, name: str, margin: int, named: bool) -> str:
    """A class at both edges: its name, or every fifth number."""
    middle = margin + CELL * place + CELL * 0.72
    if not named:
        if number % 5 and number != 1:
            return ""
        center = margin + CELL * (place + 0.5)
        return (
            f'<text class="number" x="{margin - 6}" y="{middle + 3:.1f}" text-anchor="end">{number}</text>'
            f'<text class="number" x="{center:.1f}" y="{margin - 8}" text-anchor="middle">{number}</text>'
        )
    shown = escape(name if len(name) <= 20 else f"{name[:19]}…")
    across = f"translate({middle:.1f} {margin - 5}) rotate(-90)"
    return (
        f'<text x="{margin - 5}" y="{middle:.1f}" text-anchor="end">{shown}</text>'
        f'<text transform="{across}">{shown}</text>'
    )
