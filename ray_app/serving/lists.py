"""The best items that may be in an answer."""

import numpy as np
from numpy.typing import NDArray

from ray_app.metrics import top_k
from ray_app.schema import PAD
from ray_app.serving.catalog import Mask
from ray_app.serving.likeness import Likeness
from ray_app.serving.retrieval import Found
from ray_app.tasks.diversity import POOL, diversified

Indices = NDArray[np.int64]


def best(found: Found, passed: Mask, k: int) -> Indices:
    """Indices of the best `k` that pass, or as many as there are."""
    items, _ = _pool(found, passed, k)
    there: Indices = items[items != PAD]
    return there


def varied(found: Found, passed: Mask, k: int, diversity: float, likeness: Likeness) -> Indices:
    """As `best`, of a larger pool those that are good and unlike each other (`tasks.diversity`)."""
    if not diversity or not k:
        return best(found, passed, k)
    items, scores = _pool(found, passed, k * POOL)
    places = np.where(items != PAD, np.arange(len(items)) + 1, PAD).astype(np.int32)
    items = np.append(PAD, items)
    [chosen], _ = diversified(places[None], scores[None], likeness.rows(items), k, diversity)
    unlike: Indices = items[chosen[chosen != PAD]]
    return unlike


def _pool(found: Found, passed: Mask, size: int) -> tuple[Indices, NDArray[np.float32]]:
    """The best items and their scores; `PAD` at -inf where there are no more."""
    if not size:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    scores, among = found.scores, found.among
    if among is not None:
        scores, passed = scores[among], passed[among]
    places, of_places = top_k(np.where(passed, scores, -np.inf)[None], size)
    items = places[0].astype(np.int64)
    return items if among is None else among[items], of_places[0]
