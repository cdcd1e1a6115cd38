"""What the shop wants beside what the model holds best: boosts, pinned items, variety."""

import numpy as np
from numpy.typing import NDArray

from ray_app.schema import Col
from ray_app.serving.catalog import Catalog, Mask
from ray_app.serving.schemas import Boost, ItemId

POOL = 4
"""Variety is sought among so many times `k` of the best."""


def boosted(scores: NDArray[np.float32], boosts: list[Boost], catalog: Catalog) -> NDArray[np.float32]:
    """Scores `[items + 1]` moved by weights that count in standard deviations of them all."""
    finite = scores[np.isfinite(scores)]
    moved = scores.copy()
    for boost in boosts:
        chosen = np.zeros(len(scores), np.bool_)
        chosen[catalog.find_all(boost.item_ids)] = True
        for column, label in ((Col.CATEGORY, boost.category), (Col.BRAND, boost.brand)):
            if label is not None:
                chosen |= catalog.labelled(column, [label])
        moved[chosen] += np.float32(boost.weight * finite.std())
    return moved


def pinned(items: list[ItemId], passed: Mask, catalog: Catalog) -> list[int]:
    """Indices of the pinned items that pass the filters, each once."""
    return list(dict.fromkeys(item for item in catalog.find_all(items).tolist() if passed[item]))


def varied(
    items: NDArray[np.int64], scores: NDArray[np.float32], vectors: NDArray[np.float32], k: int, diversity: float
) -> NDArray[np.int64]:
    """`k` of the items, each the best of those left by score less its likeness to one chosen before.

    Maximal marginal relevance (Carbonell and Goldstein, 1998), scores brought to 0..1.

    Args:
        items: indices, the best first.
        scores: beside them.
        vectors: of all items, of length 1.
        k: how many to take.
        diversity: 0 keeps the order by score.
    """
    span = max(float(scores[0] - scores[-1]), 1e-9) if len(scores) else 1.0
    relevance = (scores - scores.min(initial=np.inf)) / span
    own = vectors[items]
    nearest = np.zeros(len(items), np.float32)
    left = np.ones(len(items), np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(k, len(items)):
        value = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(value.argmax())
        left[best] = False
        chosen.append(best)
        nearest = np.maximum(nearest, own @ own[best])
    return items[chosen]
