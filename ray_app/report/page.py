"""One HTML file that tells how a run went: no network, no script, readable on a phone and in the dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

from ray_app.config import Config
from ray_app.data.dataset import Manifest
from ray_app.report.charts import Record
from ray_app.report.data_curve import data_curve_section
from ray_app.report.parts import curves, flow, header, html_page, lead_tiles, main_tile, origin, section
from ray_app.report.results import all_metrics_table, differences_table, results_table, slice_table
from ray_app.tasks.examples import Example


@dataclass(frozen=True)
class Evidence:
    """All that a report tells of."""

    config: Config
    data: Manifest
    """Of the target's dataset."""
    metrics: dict[str, Any]
    """What `tasks.ranking.evaluate` gave."""
    records: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    """Name of each training run -> one record per epoch."""
    examples: Sequence[Example] = ()
    curve: dict[str, Any] | None = None
    """What `tasks.data_curve.data_curve` gave, where it was asked for."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Packages, commit, date: whatever pins the run down."""


def write_report(evidence: Evidence) -> str:
    """The page as text. Everything that comes from data or configuration is escaped."""
    config, metrics = evidence.config, evidence.metrics
    protocol = metrics["protocol"]
    users = (f"{protocol['users']:,}", f"users evaluated on all {protocol['items']:,} items")
    tiles = [main_tile(metrics), *lead_tiles(metrics), users]
    sections = [
        header("Recommender report", config.name, _protocol(protocol), tiles),
        _flow(evidence.data),
        _results(metrics),
        curves(evidence.records, metrics["metric"]),
        *([data_curve_section(evidence.curve)] if evidence.curve is not None else []),
        _slices(metrics),
        _examples(evidence.examples, metrics),
        origin(metrics, config.to_yaml(), evidence.versions),
    ]
    return html_page(f"{escape(config.name)}: recommender report", sections)


def _protocol(protocol: dict[str, Any]) -> str:
    split = {"temporal": "Temporal split", "leave_one_out": "Leave-one-out split"}[protocol["split"]]
    cutoffs = [_date(us) for us in protocol["cutoffs"].values() if us is not None]
    dates = f" (validation from {cutoffs[0]}, test from {cutoffs[1]}, UTC)" if len(cutoffs) == 2 else ""
    seen = "are taken out of" if protocol["exclude_seen"] else "stay in"
    unknown = protocol["unknown_targets"]
    return (
        f"{split}{dates}. Question: {protocol['question']}. Every item of the catalogue is ranked; items that the user "
        f"already had {seen} the ranking. {protocol['targets']:,} items to find"
        + (f", {unknown:,} of them outside the vocabulary, which count as misses." if unknown else ".")
    )


def _flow(data: Manifest) -> str:
    counts = data.counts
    steps = [
        (counts.rows_in, f"rows read from {len(data.sources)} file{'s' if len(data.sources) != 1 else ''}"),
        (counts.rows_kept, f"kept, {counts.rows_quarantined:,} in quarantine"),
        (counts.users, f"users, {counts.items:,} items"),
        (
            counts.train_events + counts.validation_events + counts.test_events,
            f"events: {counts.train_events:,} to train, {counts.validation_events:,} to validate, "
            f"{counts.test_events:,} to test",
        ),
    ]
    return flow(steps, counts.quarantined, data.notes)


def _results(metrics: dict[str, Any]) -> str:
    details = f"<details><summary>All metrics at all cutoffs</summary>{all_metrics_table(metrics)}</details>"
    return section("Results", results_table(metrics) + differences_table(metrics) + details)


def _slices(metrics: dict[str, Any]) -> str:
    users = slice_table(metrics, "history", "NDCG@10 by number of events in the user's history", "users")
    items = slice_table(
        metrics, "train_count", "NDCG@10 by how often the item to find was bought in the train part", "targets"
    )
    return section("Where it works", users + items)


def _examples(examples: Sequence[Example], metrics: dict[str, Any]) -> str:
    if not examples:
        return ""
    cards = "".join(_example(example) for example in examples)
    text = (
        f"<p>Users drawn at random, not chosen. Recommended by {escape(metrics['main'])} from what was known before "
        "the test part; a check marks what the user then bought.</p>"
    )
    return section("Recommendations", f'{text}<div class="grid">{cards}</div>')


def _example(example: Example) -> str:
    recommended = "".join(
        f'<li class="found">✓ {escape(name)}</li>' if found else f"<li>{escape(name)}</li>"
        for name, found in zip(example.recommended, example.found, strict=True)
    )
    bought = "".join(f"<li>{escape(name)}</li>" for name in example.bought) or "<li>nothing yet</li>"
    following = "".join(f"<li>{escape(name)}</li>" for name in example.bought_next)
    return (
        f'<article class="card example"><h3>User {escape(example.user)}</h3>'
        f"<h4>Bought, latest first</h4><ul>{bought}</ul>"
        f"<h4>Recommended</h4><ol>{recommended}</ol>"
        f"<h4>Bought next</h4><ul>{following}</ul></article>"
    )


def _date(us: int) -> str:
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us):%Y-%m-%d %H:%M}"
