import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from ray_app.data.picture_set import PictureManifest, PictureSet
from ray_app.storage import Storage
from ray_app.tasks.classification import picture_scoreboard
from ray_app.tasks.labels import likeliest

CLASSES = ["apple", "fig", "kiwi", "lime", "pear", "plum"]


def picture_set(groups: list[str] | None = None, group_of_class: list[int] | None = None) -> PictureSet:
    facts = {
        "schema_version": 1,
        "fingerprint": "f",
        "pictures": {},
        "sources": [],
        "counts": {"pictures_in": 0, "train": 0, "validation": 0, "test": 0, "quarantined": {}},
        "classes": CLASSES,
        "groups": groups,
        "group_of_class": group_of_class,
        "train_counts": [9, 8, 7, 6, 5, 4],
        "notes": [],
        "files": [],
    }
    return PictureSet(Storage(), "uri", PictureManifest.model_validate(facts))


def answers(right: float, seed: int, labels: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sure = rng.dirichlet(np.ones(len(CLASSES)), len(labels))
    hit = rng.random(len(labels)) < right
    sure[hit] = 0.1 * sure[hit] + 0.9 * np.eye(len(CLASSES))[labels[hit]]
    return sure.astype(np.float32)


LABELS = np.random.default_rng(0).integers(0, 5, 400)  # nothing of the last class
FOUND = {"fine-tuned": answers(0.9, 1, LABELS), "knn": answers(0.5, 2, LABELS)}


@pytest.fixture(scope="module")
def board() -> dict:
    return picture_scoreboard(FOUND, LABELS, picture_set(["round", "sour"], [0, 0, 0, 1, 0, 0]), 200, 0)


def test_the_first_method_is_compared_with_the_others(board: dict):
    assert (board["main"], board["metric"]) == ("fine-tuned", "top1")
    first, second = (accuracy_score(LABELS, FOUND[name].argmax(1)) for name in FOUND)
    assert board["metrics"]["fine-tuned"]["top1"]["mean"] == pytest.approx(first)
    lead = board["differences"]["knn"]["top1"]
    assert lead["mean"] == pytest.approx(first - second)
    assert 0 < lead["low"] < lead["mean"] < lead["high"]
    assert list(board["metrics"]["knn"]) == ["top1", "top5", "macro_recall", "group", "ece"]
    assert board["metrics"]["knn"]["group"]["mean"] > board["metrics"]["knn"]["top1"]["mean"]
    assert 0 < board["metrics"]["fine-tuned"]["ece"]["mean"] < 1


def test_what_happens_to_each_class(board: dict):
    assert [one["name"] for one in board["classes"]] == CLASSES
    assert [one["test"] for one in board["classes"]] == np.bincount(LABELS, minlength=6).tolist()
    assert board["classes"][5]["recall"] is None
    right = sum(count for label, said, count in board["confusion"] if label == said)
    assert sum(count for *_, count in board["confusion"]) == 400
    assert right / 400 == pytest.approx(board["metrics"]["fine-tuned"]["top1"]["mean"])
    assert sum(board["reliability"]["knn"]["pictures"]) == 400


def test_few_classes_have_no_first_five_and_no_groups():
    narrow = {name: found[:, :5] for name, found in FOUND.items()}
    few = picture_set()
    few = PictureSet(
        few.storage, few.uri, few.manifest.model_copy(update={"classes": CLASSES[:5], "train_counts": [9] * 5})
    )
    board = picture_scoreboard(narrow, LABELS, few, 100, 0)
    assert list(board["metrics"]["knn"]) == ["top1", "macro_recall", "ece"]


def test_the_likeliest_labels():
    probabilities = np.array([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]], np.float32)
    rows = likeliest(["a", "b"], probabilities, CLASSES[:3], 2).to_pylist()
    assert [(row["key"], row["label"], row["rank"]) for row in rows] == [
        ("a", "fig", 1),
        ("a", "kiwi", 2),
        ("b", "apple", 1),
        ("b", "kiwi", 2),
    ]
    assert [row["probability"] for row in rows] == pytest.approx([0.6, 0.3, 0.4, 0.4])
