"""What a run shows in the terminal at its end: the results, and a few users."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ray_app.report.results import COLUMNS, best_methods
from ray_app.schedule import Phase
from ray_app.tasks.examples import Example
from ray_app.training.rate_finder import Sweep

ROWS, BAR = 16, 40
"""Of the chart of a sweep."""
SHOWN = ("hit_rate@10", "ndcg@10", "mrr", "coverage@10", "top1", "top5", "macro_recall", "group", "ece")
SHORT = {"macro_recall": "Macro recall", "group": "Group", "ece": "ECE"}
"""Where `COLUMNS` has so many words that an interval would not find room in 80 columns."""


def summary_table(metrics: dict[str, Any]) -> Table:
    """Methods by their main metrics, the best of each in bold.

    Args:
        metrics: what `tasks.ranking.evaluate` or `tasks.classification.evaluate_pictures` gave.
    """
    table = Table(title="Test part", caption=f"{_asked(metrics['protocol'])}; 95% intervals")
    table.add_column("method", overflow="fold")
    shown = [name for name in SHOWN if all(name in found for found in metrics["metrics"].values())]
    for name in shown:
        table.add_column(SHORT.get(name, COLUMNS[name]), justify="right", overflow="fold")
    for method, found in metrics["metrics"].items():
        cells = [_cell(found[name], with_interval=name == metrics["metric"]) for name in shown]
        bold = [method in best_methods(metrics["metrics"], name) for name in shown]
        cells = [f"[bold]{cell}[/]" if best else cell for cell, best in zip(cells, bold, strict=True)]
        table.add_row(Text(method), *cells)
    return table


def _asked(protocol: dict[str, Any]) -> str:
    if "classes" in protocol:
        kind = "pictures" if "pictures" in protocol else "texts"
        return f"{protocol[kind]:,} {kind} of {protocol['classes']:,} classes"
    seen = "excluded" if protocol["exclude_seen"] else "kept"
    return f"{protocol['users']:,} users, {protocol['items']:,} items, full ranking, seen items {seen}"


def _cell(estimate: dict[str, float], with_interval: bool) -> str:
    ends = f" ({estimate['low']:.4f}-{estimate['high']:.4f})" if with_interval else ""
    return f"{estimate['mean']:.4f}{ends}"


def examples_table(examples: Sequence[Example]) -> Table:
    """A few users: what they bought last, and what is recommended, marked where it is what they bought next."""
    table = Table(title="Some users", caption="✓ bought next", show_lines=True)
    for title in ("user", "bought, latest first", "recommended"):
        table.add_column(title)
    for example in examples:
        marked = [
            f"{'✓' if found else '·'} {name}" for name, found in zip(example.recommended, example.found, strict=True)
        ]
        table.add_row(Text(example.user), Text("\n".join(example.bought)), Text("\n".join(marked)))
    return table


def sweep_table(phase: Phase, sweep: Sweep) -> Table:
    """The loss at rates between far too small and far too great, as bars, and the rates that it suggests."""
    caption = f"fastest fall at {sweep.steepest:.1e}, a tenth of the least loss's {sweep.lowest:.1e}"
    table = Table(title=f"{phase.name}: loss by learning rate (now {phase.learning_rate:g})", caption=caption)
    table.add_column("rate", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("")
    low, high = min(sweep.losses), max(sweep.losses)
    for number in sorted({round(n * (len(sweep.rates) - 1) / (ROWS - 1)) for n in range(ROWS)}):
        share = (sweep.losses[number] - low) / (high - low) if high > low else 0.0
        table.add_row(f"{sweep.rates[number]:.1e}", f"{sweep.losses[number]:.4f}", "█" * round(1 + share * (BAR - 1)))
    return table
