from pathlib import Path

import lightgbm
import numpy as np
import pytest

from ray_app.checkpoint import CheckpointError
from ray_app.errors import DataError
from ray_app.evidence.ranker import FOLDS, MIN_USERS, PATIENCE, Ranker, cross_validated
from ray_app.train_config import RankerConfig

CONFIG = RankerConfig(max_trees=40, min_leaf=20)
CANDIDATES = 12


def examples(num_users: int):
    """Of each user's candidates the one with the greatest `good` is wanted, nine times in ten; `noise` says nothing."""
    rng = np.random.default_rng(0)
    good, noise = rng.random((2, num_users, CANDIDATES), np.float32)
    best = np.where(rng.random(num_users) < 0.9, good.argmax(1), rng.integers(CANDIDATES, size=num_users))
    wanted = np.arange(CANDIDATES) == best[:, None]
    features = {"noise": noise.ravel(), "good": good.ravel()}
    return features, wanted.ravel(), np.full(num_users, CANDIDATES)


def test_it_learns_what_is_wanted_and_repeats_itself_with_any_number_of_threads(tmp_path: Path):
    features, wanted, sizes = examples(600)
    ranker, measured = Ranker.fit(features, wanted, sizes, CONFIG, seed=0, threads=1)
    assert measured["users"] == 600
    assert measured["held_out_ndcg@10"] > 0.85
    assert ranker.importance()["good"] > 0.8
    scores = ranker.scores(features)
    assert (scores.reshape(-1, CANDIDATES).argmax(1) == features["good"].reshape(-1, CANDIDATES).argmax(1)).mean() > 0.8
    again = Ranker.fit(features, wanted, sizes, CONFIG, seed=0, threads=2)[0]
    assert np.array_equal(again.scores(features), scores)
    ranker.save(tmp_path / "ranker.txt")
    loaded = Ranker.load(tmp_path / "ranker.txt", {"good", "noise"})
    assert np.array_equal(loaded.scores(dict(reversed(features.items()))), scores)  # features go by their name


@pytest.mark.parametrize(("max_trees", "ended_early"), [(5, False), (400, True)])
def test_trees_are_counted_as_by_cross_validation_of_lightgbm(max_trees: int, ended_early: bool):
    features, wanted, sizes = examples(300)
    parameters = {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "seed": 1, "verbosity": -1}
    parameters |= {"num_leaves": 7, "num_threads": 1, "deterministic": True, "force_row_wise": True}
    data = lightgbm.Dataset(np.stack(list(features.values()), 1), wanted, group=sizes, free_raw_data=True).construct()
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    theirs = lightgbm.cv(parameters, data, max_trees, nfold=FOLDS, callbacks=[stop])
    ours = cross_validated(data, sizes, parameters, max_trees, threads=3)
    assert ours == theirs["valid ndcg@10-mean"]
    assert (len(ours) < max_trees - PATIENCE) is ended_early


def test_a_ranker_of_another_version_is_refused(tmp_path: Path):
    features, wanted, sizes = examples(200)
    Ranker.fit(features, wanted, sizes, CONFIG, seed=0, threads=1)[0].save(tmp_path / "ranker.txt")
    with pytest.raises(CheckpointError, match=r"features unknown here: \['noise'\]"):
        Ranker.load(tmp_path / "ranker.txt", {"good"})


def test_too_few_users_to_learn_from():
    features, wanted, sizes = examples(MIN_USERS - 1)
    with pytest.raises(DataError, match="leave ranker out"):
        Ranker.fit(features, wanted, sizes, CONFIG, seed=0, threads=1)
