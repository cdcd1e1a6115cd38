"""Metrics of classification, per picture where they are means, so that intervals can be taken afterwards.

Probabilities are `[pictures, classes]` with rows that sum to 1, labels `[pictures]`. Equal probabilities count in the
order of the classes.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
PerPicture = NDArray[np.float64]
NUM_BINS = 15


class Reliability(NamedTuple):
    """Pictures by how sure the method was, in bins of equal width between 0 and 1; each `[bins]`."""

    pictures: NDArray[np.int64]
    confidence: PerPicture
    """Mean highest probability, 0 where a bin is empty."""
    accuracy: PerPicture


def label_ranks(probabilities: Probabilities, labels: Labels) -> NDArray[np.int64]:
    """The place of each picture's label among the classes, from 1.

    Raises:
        ValueError: a probability is NaN.
    """
    if np.isnan(probabilities).any():
        raise ValueError("probabilities hold NaN: nothing can be ranked by them")
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    ranks: NDArray[np.int64] = 1 + ((probabilities > own) | ((probabilities == own) & before)).sum(axis=1)
    return ranks


def top_k_accuracy(ranks: NDArray[np.int64], k: int) -> PerPicture:
    """1 where the label is among the first `k`, else 0."""
    return (ranks <= k).astype(np.float64)


def macro_recall(ranks: NDArray[np.int64], labels: Labels) -> PerPicture:
    """Values whose mean is the mean recall of the classes that have a picture: hits of small classes weigh more.

    Resampled, they take the number of pictures of each class for given.
    """
    counts = np.bincount(labels)
    found: PerPicture = (ranks == 1) * (len(labels) / (np.count_nonzero(counts) * counts[labels]))
    return found


def group_accuracy(probabilities: Probabilities, labels: Labels, group_of_class: NDArray[np.int64]) -> PerPicture:
    """1 where the likeliest group, that of the highest sum over its classes, is the label's, else 0.

    Several classes of a group may share what speaks for it: who asks for the group is told by their sum.
    """
    sums = probabilities @ np.eye(int(group_of_class.max()) + 1)[group_of_class]
    same: NDArray[np.bool_] = sums.argmax(axis=1) == group_of_class[labels]
    return same.astype(np.float64)


def class_recall(ranks: NDArray[np.int64], labels: Labels, num_classes: int) -> PerPicture:
    """Share of each class's pictures that are told right, `[classes]`; NaN where it has none."""
    counts = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels[ranks == 1], minlength=num_classes)
    found: PerPicture = np.divide(hits, counts, out=np.full(num_classes, np.nan), where=counts > 0)
    return found


def confusion_matrix(probabilities: Probabilities, labels: Labels) -> NDArray[np.int64]:
    """Pictures by label (rows) and first class (columns), `[classes, classes]`."""
    size = probabilities.shape[1]
    pairs = labels * size + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.int64)


def reliability(probabilities: Probabilities, labels: Labels, num_bins: int = NUM_BINS) -> Reliability:
    """How often the method is right when it is so sure (Guo et al., 2017, arXiv 1706.04599)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    counts = np.bincount(place, minlength=num_bins)
    whole = np.maximum(counts, 1)
    sure, hits = (np.bincount(place, values, minlength=num_bins) / whole for values in (confidence, right))
    return Reliability(counts.astype(np.int64), sure, hits)


def calibration_error(found: Reliability) -> float:
    """Expected calibration error: mean distance between how sure and how right, over pictures (Guo et al., 2017)."""
    gaps = np.abs(found.accuracy - found.confidence) * found.pictures
    return float(gaps.sum() / max(found.pictures.sum(), 1))
