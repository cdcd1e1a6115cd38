"""The ranker: boosted trees that order a user's candidates, fitted to what users of the validation part did next.

Why trees on top, and why on the validation part: the weights of the evidence, learned with the sequence model on the
train part, rank worse than untrained ones, since counts there hold the very events that are to be foretold and what is
rare there is likelier later (benchmarks/LOG.md). A held-out part has neither fault.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ray_app.checkpoint import CheckpointError
from ray_app.errors import DataError
from ray_app.train_config import RankerConfig

MIN_USERS = 50
"""Fewer users whose next item is among the candidates cannot teach anything."""
FOLDS = 4
PATIENCE = 100
"""Trees without gain on held-out users after which no more are grown. With 30 a fit of Amazon Sports ended at 48 trees
and ranked 4% worse on test than the 229 that it has with 100 (benchmarks/LOG.md)."""
CUT = 10


def too_few_users(number: int) -> DataError:
    """What is raised where nothing can be learned."""
    return DataError(
        f"the ranker needs {MIN_USERS} users of the validation part whose next item is among the candidates, and there "
        f"are {number}: give the validation part more time, or leave ranker out"
    )


class Ranker:
    """LambdaMART (Burges 2010, MSR-TR-2010-82) as LightGBM has it, on named features."""

    def __init__(self, booster: Any) -> None:
        self._booster = booster
        self.features: list[str] = booster.feature_name()

    @classmethod
    def fit(
        cls,
        features: dict[str, NDArray[np.float32]],
        wanted: NDArray[np.bool_],
        group_sizes: NDArray[np.int64],
        config: RankerConfig,
        *,
        seed: int,
        threads: int,
    ) -> tuple[Self, dict[str, float]]:
        """Choose the number of trees by cross-validation over users, then fit as many to all of them.

        Args:
            features: by name, one number per candidate; the candidates of a user lie side by side.
            wanted: whether the user took the candidate next.
            group_sizes: candidates of each user, at least one of whom is wanted.
            config: size and number of the trees.
            seed: of the sampling of rows and features.
            threads: at most so many; their number does not change the result.

        Returns:
            The ranker, and what was measured: users, candidates, trees, NDCG@10 of the held-out users.

        Raises:
            DataError: too few users to learn from.
        """
        import lightgbm  # noqa: PLC0415 (a second that the many processes without a ranker do not need)

        if len(group_sizes) < MIN_USERS:
            raise too_few_users(len(group_sizes))
        parameters = {
            "objective": "lambdarank",
            "metric": "ndcg",
            "eval_at": [CUT],
            "lambdarank_truncation_level": 2 * CUT,
            "learning_rate": config.learning_rate,
            "num_leaves": config.num_leaves,
            "min_data_in_leaf": config.min_leaf,
            "feature_fraction": 0.6,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "seed": seed,
            "num_threads": max(1, threads // FOLDS),
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        names = list(features)
        table = np.stack([features[name] for name in names], axis=1)
        # Folds are then cut out of the binned table alone, a byte per number, and the raw one is not copied for each.
        data = lightgbm.Dataset(
            table, wanted.astype(np.int8), group=group_sizes, feature_name=names, params=parameters, free_raw_data=True
        ).construct()
        del table
        held_out = cross_validated(data, group_sizes, parameters, config.max_trees, threads)
        booster = lightgbm.train({**parameters, "num_threads": threads}, data, len(held_out))
        measured = {
            "users": float(len(group_sizes)),
            "candidates": float(len(wanted)),
            "trees": float(booster.num_trees()),
            "held_out_ndcg@10": float(held_out[-1]),
        }
        return cls(booster), measured

    def scores(self, features: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        """One score per candidate; only those of one user may be compared."""
        table = np.stack([features[name] for name in self.features], axis=1)
        found: NDArray[np.float64] = self._booster.predict(table, num_threads=1)
        return found

    def importance(self) -> dict[str, float]:
        """By feature, the share of the gain of all splits."""
        gain = self._booster.feature_importance("gain")
        return dict(zip(self.features, (gain / max(gain.sum(), 1e-12)).tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write LightGBM's text format."""
        path.write_text(self._booster.model_to_string())

    @classmethod
    def load(cls, path: Path, known: set[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: it asks for features that this version does not compute.
        """
        import lightgbm  # noqa: PLC0415 (as above)

        ranker = cls(lightgbm.Booster(model_str=path.read_text()))
        if unknown := sorted(set(ranker.features) - known):
            raise CheckpointError(f"{path}: was fitted by another version, to features unknown here: {unknown}")
        return ranker


def cross_validated(
    data: Any, group_sizes: NDArray[np.int64], parameters: dict[str, Any], max_trees: int, threads: int
) -> list[float]:
    """NDCG of held-out users after each tree, up to the number of trees that serves them best.

    As `lightgbm.cv` with early stopping, but with folds side by side. There all threads work at one fold after the
    other, and meet so often that two of them on two busy cores took 1.6 times the CPU time of one, and twice the wall
    time of this (benchmarks/LOG.md).
    """
    from lightgbm import Booster  # noqa: PLC0415 (as above)
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415 (as above)

    users = np.repeat(np.arange(len(group_sizes)), group_sizes)
    boosters = []
    for taught, held_out in GroupKFold(FOLDS).split(users, groups=users):
        boosters.append(Booster(parameters, data.subset(taught)))
        boosters[-1].add_valid(data.subset(held_out), "held out")

    def grown(booster: Any) -> float:
        booster.update()
        [(_, _, ndcg, _)] = booster.eval_valid()
        return float(ndcg)

    curve: list[float] = []
    with ThreadPoolExecutor(min(threads, FOLDS)) as pool:
        # All folds at the same pace, until the mean of what they hold out stands still.
        while len(curve) < max_trees and len(curve) <= int(np.argmax(curve or [0])) + PATIENCE:
            curve.append(float(np.mean(list(pool.map(grown, boosters)))))
    return curve[: int(np.argmax(curve)) + 1]
