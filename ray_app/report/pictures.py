"""The page about a classifier: what it read, how right it is, where it errs, and pictures or texts to look at."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ray_app.config import Config
from ray_app.content.candidates import Judgement
from ray_app.data.picture_set import Kind, PictureManifest
from ray_app.picture_config import Candidate
from ray_app.report.candidates import candidates_section
from ray_app.report.charts import Record, interval_bar
from ray_app.report.parts import curves, flow, header, html_page, lead_tiles, main_tile, origin, section
from ray_app.report.picture_charts import calibration_diagram, confusion_map
from ray_app.report.results import all_metrics_table, differences_table, html_table, results_table
from ray_app.tasks.picture_examples import PictureExample, PictureExamples

MOST_CONFUSED, WEAKEST = 15, 10
"""Rows that are shown at once."""


@dataclass(frozen=True)
class PictureEvidence:
    """All that a report of a classifier tells of."""

    config: Config
    data: PictureManifest
    metrics: dict[str, Any]
    """What `tasks.classification.evaluate_pictures` gave."""
    examples: PictureExamples
    records: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    """Name of each training run -> one record per epoch."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    judged: Mapping[Candidate, Judgement] = field(default_factory=dict)
    """Backbones to choose from, by what their frozen features tell."""
    outcomes: Mapping[Candidate, float] = field(default_factory=dict)
    """Of those of them that were fine-tuned: the metric on the test part."""


def write_picture_report(evidence: PictureEvidence) -> str:
    """The page as text. Everything that comes from data or configuration is escaped."""
    config, metrics = evidence.config, evidence.metrics
    protocol = metrics["protocol"]
    kind = evidence.data.kind
    asked = (f"{protocol[kind]:,}", f"test {kind} of {protocol['classes']:,} classes")
    tiles = [main_tile(metrics), *lead_tiles(metrics), asked]
    details = f"<details><summary>All metrics</summary>{all_metrics_table(metrics)}</details>"
    sections = [
        header("Classifier report", config.name, f"Question: {protocol['question']}.", tiles),
        _flow(evidence.data),
        section("Results", results_table(metrics) + differences_table(metrics) + details),
        curves(evidence.records, metrics["metric"]),
        _calibration(metrics, kind),
        _classes(metrics, evidence.data),
        candidates_section(evidence.judged, evidence.outcomes) if evidence.judged else "",
        _examples(evidence.examples, kind),
        origin(metrics, config.to_yaml(), evidence.versions),
    ]
    return html_page(f"{escape(config.name)}: classifier report", sections)


def _flow(data: PictureManifest) -> str:
    counts, files = data.counts, sum(1 for _ in data.sources)
    kept = counts.train + counts.validation + counts.test
    groups = f" in {len(data.groups):,} groups" if data.groups else ""
    steps = [
        (counts.pictures_in, f"{data.kind} from {files:,} source{'s' if files != 1 else ''}"),
        (kept, f"kept, {sum(counts.quarantined.values()):,} in quarantine"),
        (len(data.classes), f"classes{groups}"),
        (counts.train, f"to train, {counts.validation:,} to validate, {counts.test:,} to test"),
    ]
    return flow(steps, counts.quarantined, data.notes)


def _calibration(metrics: dict[str, Any], kind: Kind) -> str:
    cards = "".join(
        f'<figure class="card"><h3>{escape(method)}</h3>{calibration_diagram(method, bins, kind)}</figure>'
        for method, bins in metrics["reliability"].items()
        if metrics["methods"][method]["kind"] == "model"
    )
    text = (
        f"<p>Each dot is a bin of {kind} of which the method is about equally sure. On the dashed line it is as often "
        "right as it says; below, it is too sure of itself.</p>"
    )
    return section("How far to trust a probability", f'{text}<div class="grid">{cards}</div>') if cards else ""


def _classes(metrics: dict[str, Any], data: PictureManifest) -> str:
    order, breaks = _order(data)
    text = (
        "<p>A row for each label, a column for each answer; the darker, the larger the share of the label's "
        f"{data.kind}. "
        f"{'Groups of classes stand together. ' if breaks else ''}Point at a cell to read it.</p>"
    )
    return section(
        "Where it errs",
        f'{text}<figure class="card">{confusion_map(metrics, order, breaks, data.kind)}</figure>'
        + _confused(metrics, data.kind)
        + _recalls(metrics, order, data.kind),
    )


def _order(data: PictureManifest) -> tuple[list[int], list[int]]:
    """Classes by group and name, and where groups of several classes begin and end."""
    if data.group_of_class is None:
        return list(range(len(data.classes))), []
    group = data.group_of_class
    order = sorted(range(len(data.classes)), key=lambda number: (group[number], number))
    sizes = [group.count(group[number]) for number in order]
    breaks = [
        k for k in range(1, len(order)) if group[order[k]] != group[order[k - 1]] and max(sizes[k - 1 : k + 1]) > 1
    ]
    return order, breaks


def _confused(metrics: dict[str, Any], kind: Kind) -> str:
    classes = metrics["classes"]
    wrong = sorted((pair for pair in metrics["confusion"] if pair[0] != pair[1]), key=lambda pair: (-pair[2], pair))
    rows = [
        f'<tr><th scope="row">{escape(classes[label]["name"])}</th><td>{escape(classes[said]["name"])}</td>'
        f'<td class="number">{count} of {classes[label]["test"]}</td></tr>'
        for label, said, count in wrong[:MOST_CONFUSED]
    ]
    head = f'<th scope="col">Label</th><th scope="col" class="text">taken for</th><th scope="col">{kind}</th>'
    caption = f"Most often confused by {escape(metrics['main'])}"
    return html_table(caption, head, rows) if rows else "<p>Nothing is confused.</p>"


def _recalls(metrics: dict[str, Any], order: Sequence[int], kind: Kind) -> str:
    numbered = [(k + 1, metrics["classes"][number]) for k, number in enumerate(order)]
    tested = sorted((one for one in numbered if one[1]["test"]), key=lambda one: one[1]["recall"])
    caption = f"Recall of each class: share of its test {kind} that are told right"
    weakest = html_table(f"{caption}; the weakest", _RECALL_HEAD, [_recall(*one) for one in tested[:WEAKEST]])
    rest = html_table(f"{caption}; numbers as at the matrix", _RECALL_HEAD, [_recall(*one) for one in numbered])
    return f"{weakest}<details><summary>All {len(numbered):,} classes</summary>{rest}</details>"


_RECALL_HEAD = "".join(f'<th scope="col">{name}</th>' for name in ("Class", "No.", "Recall", "train", "test"))


def _recall(number: int, one: dict[str, Any]) -> str:
    share = one["recall"]
    bar = "" if share is None else interval_bar({"low": share, "mean": share, "high": share}, 1.0)
    return (
        f'<tr><th scope="row">{escape(one["name"])}</th><td class="number">{number}</td>'
        f'<td class="number">{"&ndash;" if share is None else f"{share:.0%}"}{bar}</td>'
        f'<td class="number">{one["train"]:,}</td><td class="number">{one["test"]:,}</td></tr>'
    )


def _examples(examples: PictureExamples, kind: Kind) -> str:
    kinds = (
        ("Right, drawn at random", examples.right),
        ("Wrong, drawn at random", examples.wrong),
        ("Wrong and surest of it", examples.sure),
    )
    shown = "".join(
        f'<h3>{title}</h3><div class="pictures">{"".join(_picture(one) for one in some)}</div>'
        for title, some in kinds
        if some
    )
    return section(f"Test {kind}", shown)


def _picture(one: PictureExample) -> str:
    verdict = (
        f'<b class="found">✓ {escape(one.said)}</b>'
        if one.is_right
        else f'<b class="missed">✗ {escape(one.said)}</b><span>is {escape(one.label)}</span>'
    )
    return (
        f'<figure class="card picture">{_content(one)}<figcaption>{verdict}'
        f"<span>{one.probability:.0%} sure</span></figcaption></figure>"
    )


def _content(one: PictureExample) -> str:
    if isinstance(one.shown, str):
        return f'<p title="{escape(one.key)}">{escape(one.shown)}</p>'
    data = base64.b64encode(one.shown).decode()
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{escape(one.label)}" title="{escape(one.key)}" loading="lazy">'
    )
