"""Why an item is recommended, in words that hold: what was bought with it, what it is like, how it sells."""

from collections import Counter
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ray_app.evidence.item_index import NEVER, ItemIndex
from ray_app.serving.catalog import Catalog
from ray_app.serving.likeness import Likeness, Vectors
from ray_app.serving.schemas import Reason

RECENT_ITEMS = 100
"""Distinct items of the history that may be named."""
ALIKE = 0.5
"""Likeness from which an item of the history is named although the two were never bought together."""
POPULAR_SHARE = 0.05
"""Of the catalogue: the best sellers."""
NEW_US = 30 * 24 * 3600 * 1_000_000
"""An item is new for so long after its first sale."""


class Reasons:
    """Reasons for the items of one version."""

    def __init__(self, index: ItemIndex, catalog: Catalog) -> None:
        size = len(index.counts)
        self._catalog = catalog
        self._together = index.together
        self._size = size
        self._best_sellers = np.zeros(size, np.bool_)
        self._best_sellers[index.by_popularity()[: max(1, int(size * POPULAR_SHARE))]] = True
        self._new = (index.first != NEVER) & (index.first > index.last_time - NEW_US)

    def of(self, items: NDArray[np.int64], history: NDArray[np.int64], likeness: Likeness, pinned: int) -> list[Reason]:
        """One reason for each item.

        Args:
            items: item indices.
            history: item indices, oldest first.
            likeness: of all items.
            pinned: so many of the first items were pinned.
        """
        recent = np.array(list(dict.fromkeys(history[::-1].tolist()))[:RECENT_ITEMS], np.int64)
        times = Counter(history.tolist())

        @cache
        def alike() -> Vectors:  # dearer than all else, and most items are explained without it
            return likeness.rows(items) @ likeness.rows(recent).T

        in_recent = np.zeros(self._size, np.bool_)
        in_recent[recent[recent < self._size]] = True
        return [
            Reason(kind="pinned", text="Chosen by the shop")
            if place < pinned
            else self._again(times[item])
            if item in times
            else self._counted(item, in_recent) or self._compared(item, recent, alike()[place])
            for place, item in enumerate(items.tolist())
        ]

    @staticmethod
    def _again(times: int) -> Reason:
        return Reason(kind="again", text="You bought it before" if times == 1 else f"You bought it {times} times")

    def _counted(self, item: int, in_recent: NDArray[np.bool_]) -> Reason | None:
        """Of an item that the user did not buy, where what was counted says enough."""
        if (companion := self._companion(item, in_recent)) is not None:
            return self._because(companion, "Often bought with")
        if item >= self._size or self._new[item]:
            return Reason(kind="new", text="New in the shop")
        return None

    def _compared(self, item: int, recent: NDArray[np.int64], likeness: Vectors) -> Reason:
        if not len(recent) or (self._best_sellers[item] and likeness.max() < ALIKE):
            return Reason(kind="popular", text="Popular in the shop")
        return self._because(int(recent[likeness.argmax()]), "Because you bought")

    def _companion(self, item: int, in_recent: NDArray[np.bool_]) -> int | None:
        """The item of the history that is bought together with it the most."""
        if item >= self._size:
            return None
        stretch = slice(self._together.indptr[item], self._together.indptr[item + 1])
        neighbors, strength = self._together.indices[stretch], self._together.data[stretch]
        shared = in_recent[neighbors]
        return int(neighbors[shared][strength[shared].argmax()]) if shared.any() else None

    def _because(self, item: int, words: str) -> Reason:
        described = self._catalog.describe(item)
        return Reason(kind="because", text=f"{words} {described.title}", item_id=described.item_id)
