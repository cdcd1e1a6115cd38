"""Untrained recommenders that every trained one must beat, fitted by counting training events.

A fitted baseline's `scores(histories)` are float32 `[users, num_items + 1]`, ready for `metrics`; what it says nothing
about is ordered by popularity. It is a few arrays and sparse matrices that are never written to, so that processes may
share them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from ray_app.baselines.log import TrainingLog, read_log, read_whole_log
from ray_app.baselines.neighbors import ItemKNN, item_texts, text_similarity
from ray_app.baselines.popular import PersonalFrequency, Popular
from ray_app.baselines.transitions import GRAPH_ALONE, WITH_TEXT, Transitions
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import Ragged
from ray_app.metrics import Scores, ndcg, target_ranks

__all__ = [
    "CANDIDATES",
    "Baseline",
    "TrainingLog",
    "choose",
    "fit_baselines",
    "item_texts",
    "read_log",
    "read_whole_log",
]

CHOICE_USERS = 10_000
"""A sample of so many users is enough to choose between candidates."""
BATCH_USERS = 256


class Baseline(Protocol):
    """A fitted baseline."""

    def scores(self, histories: Ragged) -> Scores:
        """Scores `[users, num_items + 1]` after histories of item indices, oldest to newest; `PAD` is passed over."""
        ...


def _transitions(log: TrainingLog, texts: Sequence[str]) -> list[Baseline]:
    return [Transitions.fit(log, weights) for weights in GRAPH_ALONE]


def _transitions_text(log: TrainingLog, texts: Sequence[str]) -> list[Baseline]:
    similarity = text_similarity(texts)
    return [Transitions.fit(log, weights, similarity) for weights in WITH_TEXT]


CANDIDATES: dict[str, Callable[[TrainingLog, Sequence[str]], list[Baseline]]] = {
    "popular": lambda log, texts: [Popular.fit(log)],
    "popular_recent": lambda log, texts: [Popular.fit_recent(log)],
    "personal_frequency": lambda log, texts: [PersonalFrequency.fit(log)],
    "item_knn": lambda log, texts: [ItemKNN.fit(log)],
    "transitions": _transitions,
    "transitions_text": _transitions_text,
}
"""By the configuration's name, what fits it to a log and the texts of the items 1, 2, ..., once per set of weights."""


def fit_baselines(names: Iterable[str], dataset: Dataset, exclude_seen: bool = False) -> dict[str, Baseline]:
    """The named baselines, fitted to the train part of a prepared dataset, which is read into memory.

    Of one that has several sets of weights, the set that ranks the validation part best; `exclude_seen` as evaluated.
    """
    log, targets = read_log(dataset)
    texts = item_texts(dataset.items())
    known = Ragged(log.items, log.offsets)
    return {name: choose(CANDIDATES[name](log, texts), known, targets, exclude_seen) for name in names}


def choose(candidates: Sequence[Baseline], known: Ragged, targets: Ragged, exclude_seen: bool) -> Baseline:
    """The candidate with the best NDCG@10 on `targets`, the first of equals; each user weighs the same."""
    if len(candidates) == 1:
        return candidates[0]
    if exclude_seen:
        targets = targets.without(known)
    users = np.flatnonzero(targets.lengths > 0)
    users = np.random.default_rng(0).permutation(users)[:CHOICE_USERS]
    gained = np.zeros(len(candidates))
    for start in range(0, len(users), BATCH_USERS):
        batch = users[start : start + BATCH_USERS]
        histories = known.take(batch)
        for number, candidate in enumerate(candidates):
            ranks = target_ranks(candidate.scores(histories), targets.take(batch), histories if exclude_seen else None)
            gained[number] += ndcg(ranks, 10).sum()
    return candidates[int(np.argmax(gained))]
