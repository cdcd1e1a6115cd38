"""How well frozen features tell labels apart, in one number and without training: to choose a backbone by.

Both scores are compared between features of the same pictures alone; more is better.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

Features = NDArray[np.floating[Any]]
"""`[n, dim]`."""
Labels = NDArray[np.int64]
Values = NDArray[np.float64]
_TOLERANCE = 1e-10
"""Of the evidence per picture."""
_MAX_STEPS = 1000
_RATIO = 1e12
"""Of prior to noise precision, at most, and its inverse at least: where nothing is learned, and where all is."""
_LEAST_REST = 1e-12
"""Share of the labels that is taken for noise even where features give them exactly: the evidence has no end there."""
_TINY = 1e-200


def logme(features: Features, labels: Labels) -> float:
    """Log of the maximum evidence per picture, mean over classes (You et al. 2021, arXiv 2102.11005).

    Each class is an indicator y that a Bayesian linear model explains: y ~ N(F w, 1/beta), w ~ N(0, 1/alpha). The
    evidence p(y | F, alpha, beta) is maximized by MacKay's fixed point, which needs the ratio alpha / beta alone: beta
    follows from it. The same under rotation and scaling of the features.
    """
    targets = (labels[:, None] == np.unique(labels)).astype(np.float64)
    spectrum, found = _projected(np.asarray(features, np.float64), targets)
    num_rows, total = len(labels), targets.sum(axis=0)
    rest = np.maximum(total - (found**2).sum(axis=0), _LEAST_REST * total)
    ratio, before = np.ones(len(total)), np.full(len(total), -np.inf)
    for _ in range(_MAX_STEPS):
        left = ratio / (spectrum + ratio)  # [rank, classes]: how much of a direction the prior takes away
        evidence = _evidence(left, found, rest, num_rows)
        if np.abs(evidence - before).max() <= _TOLERANCE:
            break
        before = evidence
        kept = spectrum / (spectrum + ratio)
        weights = np.maximum(((kept * found) ** 2 / spectrum).sum(axis=0), _TINY)  # squared length of w
        error = rest + ((left * found) ** 2).sum(axis=0)
        freedom = num_rows - len(spectrum) + left.sum(axis=0)
        ratio = np.clip(kept.sum(axis=0) * error / (weights * freedom), 1 / _RATIO, _RATIO)
    return float(evidence.mean())


def h_score(features: Features, labels: Labels) -> float:
    """Variance between classes in units of the whole: tr(cov(f)^-1 cov(E[f | y])) (Bao et al. 2019), 0 to classes - 1.

    With the covariance shrunk by Ledoit and Wolf, as few pictures of many features need (Ibrahim et al. 2021, arXiv
    2110.06893).
    """
    values = np.asarray(features, np.float64)
    values = values - values.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(values, assume_centered=True)
    _, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.stack([values[own == label].mean(axis=0) for label in range(len(counts))])
    between = (means * counts[:, None]).T @ means / len(labels)
    return float((1 - shrinkage) * np.trace(np.linalg.pinv(covariance, hermitian=True) @ between))


def _projected(features: Values, targets: Values) -> tuple[Values, Values]:
    """Squared singular values of the features `[rank, 1]`, the greatest 1, and the targets in their left basis.

    By the eigenvectors of the smaller Gram matrix.
    """
    num_rows, dim = features.shape
    gram = features @ features.T if num_rows < dim else features.T @ features
    values, vectors = np.linalg.eigh(gram)
    kept = values > values[-1] * max(num_rows, dim) * np.finfo(np.float64).eps
    values, vectors = values[kept, None], vectors[:, kept]
    if num_rows < dim:
        return values / values.max(initial=0.0), vectors.T @ targets
    return values / values.max(initial=0.0), vectors.T @ (features.T @ targets) / np.sqrt(values)


def _evidence(left: Values, found: Values, rest: Values, num_rows: int) -> Values:
    """Log evidence of each class per row, at the best beta for this ratio."""
    beta = num_rows / (rest + (left * found**2).sum(axis=0))
    evidence: Values = (np.log(beta / (2 * np.pi)) - 1) / 2 + np.log(left).sum(axis=0) / (2 * num_rows)
    return evidence
