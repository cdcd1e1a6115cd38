"""A greedy soup: the mean of those models, fine-tuned from the same start, that are better together than the best is.

Wortsman et al. 2022, arXiv 2203.05482. It costs nothing in use, where an ensemble costs as much as it has members.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ray_app.errors import TrainingError

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Soup:
    """What came of it."""

    weights: dict[str, Tensor]
    members: list[int]
    """Numbers of the models in it, the best first."""
    score: float
    """Of the soup, on validation; that of the best model where no other helped."""


def greedy_soup(models: Sequence[Weights], scores: Sequence[float], judge: Callable[[Weights], float]) -> Soup:
    """Add one model after another, the best first, as long as validation is not worse for it.

    Args:
        models: weights by name, all of one network.
        scores: what `judge` said of each, when it was trained.
        judge: validation metric of weights; higher is better. Called for each soup that is tried.

    Raises:
        TrainingError: the models are not of one network.
    """
    for number, weights in enumerate(models):
        _check_same(models[0], weights, number)
    first, *others = sorted(range(len(models)), key=lambda number: -scores[number])
    soup = Soup(dict(models[first]), [first], scores[first])
    for number in others:
        tried = _stirred(soup, models[number])
        score = judge(tried)
        if score >= soup.score:
            soup = Soup(tried, [*soup.members, number], score)
    return soup


def _stirred(soup: Soup, weights: Weights) -> dict[str, Tensor]:
    """The mean of what is in the soup and of one more; what is no number to average stays as it is."""
    share = 1 / (len(soup.members) + 1)
    return {
        name: torch.lerp(value, weights[name], share) if value.is_floating_point() else value
        for name, value in soup.weights.items()
    }


def _check_same(one: Weights, other: Weights, number: int) -> None:
    differing = sorted(one.keys() ^ other.keys()) or [n for n in sorted(one) if one[n].shape != other[n].shape]
    if differing:
        raise TrainingError(f"a soup is of one network: model {number} differs from model 0 in {', '.join(differing)}")
