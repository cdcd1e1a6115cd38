"""What customers do while the service runs, counted into the memory that ranks for all of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ray_app.baselines import TrainingLog
from ray_app.data.sequences import Ragged
from ray_app.evidence.moves import Moves
from ray_app.serving.catalog import Catalog
from ray_app.serving.customers import SECOND_US, Customers, Event
from ray_app.serving.events import NewRow
from ray_app.tasks.hybrid import HybridScorer

HALF = 500_000
"""At least so many of the latest events are remembered, and at most twice as many."""


class Lately:
    """Moves since the memory was counted. The memory itself is never written to: another one takes its place."""

    def __init__(
        self, scorer: HybridScorer, customers: Customers, catalog: Catalog, weights: Mapping[str, float] | None
    ) -> None:
        self._scorer = scorer
        self._customers = customers
        self._catalog = catalog
        self._weights = weights or {}
        self._counted = scorer.memory
        nothing = np.zeros(0, np.int32)
        self._older = self._newer = Moves.of(self._log(Ragged(nothing, np.zeros(1, np.int64)), np.zeros(0, np.float32)))
        self._heard = 0

    def moves(self, new: Sequence[NewRow], later: Mapping[str, list[Event]]) -> Moves:
        """What new events add to what was counted.

        Args:
            new: events that were not counted yet.
            later: all that their users did since the dataset was prepared, the new events among it and no newer ones.
        """
        told = {(row.user, row.item, row.time): self._weights.get(row.type or "", 1.0) for row in new}
        items, weights, is_new, lengths = [], list[float](), list[bool](), [0]
        for user, events in later.items():
            of_user = {(self._catalog.find(e.item), e.time): told.get((user, str(e.item), e.time)) for e in events}
            own = self._customers.past(user, [], self._catalog)
            counted = set(zip(own.items.tolist(), (own.times // SECOND_US).tolist(), strict=True))
            past = self._customers.past(user, events, self._catalog)
            known = past.items <= self._counted.num_items
            for item, time in zip(past.items[known].tolist(), past.times[known].tolist(), strict=True):
                weight = None if (item, time // SECOND_US) in counted else of_user.get((item, time))
                items.append(item)
                weights.append(1.0 if weight is None else weight)
                is_new.append(weight is not None)
            lengths.append(len(items))
        histories = Ragged(np.array(items, np.int32), np.array(lengths, np.int64))
        before, weighed = ~np.array(is_new, np.bool_), np.array(weights, np.float32)
        as_counted = Moves.of(self._log(histories.keep(before), weighed[before]))
        return Moves.of(self._log(histories, weighed)).plus(as_counted, -1)

    def count(self, moves: Moves, events: int) -> None:
        """Rank with these too from now on, and in time forget the oldest; safe while others rank."""
        self._newer = self._newer.plus(moves)
        self._heard += events
        self._scorer.memory = self._counted.with_moves(self._older.plus(self._newer))
        if self._heard >= HALF:
            self._older, self._newer, self._heard = self._newer, self._newer.plus(self._newer, -1), 0

    def _log(self, histories: Ragged, weights: NDArray[np.float32]) -> TrainingLog:
        no_times = np.zeros(len(histories.values), np.int64)
        return TrainingLog(histories.values, histories.offsets, no_times, weights, self._counted.num_items)
