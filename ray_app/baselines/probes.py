"""What every classifier of pictures must beat: simple methods on the outputs of the frozen pretrained backbone.

All are fitted on the train part; what each leaves open is chosen on the validation part.
"""

import warnings
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Vectors = NDArray[np.float32]
"""`[pictures, dim]`."""
Labels = NDArray[np.int64]
Probe = Callable[[Vectors], NDArray[np.float32]]
"""Vectors -> probabilities, `[pictures, classes]`."""
TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Of a softmax over cosines."""
NEIGHBORS = (1, 3, 5, 10, 20, 50)
NEIGHBOR_TEMPERATURE = 0.07
"""How fast a neighbor's vote falls with its cosine (Wu et al., 2018, arXiv 1805.01978)."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation of logistic regression."""
_MAX_STEPS = 1000
_ROWS = 1024


def fit_probes(train: tuple[Vectors, Labels], validation: tuple[Vectors, Labels]) -> dict[str, Probe]:
    """Nearest centroid, nearest neighbors and logistic regression; every class must have a training picture."""
    vectors, labels = train
    return {
        "nearest_centroid": _likeliest((_Centroids(vectors, labels, t) for t in TEMPERATURES), validation),
        "knn": fit_neighbors(train, validation),
        "logistic_regression": _likeliest((_logistic(vectors, labels, c) for c in STRENGTHS), validation),
    }


def fit_neighbors(train: tuple[Vectors, Labels], validation: tuple[Vectors, Labels]) -> Probe:
    """Nearest neighbors, as many as suit the validation part best."""
    return _likeliest((_Neighbors(*train, k) for k in NEIGHBORS), validation)


def _likeliest(probes: Iterable[Probe], validation: tuple[Vectors, Labels]) -> Probe:
    """The most often right, and of those the one that gives the labels the highest likelihood."""

    def quality(probe: Probe) -> tuple[float, float]:
        found = probe(validation[0])
        own = found[np.arange(len(found)), validation[1]]
        return float((found.argmax(axis=1) == validation[1]).mean()), float(np.log(own + 1e-12).mean())

    return max(probes, key=quality)


class _Centroids:
    """Classes by the cosine of a picture to the mean of theirs."""

    def __init__(self, vectors: Vectors, labels: Labels, temperature: float) -> None:
        units, members = _units(vectors), np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
        self._centroids = _units(members.T @ units)
        self._temperature = temperature

    def __call__(self, vectors: Vectors) -> NDArray[np.float32]:
        return _softmax(_units(vectors) @ self._centroids.T / self._temperature)


class _Neighbors:
    """Classes by the votes of the training pictures with the highest cosines."""

    def __init__(self, vectors: Vectors, labels: Labels, k: int) -> None:
        self._units, self._labels, self._k = _units(vectors), labels, min(k, len(labels))

    def __call__(self, vectors: Vectors) -> NDArray[np.float32]:
        found = np.zeros((len(vectors), int(self._labels.max()) + 1), np.float32)
        for start in range(0, len(vectors), _ROWS):
            cosines = _units(vectors[start : start + _ROWS]) @ self._units.T
            nearest = np.argpartition(-cosines, self._k - 1, axis=1)[:, : self._k]
            votes = _softmax(np.take_along_axis(cosines, nearest, axis=1) / NEIGHBOR_TEMPERATURE)
            rows = np.repeat(np.arange(start, start + len(cosines)), self._k)
            np.add.at(found, (rows, self._labels[nearest].ravel()), votes.ravel())
        return found


def _logistic(vectors: Vectors, labels: Labels, strength: float) -> Probe:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_MAX_STEPS))
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # as good as it gets in so many steps
        model.fit(vectors, labels)
    return lambda others: np.asarray(model.predict_proba(others), np.float32)


def _units(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Vectors = vectors / np.maximum(lengths, 1e-12)
    return units


def _softmax(scores: Vectors) -> NDArray[np.float32]:
    shifted: Vectors = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Vectors = shifted / shifted.sum(axis=1, keepdims=True)
    return shares
