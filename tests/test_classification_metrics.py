import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from ray_app.classification_metrics import (
    calibration_error,
    class_recall,
    confusion_matrix,
    group_accuracy,
    label_ranks,
    macro_recall,
    reliability,
    top_k_accuracy,
)

FOUR = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]])
LABELS = np.array([0, 0, 1, 1])


def drawn(pictures: int = 500, classes: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = (classes * rng.random(pictures) ** 2).astype(np.int64)
    logits = rng.normal(size=(pictures, classes)) + 1.5 * np.eye(classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), labels


def test_ranks_by_hand():
    assert label_ranks(FOUR, LABELS).tolist() == [1, 2, 3, 2]  # equal ones count in the order of the classes
    assert top_k_accuracy(label_ranks(FOUR, LABELS), 2).tolist() == [1, 1, 0, 1]
    with pytest.raises(ValueError, match="NaN"):
        label_ranks(np.array([[np.nan, 1.0]]), np.array([0]))


def test_recalls_by_hand():
    ranks = label_ranks(FOUR, LABELS)
    assert class_recall(ranks, LABELS, 3) == pytest.approx([0.5, 0, np.nan], nan_ok=True)
    assert macro_recall(ranks, LABELS).mean() == pytest.approx(0.25)
    ranks, labels = np.array([1, 1, 2, 1]), np.array([0, 0, 0, 2])
    assert macro_recall(ranks, labels).mean() == pytest.approx((2 / 3 + 1) / 2)


def test_confusion_and_groups_by_hand():
    assert confusion_matrix(FOUR, LABELS).tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert group_accuracy(FOUR, LABELS, np.array([0, 0, 1])).tolist() == [1, 1, 0, 1]
    # Of the second and the last picture the first class has less than the two others have together.
    groups = np.array([0, 1, 1])
    assert group_accuracy(FOUR, LABELS, groups).tolist() == [1, 0, 1, 1]
    assert group_accuracy(FOUR, np.array([0, 1, 2, 0]), groups).tolist() == [1, 1, 1, 0]


def test_calibration_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.0, 1.0]])
    found = reliability(probabilities, np.array([0, 0, 1, 1, 1]), num_bins=10)
    assert found.pictures.tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 3, 1]
    assert found.accuracy[8] == pytest.approx(2 / 3)
    assert calibration_error(found) == pytest.approx((3 * (0.9 - 2 / 3) + 0.3) / 5)


def test_all_agree_with_scikit_learn():
    probabilities, labels = drawn()
    ranks = label_ranks(probabilities, labels)
    for k in (1, 5):
        expected = top_k_accuracy_score(labels, probabilities, k=k, labels=np.arange(12))
        assert top_k_accuracy(ranks, k).mean() == pytest.approx(expected)
    first = probabilities.argmax(1)
    assert macro_recall(ranks, labels).mean() == pytest.approx(balanced_accuracy_score(labels, first))
    assert (confusion_matrix(probabilities, labels) == sklearn_confusion(labels, first, labels=np.arange(12))).all()
    matrix = confusion_matrix(probabilities, labels)
    assert class_recall(ranks, labels, 12) == pytest.approx(matrix.diagonal() / matrix.sum(1))


def test_what_is_drawn_from_the_probabilities_is_calibrated():
    probabilities, _ = drawn(20_000)
    rng = np.random.default_rng(1)
    labels = (probabilities.cumsum(1) > rng.random((len(probabilities), 1))).argmax(1)
    assert calibration_error(reliability(probabilities, labels)) < 0.02
    sure = np.where(probabilities == probabilities.max(1, keepdims=True), 1.0, 0.0)
    accuracy = (probabilities.argmax(1) == labels).mean()
    assert calibration_error(reliability(sure, labels)) == pytest.approx(1 - accuracy)
