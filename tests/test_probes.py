import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from ray_app.baselines.probes import NEIGHBORS, STRENGTHS, fit_probes

CLASSES, DIM = 6, 20


def drawn(per_class: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    centers = 2 * np.random.default_rng(99).normal(size=(CLASSES, DIM)) / np.sqrt(DIM)
    labels = np.repeat(np.arange(CLASSES), per_class)
    noise = np.random.default_rng(seed).normal(size=(len(labels), DIM)) / np.sqrt(DIM)
    return (centers[labels] + spread * noise).astype(np.float32), labels


TRAIN, VALIDATION, TEST = (drawn(size, seed, spread=2.0) for seed, size in enumerate((30, 15, 30)))


def accuracy(predicted: np.ndarray, part: tuple[np.ndarray, np.ndarray]) -> float:
    return (predicted == part[1]).mean()


@pytest.fixture(scope="module")
def probes():
    return fit_probes(TRAIN, VALIDATION)


def test_all_give_probabilities_and_know_the_classes(probes):
    assert list(probes) == ["nearest_centroid", "knn", "logistic_regression"]
    for name, probe in probes.items():
        found = probe(TEST[0])
        assert found.shape == (len(TEST[1]), CLASSES), name
        assert found.sum(1) == pytest.approx(1, abs=1e-5)
        assert accuracy(found.argmax(1), TEST) > 0.5, name


def test_neighbors_are_those_of_scikit_learn_with_the_best_k(probes):
    def votes(k: int) -> KNeighborsClassifier:
        weights = lambda distances: np.exp((1 - distances) / 0.07)  # noqa: E731
        return KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute").fit(*TRAIN)

    best = max(accuracy(votes(k).predict(VALIDATION[0]), VALIDATION) for k in NEIGHBORS)
    ours = accuracy(probes["knn"](VALIDATION[0]).argmax(1), VALIDATION)
    assert ours == best
    chosen = [k for k in NEIGHBORS if np.allclose(votes(k).predict_proba(TEST[0]), probes["knn"](TEST[0]), atol=1e-4)]
    assert len(chosen) == 1


def test_logistic_regression_is_that_of_scikit_learn_with_the_best_strength(probes):
    scaler = StandardScaler().fit(TRAIN[0])
    best = 0.0
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(scaler.transform(TRAIN[0]), TRAIN[1])
        best = max(best, accuracy(model.predict(scaler.transform(VALIDATION[0])), VALIDATION))
    assert accuracy(probes["logistic_regression"](VALIDATION[0]).argmax(1), VALIDATION) == best


def test_a_class_of_one_picture_and_fewer_pictures_than_neighbors():
    vectors, labels = drawn(1, 5, spread=0.1)
    probes = fit_probes((vectors, labels), drawn(2, 6, spread=0.1))
    for probe in probes.values():
        assert accuracy(probe(vectors).argmax(1), (vectors, labels)) == 1
