"""Candidate backbones side by side, which of them to take, and whether those that were trained agree."""

from collections.abc import Mapping
from html import escape
from itertools import combinations

from rich.table import Table
from rich.text import Text

from ray_app.content.candidates import Judgement
from ray_app.picture_config import Candidate
from ray_app.report.parts import section
from ray_app.report.results import html_table

_COLUMNS, _OUTCOME = ("LogME", "H-score", "kNN", "ms", "MB", "features"), "fine-tuned"
_UNTRAINED = '<td class="number">&ndash;</td>'
_BYTES = 4
"""Of a parameter."""


def candidates_table(judged: Mapping[Candidate, Judgement], outcomes: Mapping[Candidate, float]) -> Table:
    """The likeliest to transfer first; `outcomes` are those that were fine-tuned, on the test part."""
    caption = "kNN: right on validation; ms: of a picture through the backbone; MB: its parameters in 32 bits"
    table = Table(title="Candidates", caption=caption)
    table.add_column("backbone", overflow="fold")
    for title in (*_COLUMNS, *([_OUTCOME] if outcomes else [])):
        table.add_column(title, justify="right")
    for number, candidate in enumerate(ranked(judged)):
        cells = _cells(judged[candidate], outcomes.get(candidate) if outcomes else None)
        table.add_row(Text(f"{candidate.backbone}\n  {candidate.weights}"), *cells, style=None if number else "bold")
    return table


def candidates_section(judged: Mapping[Candidate, Judgement], outcomes: Mapping[Candidate, float]) -> str:
    """The same table in HTML, with how often the order by LogME is that of the outcomes."""
    rows = []
    for candidate in ranked(judged):
        cells = "".join(
            f'<td class="number">{cell}</td>' for cell in _cells(judged[candidate], outcomes.get(candidate))
        )
        name = f"{escape(candidate.backbone)}<small>{escape(candidate.weights)}</small>"
        rows.append(f'<tr><th scope="row">{name}</th>{cells}{"" if candidate in outcomes else _UNTRAINED}</tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Backbone", *_COLUMNS, _OUTCOME))
    table = html_table("Candidates, the greatest LogME first", head, rows)
    return section("Backbones to choose from", f"<p>{escape(agreement(judged, outcomes))}</p>{table}")


def agreement(judged: Mapping[Candidate, Judgement], outcomes: Mapping[Candidate, float]) -> str:
    """In words: how many pairs of trained candidates LogME, H-score and nearest neighbors have in the right order."""
    pairs = [
        (one, other) for one, other in combinations(ranked(judged), 2) if {one, other} <= outcomes.keys()
        and outcomes[one] != outcomes[other]
    ]  # fmt: skip
    if not pairs:
        return "Judged by frozen features alone; what came of them is told once two of them were fine-tuned."
    right = {
        title: sum(
            (getattr(judged[one], name) - getattr(judged[other], name)) * (outcomes[one] - outcomes[other]) > 0
            for one, other in pairs
        )
        for title, name in {"LogME": "logme", "H-score": "h_score", "kNN": "knn"}.items()
    }
    told = ", ".join(f"{title} {number}" for title, number in right.items())
    return f"Pairs of which both were fine-tuned: {len(pairs)}; in the right order by {told}."


def _cells(one: Judgement, outcome: float | None) -> list[str]:
    cells = [f"{one.logme:.4f}", f"{one.h_score:.2f}", f"{one.knn:.1%}", f"{1000 * one.picture_s:.1f}"]
    cells += [f"{_BYTES * one.num_parameters / 1e6:.1f}", f"{one.dim:,}"]
    return cells if outcome is None else [*cells, f"{outcome:.1%}"]


def ranked(judged: Mapping[Candidate, Judgement]) -> list[Candidate]:
    """The greatest LogME first."""
    return sorted(judged, key=lambda candidate: -judged[candidate].logme)


def advice(judged: Mapping[Candidate, Judgement]) -> str:
    """Which to take, as settings of a job, and whether the neighbors agree."""
    best = ranked(judged)[0]
    told = f"take classifier.backbone={best.backbone} classifier.weights={best.weights}"
    rival = max(judged, key=lambda candidate: judged[candidate].knn)
    if judged[rival].knn > judged[best].knn:
        told += f"\nnote: {rival.backbone} is ahead by nearest neighbors: train both before you settle"
    return told
