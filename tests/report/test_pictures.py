from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from pages import EVIL, Page
from PIL import Image

from ray_app.config import parse_config
from ray_app.data.picture_set import PictureManifest, PictureSet
from ray_app.report.picture_charts import MAX_NAMED, calibration_diagram, confusion_map
from ray_app.report.pictures import PictureEvidence, write_picture_report
from ray_app.storage import Storage
from ray_app.tasks.classification import picture_scoreboard
from ray_app.tasks.picture_examples import PictureExample, PictureExamples

CONFIG = {"name": "shop.1", "task": {"kind": "classify"}, "pictures": {}, "classifier": {}}
TWO_PHASES = [
    {"phase": "head", "epoch": 1, "val/top1": 0.4, "train/loss": 2.0},
    {"phase": "full", "epoch": 1, "val/top1": 0.6, "train/loss": 1.0},
]


def manifest(classes: list[str], groups: list[str] | None = None, of_class: list[int] | None = None) -> PictureManifest:
    counts = {"pictures_in": 12345, "train": 9000, "validation": 1000, "test": 2000, "quarantined": {EVIL: 345}}
    facts = {"schema_version": 1, "fingerprint": "f", "pictures": {}, "files": []}
    source = {"uri": "a", "size": 1, "etag": "e", "rows": 12345}
    names = {"classes": classes, "groups": groups, "group_of_class": of_class, "train_counts": [7] * len(classes)}
    return PictureManifest.model_validate(
        facts | names | {"sources": [source], "counts": counts, "notes": [EVIL]},
    )


def evaluation(data: PictureManifest, pictures: int = 300) -> dict:
    """A method that is right two times in three, one that guesses, and a class that has no test picture."""
    size, rng = len(data.classes), np.random.default_rng(0)
    labels = rng.integers(0, size - 1, pictures)
    said = np.where(rng.random(pictures) < 0.67, labels, (labels + 1) % size)
    found = {"fine-tuned": 0.7 * np.eye(size)[said] + 0.3 / size, EVIL: rng.dirichlet(np.ones(size), pictures)}
    origin = {"kind": "model", "fitted_on": "train part", "checkpoint": f"s3://b/{EVIL}"}
    protocol = {"question": "the label", "pictures": pictures, "classes": size}
    board = picture_scoreboard(found, labels, PictureSet(Storage(), "u", data), 100, 0)
    return {"protocol": protocol, "methods": {"fine-tuned": origin, EVIL: {**origin, "kind": "baseline"}}, **board}


def example(label: str, said: str) -> PictureExample:
    sink = BytesIO()
    Image.new("RGB", (9, 9), "red").save(sink, "JPEG")
    return PictureExample(EVIL, sink.getvalue(), label, said, 0.87)


@pytest.fixture(scope="module")
def page() -> Page:
    data = manifest(["apple", EVIL, "fig", "lime", "pear", "plum"], ["round", EVIL], [0, 1, 0, 1, 0, 1])
    examples = PictureExamples([example("fig", "fig")], [example(EVIL, "fig")], [example("fig", EVIL)])
    records = {"fine-tuned": TWO_PHASES, EVIL: TWO_PHASES}
    versions = {"torch": "2.13.0", EVIL: EVIL}
    evidence = PictureEvidence(parse_config(CONFIG), data, evaluation(data), examples, records, versions)
    return Page(write_picture_report(evidence))


def test_nothing_from_data_becomes_markup(page: Page):
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(EVIL) > 10
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]


def test_the_page_needs_no_network(page: Page):
    outside = [
        attributes[name]
        for _, attributes in page.tags
        for name in ("src", "href", "action")
        if not attributes.get(name, "data:").startswith("data:image/jpeg;base64,") and name in attributes
    ]
    assert outside == []
    assert "url(" not in page.text


def test_the_page_says_what_a_person_looks_for(page: Page):
    for text in ("shop.1", "12,345", "9,000", "in 2 groups", "Top-1 of fine-tuned", "2.13.0", "full", "val"):
        assert text in page.text
    for text in ("✓ fig", "✗ fig", f"is {EVIL}", "87% sure", "Most often confused by fine-tuned", "All 6 classes"):
        assert text in page.text
    assert "\N{EN DASH}" in page.text  # the class without a test picture has no recall


def test_pictures_can_be_read_aloud(page: Page):
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")


def test_the_map_shows_each_pair_in_its_place():
    data = manifest(["a", "b", "c"])
    found = evaluation(data) | {"confusion": [[0, 0, 3], [0, 2, 1], [1, 1, 4]]}
    svg = ElementTree.fromstring(confusion_map(found, [2, 0, 1], [1]))
    assert svg.get("aria-label") == "Labels by answers: 7 of 8 pictures on the diagonal"
    cells = {node.find("title").text: node for node in svg.findall("rect") if node.find("title") is not None}
    assert set(cells) == {"a taken for a: 3", "a taken for c: 1", "b taken for b: 4"}
    wrong = cells["a taken for c: 1"]
    assert wrong.get("class") == "wrong"
    right = cells["a taken for a: 3"]
    assert float(wrong.get("y")) == float(right.get("y")) == float(right.get("x"))
    assert float(wrong.get("x")) < float(right.get("x"))
    assert "".join(svg.itertext()).count("a") >= 2
    many = manifest([f"name {number}" for number in range(MAX_NAMED + 10)])
    texts = [node.text for node in ElementTree.fromstring(confusion_map(evaluation(many), range(40), [])).iter("text")]
    assert texts[:4] == ["1", "1", "5", "5"]


def test_the_diagram_has_a_dot_for_each_bin_with_pictures():
    bins = {"pictures": [0, 3, 9, 0], "confidence": [0, 0.3, 0.7, 0], "accuracy": [0, 0.25, 1.0, 0]}
    svg = ElementTree.fromstring(calibration_diagram("ours <1>", bins))
    dots = svg.findall("circle")
    assert [dot.find("title").text for dot in dots] == [
        "3 pictures: 30% sure, 25% right",
        "9 pictures: 70% sure, 100% right",
    ]
    assert float(dots[0].get("cx")) < float(dots[1].get("cx"))
    assert float(dots[0].get("cy")) > float(dots[1].get("cy"))
    assert svg.get("aria-label") == "ours <1>: 30% sure: 25% right; 70% sure: 100% right"
    empty = {"pictures": [0], "confidence": [0], "accuracy": [0]}
    ElementTree.fromstring(calibration_diagram("empty", empty))


def test_a_page_without_curves_and_groups():
    data = manifest(["a", "b"])
    evidence = PictureEvidence(parse_config(CONFIG), data, evaluation(data), PictureExamples([], [], []))
    text = Page(write_picture_report(evidence)).text
    assert "Training" not in text
    assert "Groups of classes" not in text


def test_texts_are_shown_as_they_are():
    data = manifest(["a", "b"]).model_copy(update={"kind": "texts"})
    found = evaluation(data)
    found["protocol"]["texts"] = found["protocol"].pop("pictures")
    texts = [PictureExample("7", f"red wine {EVIL}", "a", "a", 0.9)]
    page = Page(
        write_picture_report(PictureEvidence(parse_config(CONFIG), data, found, PictureExamples(texts, [], [])))
    )
    assert {"img", "script"}.isdisjoint(tag for tag, _ in page.tags)
    for text in (f"red wine {EVIL}", "test texts of 2 classes", "texts from 1 source", "Test texts", "a bin of texts"):
        assert text in page.text
