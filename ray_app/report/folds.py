"""The folds of a cross-validation under each other, and what they come to."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rich.table import Table

from ray_app.config import Config
from ray_app.report.charts import Record
from ray_app.report.parts import curves, header, html_page, origin, section
from ray_app.report.results import COLUMNS, html_table, name_of


def folds_table(metrics: dict[str, Any]) -> Table:
    """A row for each fold; their mean and standard deviation; all that was held out, with the interval of its metric.

    Args:
        metrics: what `tasks.cross_validation.cross_validated` gave.
    """
    protocol, mean, main = metrics["protocol"], metrics["mean"], metrics["metric"]
    kind = _kind(metrics)
    caption = f"{protocol['kind']}; {protocol[kind]:,} {kind} held out once; ±: standard deviation over folds"
    table = Table(title="Cross-validation", caption=caption)
    for title in ("fold", "trained on", "held out", *(COLUMNS[name] for name in mean)):
        table.add_column(title, justify="right")
    for fold in metrics["folds"]:
        sizes = (f"{fold[name]:,}" for name in ("train", "held_out"))
        table.add_row(str(fold["fold"]), *sizes, *(f"{value:.4f}" for value in fold["metrics"].values()))
    table.add_section()
    table.add_row("mean", "", "", *(f"{mean[name]:.4f} ± {metrics['std'][name]:.4f}" for name in mean))
    pooled = metrics["pooled"]
    ends = dict.fromkeys(mean, "") | {main: f" ({pooled[main]['low']:.4f}-{pooled[main]['high']:.4f})"}
    table.add_row("together", "", f"{protocol[kind]:,}", *(f"{pooled[name]['mean']:.4f}{ends[name]}" for name in mean))
    return table


def folds_report(
    metrics: dict[str, Any],
    config: Config,
    records: Mapping[str, Sequence[Record]],
    versions: Mapping[str, str | None],
) -> str:
    """The same as a page, with the training of each fold.

    Args:
        metrics: as `folds_table`.
        config: the configuration of all folds.
        records: name of each fold -> one record per epoch.
        versions: packages, commit: whatever pins the run down.
    """
    protocol, main, pooled = metrics["protocol"], metrics["metric"], metrics["pooled"]
    kind = _kind(metrics)
    interval = f"{pooled[main]['low']:.4f} to {pooled[main]['high']:.4f}"
    spread = f"{name_of(main)}, mean of {len(metrics['folds'])} folds; standard deviation {metrics['std'][main]:.4f}"
    tiles = [
        (f"{metrics['mean'][main]:.4f}", spread),
        (f"{pooled[main]['mean']:.4f}", f"{name_of(main)} of all that was held out; 95% interval {interval}"),
        (f"{protocol[kind]:,}", f"{kind} of {protocol['classes']:,} classes, each held out once ({protocol['kind']})"),
    ]
    notes = "".join(f"<li>{escape(note)}</li>" for note in metrics["notes"])
    text = (
        "<p>The mean over folds says how well such a model does, its deviation how much that depends on what it "
        "happened to learn from. The interval of all together takes the models as they are.</p>"
    )
    made = {
        f"fold {fold['fold']}": {"fitted_on": "all other folds", "checkpoint": fold["model"]}
        for fold in metrics["folds"]
    }
    sections = [
        header("Cross-validation report", config.name, f"Question: {protocol['question']}.", tiles),
        section("Folds", f"{text}{_table(metrics)}" + (f"<ul>{notes}</ul>" if notes else "")),
        curves(records, main),
        origin({"methods": made}, config.to_yaml(), versions),
    ]
    return html_page(f"{escape(config.name)}: cross-validation report", sections)


def _table(metrics: dict[str, Any]) -> str:
    names, pooled = list(metrics["mean"]), metrics["pooled"]
    rows = []
    for fold in metrics["folds"]:
        values = [f"{fold['train']:,}", f"{fold['held_out']:,}", *(f"{fold['metrics'][name]:.4f}" for name in names)]
        rows.append(_row(f"{fold['fold']}", values))
    spread = [f"{metrics['mean'][name]:.4f}<small>± {metrics['std'][name]:.4f}</small>" for name in names]
    rows.append(_row("mean and standard deviation", ["", "", *spread]))
    together = [f"{pooled[name]['mean']:.4f}{_ends(pooled[name])}" for name in names]
    held_out = f"{metrics['protocol'][_kind(metrics)]:,}"
    rows.append(_row("together", ["", held_out, *together], "main"))
    titles = ("Fold", "trained on", "held out", *(COLUMNS[name] for name in names))
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    return html_table("Each fold told by a model of the others", head, rows)


def _row(name: str, cells: Sequence[str], style: str = "") -> str:
    told = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr class="{style}"><th scope="row">{name}</th>{told}</tr>'


def _ends(estimate: dict[str, float]) -> str:
    return f"<small>{estimate['low']:.4f}&ndash;{estimate['high']:.4f}</small>" if "low" in estimate else ""


def _kind(metrics: dict[str, Any]) -> str:
    return "pictures" if "pictures" in metrics["protocol"] else "texts"
