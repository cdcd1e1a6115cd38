"""What a run shows in the terminal at its end: the results, and a few users."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ray_app.report.results import COLUMNS, best_methods
from ray_app.tasks.examples import Example

SHOWN = ("hit_rate@10", "ndcg@10", "mrr", "coverage@10")


def summary_table(metrics: dict[str, Any]) -> Table:
    """Methods by their main metrics, the best of each in bold.

    Args:
        metrics: what `tasks.ranking.evaluate` gave.
    """
    protocol = metrics["protocol"]
    seen = "excluded" if protocol["exclude_seen"] else "kept"
    caption = (
        f"{protocol['users']:,} users, {protocol['items']:,} items, full ranking, seen items {seen}; 95% intervals"
    )
    table = Table(title="Test part", caption=caption)
    table.add_column("method")
    for name in SHOWN:
        table.add_column(COLUMNS[name], justify="right")
    for method, found in metrics["metrics"].items():
        cells = [_cell(found[name], with_interval=name == "ndcg@10") for name in SHOWN]
        bold = [method in best_methods(metrics["metrics"], name) for name in SHOWN]
        cells = [f"[bold]{cell}[/]" if best else cell for cell, best in zip(cells, bold, strict=True)]
        table.add_row(Text(method), *cells)
    return table


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
