"""Candidate backbones side by side, and which of them to take."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from ray_app.content.candidates import Judgement
from ray_app.picture_config import Candidate

_BYTES = 4
"""Of a parameter."""


def candidates_table(judged: Mapping[Candidate, Judgement]) -> Table:
    """The likeliest to transfer first."""
    caption = "kNN: right on validation; ms: of a picture through the backbone; MB: its parameters in 32 bits"
    table = Table(title="Candidates", caption=caption)
    table.add_column("backbone", overflow="fold")
    for title in ("LogME", "H-score", "kNN", "ms", "MB", "features"):
        table.add_column(title, justify="right")
    for number, candidate in enumerate(ranked(judged)):
        one = judged[candidate]
        cells = [f"{one.logme:.4f}", f"{one.h_score:.2f}", f"{one.knn:.1%}", f"{1000 * one.picture_s:.1f}"]
        cells += [f"{_BYTES * one.num_parameters / 1e6:.1f}", f"{one.dim:,}"]
        table.add_row(Text(f"{candidate.backbone}\n  {candidate.weights}"), *cells, style=None if number else "bold")
    return table


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
