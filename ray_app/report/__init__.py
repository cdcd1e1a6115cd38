"""What a run leaves for a person: one HTML file, and a table in the terminal."""

from ray_app.report.page import Evidence, write_report
from ray_app.report.search import trials_table, winning_config, write_search
from ray_app.report.terminal import examples_table, summary_table, sweep_table

__all__ = [
    "Evidence",
    "examples_table",
    "summary_table",
    "sweep_table",
    "trials_table",
    "winning_config",
    "write_report",
    "write_search",
]
