"""Lists that repeat themselves less: maximal marginal relevance over the best items of each user.

Item after item is taken that is worth most by (1 - diversity) * relevance - diversity * (cosine to the nearest item
already taken): MMR of Carbonell and Goldstein, 1998 (https://doi.org/10.1145/290941.291025), whose lambda is
1 - diversity. Relevance is the score over the user's pool, moved to 0 to 1, so that it compares with a cosine.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ray_app.baselines.histories import Matrix
from ray_app.baselines.neighbors import item_texts, text_vectors
from ray_app.data.dataset import Dataset
from ray_app.metrics import Scores
from ray_app.schema import PAD

POOL = 5
"""Times the length of a list: so many of the best items may come onto it."""

COSINES_AT_ONCE = 1 << 25
"""Held in memory at a time."""

Vectors: TypeAlias = "NDArray[np.float32] | Matrix"
"""Row i is the vector of item index i, of length 1 or 0."""


def content_vectors(dataset: Dataset) -> "Matrix | None":
    """TF-IDF vectors of what the catalogue says of each item; None if it says nothing."""
    texts = item_texts(dataset.items())
    return text_vectors(texts) if any(texts) else None


def diversified(
    items: NDArray[np.int32], scores: Scores, vectors: Vectors, k: int, diversity: float
) -> tuple[NDArray[np.int32], Scores]:
    """The first `k` items and their scores, `[users, k]`, in the order of MMR; short lists end in `PAD` at -inf.

    Args:
        items: pools, the best first, `[users, pool]`; `PAD` at the end where a pool is short.
        scores: of the items, -inf for `PAD`.
        vectors: of all items.
        k: length of the lists.
        diversity: 0 leaves the order as it is; at 1 relevance chooses the first item alone.
    """
    step = max(1, COSINES_AT_ONCE // max(1, items.shape[1] ** 2))
    parts = [
        _diversified(items[start : start + step], scores[start : start + step], vectors, k, diversity)
        for start in range(0, max(1, len(items)), step)
    ]
    return np.concatenate([found for found, _ in parts]), np.concatenate([of_found for _, of_found in parts])


def _diversified(
    items: NDArray[np.int32], scores: Scores, vectors: Vectors, k: int, diversity: float
) -> tuple[NDArray[np.int32], Scores]:
    num_users, pool = items.shape
    everyone, taken = np.arange(num_users), np.full((num_users, min(k, pool)), -1)
    worth = (1 - diversity) * _relevance(items, scores)
    alike = cosines(items, vectors)
    nearest = np.zeros_like(worth)
    free = items != PAD
    for place in range(taken.shape[1]):
        # Of equals the one that scores higher; where nothing is free this takes padding, which ends every pool.
        chosen = np.argmax(np.where(free, worth - diversity * nearest, -np.inf), axis=1)
        chosen = np.where(free.any(axis=1), chosen, pool - 1)
        taken[:, place] = chosen
        free[everyone, chosen] = False
        to_chosen = alike[everyone, chosen]
        nearest = to_chosen if place == 0 else np.maximum(nearest, to_chosen)
    return np.take_along_axis(items, taken, axis=1), np.take_along_axis(scores, taken, axis=1)


def _relevance(items: NDArray[np.int32], scores: Scores) -> Scores:
    """Scores moved so that each pool spans 0 to 1; 0 for padding, and where all are equal."""
    there = items != PAD
    known = np.where(there, scores, 0)
    low = np.where(there, scores, np.inf).min(axis=1, keepdims=True)
    above: Scores = np.where(there, known - np.where(np.isfinite(low), low, 0), 0)
    relevance: Scores = above / np.maximum(above.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return relevance


def cosines(items: NDArray[np.int32], vectors: Vectors) -> NDArray[np.float32]:
    """Of each pool's items with each other, `[users, pool, pool]`."""
    if isinstance(vectors, np.ndarray):
        rows = vectors[items]
        cosines: NDArray[np.float32] = rows @ rows.transpose(0, 2, 1)
        return cosines
    found = np.empty((*items.shape, items.shape[1]), np.float32)
    for user, pool in enumerate(items):
        rows = vectors[pool]
        found[user] = (rows @ rows.T).toarray()
    return found
