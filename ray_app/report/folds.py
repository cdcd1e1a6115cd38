"""The folds of a cross-validation under each other, and what they come to."""

from typing import Any

from rich.table import Table

from ray_app.report.results import COLUMNS


def folds_table(metrics: dict[str, Any]) -> Table:
    """A row for each fold; their mean and standard deviation; all that was held out, with the interval of its metric.

    Args:
        metrics: what `tasks.cross_validation.cross_validated` gave.
    """
    protocol, mean, main = metrics["protocol"], metrics["mean"], metrics["metric"]
    kind = "pictures" if "pictures" in protocol else "texts"
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
