"""What the shop wants beside what the model holds best: boosts and pinned items, and what it does not want."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_app.schema import Col
from ray_app.serving.catalog import Catalog, Mask
from ray_app.serving.schemas import Boost, RecommendRequest


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


class Wish(NamedTuple):
    """Which items may be in an answer."""

    first: list[int]
    """Indices of those that the shop pinned, if they pass the filters."""
    passed: Mask
    """The others, `[items + 1]`."""


def wish_of(request: RecommendRequest, seen: NDArray[np.int64], catalog: Catalog) -> Wish:
    """What the request lets through; `seen` are indices of items that are left out unless they are pinned."""
    passed = catalog.mask(request.filters)
    pinned = [item for item in catalog.find_all(request.pin).tolist() if passed[item]]
    first = list(dict.fromkeys(pinned))[: request.k]
    passed[first] = False
    passed[seen] = False
    return Wish(first, passed)
