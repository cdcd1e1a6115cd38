"""What the prepared dataset knows of every user: flat arrays, found by id."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ray_app.data.dataset import Dataset
from ray_app.data.sequences import COLUMNS, Events, Histories, Ragged
from ray_app.schema import PAD
from ray_app.serving.catalog import Catalog
from ray_app.serving.schemas import ItemId, UserId

SECOND_US = 1_000_000
NOW = np.iinfo(np.int64).max
"""Time of an event that has none: after all others."""


class Event(NamedTuple):
    """Something a user did after the dataset was prepared."""

    item: ItemId
    time: int = NOW
    """Microseconds since 1970 UTC."""
    type: str | None = None


class Past(NamedTuple):
    """A user's events, oldest first."""

    items: NDArray[np.int64]
    """Item indices."""
    times: NDArray[np.int64]
    """Microseconds since 1970, or 0 where the dataset has no clock."""
    clicks: NDArray[np.bool_]
    """Which events are of a type that weighs nothing."""
    known: bool
    """Whether anything was known of the user."""
    unknown: list[ItemId]
    """Ids among the later events that the catalogue does not have."""


class Customers:
    """Histories by user id."""

    def __init__(self, histories: Histories, clock: bool, event_types: Mapping[str, float] | None = None) -> None:
        self._rows = {str(user): row for row, user in enumerate(histories.user_ids.to_pylist())}
        self._items, self._times, self._offsets = histories.items, histories.times, histories.offsets
        self._clicks = histories.weights == 0
        self._weights = event_types or {}
        self.clock = clock

    @classmethod
    def read(cls, dataset: Dataset) -> Self:
        """All parts of a prepared dataset."""
        tables = [dataset.storage.read_table(uri, COLUMNS) for uri in dataset.part_uris]
        data = dataset.manifest.data
        return cls(Histories.from_tables(tables), data["timestamp_unit"] != "order", data["event_types"])

    def __len__(self) -> int:
        return len(self._rows)

    def first(self, count: int) -> list[str]:
        """Ids of some users."""
        return list(self._rows)[:count]

    def sample(self, count: int) -> Ragged:
        """Histories of some users that have one, the same whenever it is asked."""
        known = Events(self._items, self._offsets, self._clicks).keep(self._items != PAD)
        return known.take(np.random.default_rng(0).permutation(np.flatnonzero(known.lengths))[:count])

    def past(self, user: UserId | None, later: list[Event], catalog: Catalog) -> Past:
        """The dataset's events of a user and later ones, in their order of time.

        A later event that the dataset has too (same item, same second) counts once: the log has caught up with it.
        """
        row = None if user is None else self._rows.get(str(user))
        stretch = slice(0, 0) if row is None else slice(self._offsets[row], self._offsets[row + 1])
        items = self._items[stretch].astype(np.int64)
        times = self._times[stretch] if self.clock else np.zeros(len(items), np.int64)
        clicks, known = self._clicks[stretch], items != PAD
        items, times, clicks = items[known], times[known], clicks[known]
        if not later:
            return Past(items, times, clicks, row is not None, [])
        there = set(zip(items.tolist(), (times // SECOND_US).tolist(), strict=True))
        found = [(catalog.find(event.item), event.time, self._is_click(event)) for event in later]
        unknown = [event.item for event, (item, *_) in zip(later, found, strict=True) if item == PAD]
        added = [one for one in found if one[0] != PAD and (one[0], one[1] // SECOND_US) not in there]
        items = np.concatenate([items, np.array([item for item, _, _ in added], np.int64)])
        times = np.concatenate([times, np.array([time for _, time, _ in added], np.int64)])
        clicks = np.concatenate([clicks, np.array([is_click for _, _, is_click in added], np.bool_)])
        order = np.argsort(times, kind="stable")
        return Past(items[order], times[order], clicks[order], row is not None, list(dict.fromkeys(unknown)))

    def _is_click(self, event: Event) -> bool:
        return event.type is not None and self._weights.get(event.type) == 0
