import io
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import EVIL, Page
from rich.console import Console

from ray_app.config import parse_config
from ray_app.data.dataset import Manifest
from ray_app.data.sequences import Ragged
from ray_app.evaluate_config import EvaluateConfig
from ray_app.report import Evidence, summary_table, write_report
from ray_app.report.charts import learning_curves, tick_labels, ticks
from ray_app.report.results import best_methods
from ray_app.tasks.examples import Example
from ray_app.tasks.scoreboard import LIST_LENGTH, Outcomes, scoreboard


def metrics(*names: str, split: str = "temporal") -> dict:
    """The evaluation of five users, the first method with the best ranks."""
    outcomes = Outcomes(list(names), np.array([0, 5, *[1] * 98]))
    targets = Ragged(np.array([1, 2, 3, 4, 5], np.int32), np.arange(6))
    ranks = [np.array([1, 2, 4, 30, 99]) + 7 * number for number in range(len(names))]
    lists = [np.full((5, LIST_LENGTH), number + 1, np.int32) for number in range(len(names))]
    outcomes.add(np.array([0, 1, 4, 5, 1]), np.full(5, np.nan), targets, ranks, lists)
    times = [1_320_000_000_000_000, 1_321_300_000_000_000] if split == "temporal" else [None, None]
    protocol = {
        "split": split,
        "cutoffs": dict(zip(("validation_start", "test_start"), times, strict=True)),
        "question": "items of the first order",
        "exclude_seen": True,
        "items": 99,
        "users": 5,
        "targets": 5,
        "unknown_targets": 1,
    }
    origin = {"kind": "baseline", "fitted_on": "train part"}
    methods = {name: {**origin, "kind": "model", "checkpoint": f"s3://b/{name}"} for name in names[:2]}
    methods |= dict.fromkeys(names[2:], origin)
    board = scoreboard(outcomes, EvaluateConfig(bootstrap_samples=100), 0)
    return {"protocol": protocol, "methods": methods, **board}


def manifest(**counts: object) -> Manifest:
    numbers = {"rows_in": 12345, "rows_kept": 12000, "rows_quarantined": 345, "quarantined": {EVIL: 345}}
    events = {"train_events": 10000, "validation_events": 1000, "test_events": 1000, "unknown_item_events": 1}
    return Manifest.model_validate(
        {
            "schema_version": 1,
            "fingerprint": "f",
            "data": {},
            "sources": [{"uri": "a", "size": 1, "etag": "e", "rows": 12345}],
            "counts": {**numbers, "users": 777, "items": 99, **events, **counts},
            "catalog": None,
            "id_types": {"user_id": "int64", "item_id": "string"},
            "cutoffs": {"validation_start": None, "test_start": None},
            "notes": [EVIL],
            "parts": [],
        }
    )


def record(phase: str, epoch: int, ndcg: float | None, loss: float | None = 1.0) -> dict[str, float | str]:
    found = {"phase": phase, "epoch": epoch, "val/ndcg@10": ndcg, "train/loss": loss}
    return {key: value for key, value in found.items() if value is not None}


TWO_PHASES = [
    record("start", 0, 0.01, None),
    record("head", 1, 0.02),
    record("head", 2, None),
    record("full", 1, 0.05),
    record("full", 2, 0.04),
]

WISE = {**record("wise", 0, 0.05, None), "alpha": 0.75}


@pytest.fixture(scope="module")
def page() -> Page:
    names = ("fine-tuned", EVIL, "popular")
    evidence = Evidence(
        config=parse_config({"name": "shop.1", "data": {"events": f"s3://b/{EVIL}"}}),
        data=manifest(),
        metrics=metrics(*names),
        records={"fine-tuned": [*TWO_PHASES, WISE], EVIL: TWO_PHASES[1:]},
        examples=[Example(EVIL, [EVIL, "milk"], ["bread", EVIL], [True, False], [EVIL])],
        versions={"ray": "2.60.0", EVIL: EVIL, "commit": None},
    )
    return Page(write_report(evidence))


def test_nothing_from_data_becomes_markup(page: Page):
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(EVIL) > 10
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]


def test_the_page_needs_no_network(page: Page):
    outside = [(tag, name) for tag, attributes in page.tags for name in attributes if name in ("src", "href", "action")]
    assert outside == []
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_the_page_says_what_a_person_looks_for(page: Page):
    for text in (
        "shop.1",
        "12,345",
        "Ends at 0.75 of the way from the pretrained backbone",
        "777",
        "Temporal split",
        "2011-10-30",
        "are taken out of",
        "2.60.0",
        "num_workers",
    ):
        assert text in page.text
    assert "✓ bread" in page.text


def test_pictures_and_tables_can_be_read_aloud(page: Page):
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert ("html", {"lang": "en"}) in page.tags
    assert "viewport" in {attributes.get("name") for _, attributes in page.tags}


def test_a_page_without_curves_examples_and_cutoffs():
    evidence = Evidence(parse_config({}), manifest(quarantined={}), metrics("scratch", split="leave_one_out"))
    found = Page(write_report(evidence))
    assert "Leave-one-out split." in found.text
    assert "Training" not in found.text
    assert "Recommendations" not in found.text


def test_the_best_of_each_metric_is_told():
    found = metrics("a", "b", "c")["metrics"]
    assert best_methods(found, "ndcg@10") == {"a"}
    assert best_methods(found, "coverage@10") == set()
    assert best_methods({method: {"mrr": {"mean": 0.0}} for method in "ab"}, "mrr") == set()


def test_curves_mark_the_best_epoch_and_where_phases_begin():
    svg = ElementTree.fromstring(learning_curves("fine <tuned>", TWO_PHASES))
    texts = ["".join(node.itertext()) for node in svg.iter("text")]
    assert "best 0.0500" in texts
    assert [text for text in texts if text in ("head", "full")] == ["head", "full"]
    assert len(svg.findall("line[@class='phase']")) == 1
    assert svg.get("aria-label") == "fine <tuned>: validation ndcg@10 went from 0.0100 to 0.0400, best 0.0500"
    metric, loss = (line.get("points").split() for line in svg.findall("polyline"))
    assert len(metric) == len(loss) == 4  # the start has no loss, and one epoch was not validated
    best = svg.find("circle")
    assert f"{best.get('cx')},{best.get('cy')}" == metric[2]


@pytest.mark.parametrize("records", [[], [record("scratch", 1, 0.0)], [record("scratch", 1, None)]])
def test_short_runs_have_a_curve_too(records: list):
    ElementTree.fromstring(learning_curves("run", records))


def test_ticks_are_round_numbers():
    assert ticks(0.013, 0.067, wanted=3) == pytest.approx([0, 0.02, 0.04, 0.06, 0.08])
    assert ticks(0, 30) == [0, 10, 20, 30]
    assert ticks(5, 5)[0] <= 5 < ticks(5, 5)[-1]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.21132, 0.21148, ["0.21130", "0.21135", "0.21140", "0.21145", "0.21150"]),
        (8.15, 8.25, ["8.150", "8.175", "8.200", "8.225", "8.250"]),
        (1000, 2500, ["1,000", "1,500", "2,000", "2,500"]),
    ],
)
def test_labels_of_ticks_tell_them_apart(low: float, high: float, labels: list[str]):
    assert tick_labels(ticks(low, high)) == labels


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_cover_the_range(low: float, width: float):
    marks = ticks(low, low + width)
    tolerance = 1e-6 * (marks[-1] - marks[0])
    assert marks[0] <= low + tolerance
    assert low + width <= marks[-1] + tolerance
    assert 2 <= len(marks) <= 8
    assert len(set(tick_labels(marks))) == len(marks)


def test_the_terminal_shows_methods_with_the_best_in_bold():
    console = Console(width=120, file=io.StringIO(), record=True, force_terminal=True, color_system="standard")
    console.print(summary_table(metrics("ours [v2]", "theirs")))
    lines = console.export_text(styles=True).splitlines()
    ours, theirs = (next(line for line in lines if name in line) for name in ("ours [v2]", "theirs"))
    assert ours.count("\x1b[1m") == 3  # not the coverage
    assert "\x1b[1m" not in theirs
    assert any("5 users, 99 items" in line and "excluded" in line for line in lines)


@pytest.mark.parametrize("width", [40, 80])
def test_nothing_is_cut_in_a_narrow_terminal(width: int):
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(summary_table(metrics("a_method_with_a_long_name", "other")))
    assert "…" not in console.export_text()
