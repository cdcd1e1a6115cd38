from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group

from ray_app.transferability import h_score, logme

SCORES = pytest.mark.parametrize("score", [logme, h_score])


def drawn(rows: int, dim: int, apart: float, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows * dim)
    labels = np.arange(rows) % classes
    return apart * rng.normal(size=(classes, dim))[labels] + rng.normal(size=(rows, dim)), labels


def most_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """Of y ~ N(0, I / beta + F F' / alpha), over alpha and beta, by a search that knows nothing of the model."""

    def loss(logs: np.ndarray) -> float:
        alpha, beta = np.exp(np.clip(logs, -8, 20))  # without effect, the best alpha has no end
        covariance = np.eye(len(target)) / beta + features @ features.T / alpha
        return -multivariate_normal.logpdf(target, cov=covariance) / len(target)

    starts = [(a, b) for a in (-2.0, 2.0) for b in (0.0, 3.0)]
    options = {"xatol": 1e-8, "fatol": 1e-12, "maxiter": 4000}
    return -min(minimize(loss, start, method="Nelder-Mead", options=options).fun for start in starts)


@pytest.mark.parametrize(("rows", "dim", "apart"), [(14, 3, 1.0), (12, 3, 0.3), (10, 16, 1.0)])
def test_logme_is_the_maximum_of_the_evidence(rows: int, dim: int, apart: float):
    features, labels = drawn(rows, dim, apart)
    expected = np.mean([most_evidence(features, (labels == label).astype(float)) for label in range(3)])
    assert logme(features, labels) == pytest.approx(expected, abs=1e-6)


@SCORES
@pytest.mark.parametrize(("rows", "dim"), [(90, 12), (40, 60)])
def test_features_that_tell_classes_apart_score_above_others(score, rows: int, dim: int):
    features, labels = drawn(rows, dim, 2.0)
    blurred, _ = drawn(rows, dim, 0.5)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert score(features, labels) > score(blurred, labels) > score(blurred, shuffled)


@SCORES
@pytest.mark.parametrize(("rows", "dim"), [(60, 10), (20, 30)])
def test_rotation_scale_and_names_of_classes_change_nothing(score, rows: int, dim: int):
    features, labels = drawn(rows, dim, 1.0)
    turned = 100 * features @ ortho_group.rvs(dim, random_state=1)
    assert score(turned, 7 - 2 * labels) == pytest.approx(score(features, labels), abs=1e-7)


def test_the_h_score_of_one_feature_is_the_share_of_variance_between_classes():
    features, labels = np.array([[1.0], [3.0], [5.0], [7.0]]), np.array([0, 0, 1, 1])
    assert h_score(features, labels) == pytest.approx(float(Fraction(4, 5)))  # means 2 and 6 around 4; whole 5


def test_the_h_score_of_features_that_are_the_classes_nears_its_end():
    labels = np.arange(4000) % 4
    noise = 1e-3 * np.random.default_rng(0).normal(size=(4000, 4))
    assert h_score(np.eye(4)[labels] + noise, labels) == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_features_tell_nothing(value: float):
    features, labels = drawn(40, 6, 1.0)
    constant = np.full_like(features, value)
    assert h_score(constant, labels) == 0
    assert np.isfinite(logme(constant, labels))
    assert logme(constant, labels) < logme(features, labels)


def test_features_that_give_the_labels_exactly_have_an_end():
    labels = np.arange(30) % 3
    exact = np.eye(3)[labels]
    assert np.isfinite(logme(exact, labels))
    assert logme(exact, labels) > logme(exact + 0.01 * np.random.default_rng(0).normal(size=exact.shape), labels)
