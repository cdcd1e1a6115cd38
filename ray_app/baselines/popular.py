"""What everybody buys, and what this user buys again and again."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ray_app.baselines.histories import known
from ray_app.baselines.log import TrainingLog
from ray_app.metrics import Ragged, Scores

WEEK_US = 7 * 24 * 3600 * 1_000_000


@dataclass(frozen=True)
class Popular:
    """The same list for everybody."""

    popularity: Scores

    @classmethod
    def fit(cls, log: TrainingLog) -> Self:
        """Summed event weights of the whole log."""
        return cls(log.popularity().astype(np.float32))

    @classmethod
    def fit_recent(cls, log: TrainingLog) -> Self:
        """Those of the log's last week, equal ones by the whole log's; an item scores its place from below.

        Where there is no clock, of each user's last tenth of events (at least one).
        """
        if log.order_numbers:
            lengths = np.diff(log.offsets)
            to_the_end = np.repeat(log.offsets[1:], lengths) - np.arange(len(log.items))
            recent = to_the_end <= np.repeat(np.ceil(lengths / 10), lengths)
        else:
            recent = log.times > log.times.max(initial=0) - WEEK_US
        keys = np.stack([log.popularity(recent), log.popularity()], axis=1)
        places = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
        return cls(places.astype(np.float32))

    def scores(self, histories: Ragged) -> Scores:
        """Popularity, whatever the history."""
        return np.tile(self.popularity, (len(histories[1]) - 1, 1))


@dataclass(frozen=True)
class PersonalFrequency:
    """Buy again: the user's own items, the most frequent first, the most popular first among equals."""

    unscored: Scores

    @classmethod
    def fit(cls, log: TrainingLog) -> Self:
        """Only what breaks ties and stands behind the own items is learned: popularity."""
        return cls(log.unscored())

    def scores(self, histories: Ragged) -> Scores:
        """An own item scores its place from below, 1, 2, ..., which float32 holds exactly."""
        items, offsets = known(histories)
        num_users, width = len(offsets) - 1, len(self.unscored)
        users = np.repeat(np.arange(num_users), np.diff(offsets))
        own, counts = np.unique(users * width + items, return_counts=True)
        own = own[np.lexsort((self.unscored[own % width], counts, own // width))]
        owner = own // width
        scores = np.tile(self.unscored, (num_users, 1))
        scores[owner, own % width] = np.arange(1, len(own) + 1) - np.searchsorted(owner, owner)
        return scores
