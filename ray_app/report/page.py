"""One HTML file that tells how a run went: no network, no script, readable on a phone and in the dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from importlib.resources import files
from typing import Any

from ray_app.config import Config
from ray_app.data.dataset import Manifest
from ray_app.report.charts import Record, learning_curves
from ray_app.report.results import all_metrics_table, differences_table, results_table, slice_table
from ray_app.schedule import WISE
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
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Packages, commit, date: whatever pins the run down."""


def write_report(evidence: Evidence) -> str:
    """The page as text. Everything that comes from data or configuration is escaped."""
    name = escape(evidence.config.name)
    sections = [
        _header(evidence),
        _flow(evidence.data),
        _results(evidence.metrics),
        _curves(evidence.records),
        _slices(evidence.metrics),
        _examples(evidence.examples, evidence.metrics),
        _origin(evidence),
    ]
    return html_page(f"{name}: recommender report", sections)


def html_page(title: str, sections: Sequence[str]) -> str:
    """A whole page in the style of all reports; `title` and sections are HTML."""
    style = files("ray_app.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(sections)}\n</main></body></html>\n"
    )


def _header(evidence: Evidence) -> str:
    metrics, protocol = evidence.metrics, evidence.metrics["protocol"]
    main = metrics["main"]
    ndcg = metrics["metrics"][main]["ndcg@10"]
    tiles = [
        (f"{ndcg['mean']:.4f}", f"NDCG@10 of {main}, 95% interval {ndcg['low']:.4f} to {ndcg['high']:.4f}"),
        *_leads(metrics),
        (f"{protocol['users']:,}", f"users evaluated on all {protocol['items']:,} items"),
    ]
    cards = "".join(
        f'<div class="card tile"><strong>{escape(value)}</strong><span>{escape(label)}</span></div>'
        for value, label in tiles
    )
    return (
        f'<header><p class="eyebrow">Recommender report</p><h1>{escape(evidence.config.name)}</h1>'
        f'<p class="muted">{escape(_protocol(protocol))}</p><div class="grid tiles">{cards}</div></header>'
    )


def _leads(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The main method against the best other model and the best baseline, in percent."""
    main, leads = metrics["main"], []
    for kind, words in (("model", "against"), ("baseline", "against the best baseline,")):
        others = [name for name, origin in metrics["methods"].items() if origin["kind"] == kind and name != main]
        if not others:
            continue
        best = max(others, key=lambda name: metrics["metrics"][name]["ndcg@10"]["mean"])
        theirs = metrics["metrics"][best]["ndcg@10"]["mean"]
        difference = metrics["differences"][best]["ndcg@10"]
        share = f"{difference['mean'] / theirs:+.1%}" if theirs else f"{difference['mean']:+.4f}"
        interval = f"{difference['low']:+.4f} to {difference['high']:+.4f}"
        leads.append((share, f"NDCG@10 {words} {best} ({interval})"))
    return leads


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
    boxes = "".join(
        f'<li><div class="card"><strong>{number:,}</strong><span>{escape(label)}</span></div></li>'
        for number, label in steps
    )
    reasons = "".join(
        f'<tr><th scope="row">{escape(reason)}</th><td class="number">{number:,}</td></tr>'
        for reason, number in sorted(counts.quarantined.items(), key=lambda pair: -pair[1])
    )
    table = (
        "<details><summary>What was put in quarantine, by reason</summary>"
        f'<div class="scroll"><table class="narrow"><tbody>{reasons}</tbody></table></div></details>'
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in data.notes)
    return section(
        "The data", f'<ol class="flow">{boxes}</ol>{table if reasons else ""}' + (f"<ul>{notes}</ul>" if notes else "")
    )


def _results(metrics: dict[str, Any]) -> str:
    details = f"<details><summary>All metrics at all cutoffs</summary>{all_metrics_table(metrics)}</details>"
    return section("Results", results_table(metrics) + differences_table(metrics) + details)


def _curves(records: Mapping[str, Sequence[Record]]) -> str:
    if not records:
        return ""
    cards = "".join(
        f'<figure class="card"><h3>{escape(name)}</h3>{learning_curves(name, run)}{_way_back(run)}</figure>'
        for name, run in records.items()
        if run
    )
    return section("Training", f'<div class="grid">{cards}</div>')


def _way_back(run: Sequence[Record]) -> str:
    if run[-1]["phase"] != WISE:
        return ""
    alpha = float(run[-1]["alpha"])
    return f"<p>Ends at {alpha:g} of the way from the pretrained backbone to the trained one (WiSE-FT).</p>"


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


def _origin(evidence: Evidence) -> str:
    versions = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(version))}</dd>"
        for name, version in evidence.versions.items()
        if version is not None
    )
    methods = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(origin['fitted_on'])}"
        + (f"<br><span class='muted'>{escape(origin['checkpoint'])}</span>" if "checkpoint" in origin else "")
        + "</dd>"
        for name, origin in evidence.metrics["methods"].items()
    )
    return section(
        "How it was made",
        f"<details><summary>What each method was fitted on</summary><dl>{methods}</dl></details>"
        f"<details><summary>Configuration</summary><pre>{escape(evidence.config.to_yaml())}</pre></details>"
        f"<details><summary>Versions</summary><dl>{versions}</dl></details>",
    )


def section(title: str, body: str) -> str:
    """A part of a page under its heading."""
    return f"<section><h2>{title}</h2>{body}</section>"


def _date(us: int) -> str:
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us):%Y-%m-%d %H:%M}"
