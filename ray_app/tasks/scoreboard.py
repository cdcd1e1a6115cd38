"""The table of results: per-user ranks of many methods -> means, 95% intervals, differences and slices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_app.data.sequences import IntArray, LongArray, Ragged
from ray_app.evaluate_config import EvaluateConfig
from ray_app.metrics import (
    PerUser,
    bootstrap_interval,
    coverage,
    diversity,
    hit_rate,
    mean_popularity,
    mrr,
    ndcg,
    novelty,
    paired_difference,
    popularity_lift,
    recall,
)

MAIN_METRIC = "ndcg@10"
LIST_LENGTH = 10
"""Length of the lists that coverage, novelty, diversity and popularity are taken of."""
UNBOUNDED = np.iinfo(np.int64).max

USER_SLICES = {"0": (0, 0), "1-2": (1, 2), "3-9": (3, 9), "10+": (10, UNBOUNDED), "cold users (0-2)": (0, 2)}
"""By number of events in the user's history."""
TARGET_SLICES = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20), "21+": (21, UNBOUNDED), "rare items (0-5)": (0, 5)}
"""By number of the target's events in the train part; 0 holds the items outside the vocabulary too."""

_POPULARITY = "popularity"
Estimate = dict[str, float]
"""`mean` over users with `low` and `high`, the ends of its 95% bootstrap interval."""


class Outcomes:
    """What every method did for every user: ranks in full, lists only as far as the metrics need them."""

    def __init__(self, methods: list[str], train_counts: LongArray, categories: Ragged | None = None) -> None:
        self.methods = methods
        self._train_counts = train_counts
        self._categories = categories
        self._history: list[LongArray] = []
        self._targets: list[IntArray] = []
        self._num_targets: list[LongArray] = []
        self._ranks: list[list[IntArray]] = [[] for _ in methods]
        self._of_lists: list[list[dict[str, PerUser]]] = [[] for _ in methods]
        self._popularity: list[PerUser] = []
        self._recommended = np.zeros((len(methods), len(train_counts)), np.bool_)

    def add(
        self,
        history: LongArray,
        popularity: PerUser,
        targets: Ragged,
        ranks: list[IntArray],
        lists: list[IntArray],
    ) -> None:
        """Some users more.

        Args:
            history: events in each user's history, `[users]`.
            popularity: mean training events of the items in it, NaN where there are none, `[users]`.
            targets: what was to be found.
            ranks: by method, beside the values of `targets`.
            lists: by method, the top lists, `[users, LIST_LENGTH]`.
        """
        self._history.append(history)
        self._popularity.append(popularity)
        self._targets.append(targets.values)
        self._num_targets.append(targets.lengths)
        for number, (of_targets, top) in enumerate(zip(ranks, lists, strict=True)):
            self._ranks[number].append(of_targets.astype(np.int32))
            self._of_lists[number].append(self._measured(top))
            self._recommended[number, top] = True

    def _measured(self, top: IntArray) -> dict[str, PerUser]:
        found = {"novelty": novelty(top, self._train_counts), _POPULARITY: mean_popularity(top, self._train_counts)}
        return found if self._categories is None else found | {"diversity": diversity(top, self._categories)}

    @property
    def num_users(self) -> int:
        """Users that have a target."""
        return sum(map(len, self._history))

    def history(self) -> LongArray:
        """Events in each user's history, `[users]`."""
        return np.concatenate(self._history)

    def targets(self) -> Ragged:
        """The items that were to be found."""
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(self._num_targets))])
        return Ragged(np.concatenate(self._targets), offsets)

    def target_counts(self) -> LongArray:
        """Events of each target in the train part, beside the values of `targets()`."""
        return self._train_counts[self.targets().values]

    def ranks(self, method: str) -> Ragged:
        """Ranks of the targets."""
        return Ragged(np.concatenate(self._ranks[self.methods.index(method)]), self.targets().offsets)

    def lists(self, method: str) -> dict[str, PerUser]:
        """What each user's list is like: `novelty`, and `diversity` where the catalogue has categories; `[users]`."""
        parts = self._of_lists[self.methods.index(method)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != _POPULARITY}

    def popularity_lift(self, method: str) -> float:
        """By how much the lists are more popular than the histories; NaN if no history has an item."""
        lists = [part[_POPULARITY] for part in self._of_lists[self.methods.index(method)]]
        return popularity_lift(np.concatenate(lists), np.concatenate(self._popularity))

    def coverage(self, method: str) -> float:
        """Share of the catalogue on anybody's list."""
        items = np.flatnonzero(self._recommended[self.methods.index(method)]).astype(np.int32)
        return coverage(items, len(self._train_counts) - 1)


def scoreboard(outcomes: Outcomes, settings: EvaluateConfig, seed: int) -> dict[str, Any]:
    """`metrics` by method, `differences` of the first method to each other one, and `slices`."""
    estimator = Estimator(settings.bootstrap_samples, seed)
    ranks = {method: outcomes.ranks(method) for method in outcomes.methods}
    cutoffs = sorted({*settings.k, LIST_LENGTH})
    main, *others = outcomes.methods
    return {
        "main": main,
        "metric": MAIN_METRIC,
        "metrics": {method: _metrics(outcomes, method, ranks[method], cutoffs, estimator) for method in ranks},
        "differences": {
            other: {MAIN_METRIC: estimator.difference(ndcg(ranks[main], 10), ndcg(ranks[other], 10))}
            for other in others
        },
        "slices": {
            "history": [
                _slice(name, ranks, _of_users(outcomes, bounds), estimator) for name, bounds in USER_SLICES.items()
            ],
            "train_count": [
                _slice(name, ranks, _inside(outcomes.target_counts(), bounds), estimator)
                for name, bounds in TARGET_SLICES.items()
            ],
        },
    }


class Estimator:
    """Means with their intervals, all by the same resamples."""

    def __init__(self, samples: int, seed: int) -> None:
        self._samples, self._seed = samples, seed

    def mean(self, values: PerUser, groups: LongArray | None = None) -> Estimate:
        """Over users, or whatever else was asked about; with `groups` (`bootstrap_interval`) over these."""
        low, high = bootstrap_interval(values, self._samples, self._seed, groups)
        return {"mean": float(values.mean()), "low": low, "high": high}

    def difference(self, a: PerUser, b: PerUser) -> Estimate:
        """Of two methods, the same users on both sides."""
        return dict(zip(("mean", "low", "high"), paired_difference(a, b, self._samples, self._seed), strict=True))


def _metrics(
    outcomes: Outcomes, method: str, ranks: Ragged, cutoffs: list[int], estimator: Estimator
) -> dict[str, Estimate]:
    values = {f"{name}@{k}": of(ranks, k) for name, of in _AT_K.items() for k in cutoffs}
    values |= {"mrr": mrr(ranks)} | {f"{name}@{LIST_LENGTH}": of for name, of in outcomes.lists(method).items()}
    found = {name: estimator.mean(per_user) for name, per_user in values.items()}
    found[f"coverage@{LIST_LENGTH}"] = {"mean": outcomes.coverage(method)}
    lift = outcomes.popularity_lift(method)
    return found if np.isnan(lift) else found | {f"popularity_lift@{LIST_LENGTH}": {"mean": lift}}


_AT_K = {"hit_rate": hit_rate, "recall": recall, "ndcg": ndcg}


def _slice(name: str, ranks: dict[str, Ragged], wanted: NDArray[np.bool_], estimator: Estimator) -> dict[str, Any]:
    """Metrics over some of the targets, and so over the users that have one of them."""
    of_method = {method: _with_a_target(all_ranks.keep(wanted)) for method, all_ranks in ranks.items()}
    kept = next(iter(of_method.values()))
    found: dict[str, Any] = {"name": name, "users": len(kept.lengths), "targets": len(kept.values), "metrics": {}}
    if found["users"]:
        found["metrics"] = {
            method: {
                MAIN_METRIC: estimator.mean(ndcg(some, 10)),
                "hit_rate@10": estimator.mean(hit_rate(some, 10)),
            }
            for method, some in of_method.items()
        }
    return found


def _of_users(outcomes: Outcomes, bounds: tuple[int, int]) -> NDArray[np.bool_]:
    """Which targets belong to users with so long a history."""
    return np.repeat(_inside(outcomes.history(), bounds), outcomes.targets().lengths)


def _inside(values: LongArray, bounds: tuple[int, int]) -> NDArray[np.bool_]:
    return (values >= bounds[0]) & (values <= bounds[1])


def _with_a_target(ranks: Ragged) -> Ragged:
    return ranks.take(np.flatnonzero(ranks.lengths > 0))
