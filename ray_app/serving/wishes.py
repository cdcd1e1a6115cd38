"""What the shop wants beside what the model holds best: boosts and pinned items."""

import numpy as np
from numpy.typing import NDArray

from ray_app.schema import Col
from ray_app.serving.catalog import Catalog, Mask
from ray_app.serving.schemas import Boost, ItemId


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
