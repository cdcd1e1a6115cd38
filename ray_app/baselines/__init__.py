"""Untrained recommenders that every trained one must beat, fitted by counting training events.

A fitted baseline's `scores(histories)` are float32 `[users, num_items + 1]`, ready for `metrics`; what it says nothing
about is ordered by popularity. It is a few arrays and sparse matrices that are never written to, so that processes may
share them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ray_app.baselines.log import TrainingLog, read_training_log
from ray_app.baselines.neighbors import ItemKNN, item_texts
from ray_app.baselines.popular import PersonalFrequency, Popular
from ray_app.baselines.transitions import WITH_TEXT, Transitions, TransitionWeights
from ray_app.data.dataset import Dataset
from ray_app.metrics import Ragged, Scores

__all__ = [
    "BASELINES",
    "WITH_TEXT",
    "Baseline",
    "ItemKNN",
    "PersonalFrequency",
    "Popular",
    "TrainingLog",
    "TransitionWeights",
    "Transitions",
    "fit_baselines",
    "item_texts",
    "read_training_log",
]


class Baseline(Protocol):
    """A fitted baseline."""

    def scores(self, histories: Ragged) -> Scores:
        """Scores `[users, num_items + 1]` after histories of item indices, oldest to newest; `PAD` is passed over."""
        ...


BASELINES: dict[str, Callable[[TrainingLog, Sequence[str]], Baseline]] = {
    "popular": lambda log, texts: Popular.fit(log),
    "popular_recent": lambda log, texts: Popular.fit_recent(log),
    "personal_frequency": lambda log, texts: PersonalFrequency.fit(log),
    "item_knn": lambda log, texts: ItemKNN.fit(log),
    "transitions": lambda log, texts: Transitions.fit(log),
    "transitions_text": lambda log, texts: Transitions.fit(log, WITH_TEXT, texts),
}
"""By the configuration's name, what fits it to a log and to the texts of the items 1, 2, ..."""


def fit_baselines(names: Iterable[str], dataset: Dataset) -> dict[str, Baseline]:
    """The named baselines, fitted to the train part of a prepared dataset, which is read into memory."""
    log, texts = read_training_log(dataset), item_texts(dataset.items())
    return {name: BASELINES[name](log, texts) for name in names}
