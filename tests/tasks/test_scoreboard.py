import math

import numpy as np
import pytest

from ray_app.data.sequences import Ragged
from ray_app.evaluate_config import EvaluateConfig
from ray_app.metrics import MISS
from ray_app.tasks.scoreboard import LIST_LENGTH, Outcomes, scoreboard

SETTINGS = EvaluateConfig(k=(1, 10), bootstrap_samples=100)
NUM_ITEMS = 99
TRAIN_COUNTS = np.array([0, 0, 3, 8, 50, *[0] * (NUM_ITEMS - 4)])  # of item 0 (padding) first


def lists(*rows):
    return np.array([[*row, *[0] * (LIST_LENGTH - len(row))] for row in rows], np.int32)


def ragged(*rows):
    return Ragged(np.array([x for row in rows for x in row], np.int32), np.cumsum([0, *map(len, rows)]))


@pytest.fixture
def board():
    """Two batches, three users: targets [1, 4] after 0 events, [0] (unknown) after 2, [3] after 12."""
    categories = ragged([], [0], [0], [1], [0, 1], *[[]] * (NUM_ITEMS - 4))  # of items 0 (padding), 1, 2, ...
    outcomes = Outcomes(["ours", "theirs"], TRAIN_COUNTS, categories)
    outcomes.add(
        np.array([0, 2]),
        np.array([np.nan, 4.0]),
        ragged([1, 4], [0]),
        [np.array([1, 3, MISS]), np.array([4, 4, MISS])],
        [lists([1, 2], [3]), lists([4], [4])],
    )
    outcomes.add(
        np.array([12]), np.array([16.0]), ragged([3]), [np.array([2]), np.array([1])], [lists([1]), lists([4])]
    )
    return scoreboard(outcomes, SETTINGS, seed=1)


def test_means_of_hand_worked_ranks(board):
    ours = board["metrics"]["ours"]
    first = (1 + 0.5) / (1 + 1 / math.log2(3))
    assert ours["ndcg@10"]["mean"] == pytest.approx((first + 0 + 1 / math.log2(3)) / 3)
    assert ours["hit_rate@1"]["mean"] == pytest.approx(1 / 3)
    assert ours["recall@1"]["mean"] == pytest.approx((1 / 2) / 3)
    assert ours["mrr"]["mean"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert ours["coverage@10"] == {"mean": 3 / NUM_ITEMS}
    assert board["metrics"]["theirs"]["coverage@10"] == {"mean": 1 / NUM_ITEMS}
    assert ours["diversity@10"]["mean"] == 0  # items of one category
    assert board["metrics"]["theirs"]["diversity@10"]["mean"] == 1  # items of two
    # Of the two users with a history: items 3 and 1 of 8 and 0 train events after histories of 4 and 16 on average.
    assert ours["popularity_lift@10"] == {"mean": pytest.approx((8 + 0) / (4 + 16) - 1)}
    assert board["metrics"]["theirs"]["popularity_lift@10"] == {"mean": pytest.approx((50 + 50) / 20 - 1)}


def test_every_mean_over_users_lies_in_its_interval(board):
    for metrics in board["metrics"].values():
        assert set(metrics) == {
            *("hit_rate@1", "hit_rate@10", "recall@1", "recall@10", "ndcg@1", "ndcg@10"),
            *("mrr", "novelty@10", "diversity@10", "coverage@10", "popularity_lift@10"),
        }
        for name, value in metrics.items():
            assert name in ("coverage@10", "popularity_lift@10") or value["low"] <= value["mean"] <= value["high"]


def test_the_first_method_is_compared_with_the_others_user_by_user(board):
    assert board["main"] == "ours"
    difference = board["differences"]["theirs"]["ndcg@10"]
    ours, theirs = (board["metrics"][name]["ndcg@10"]["mean"] for name in ("ours", "theirs"))
    assert difference["mean"] == pytest.approx(ours - theirs)
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert "ours" not in board["differences"]


def test_users_are_sliced_by_the_length_of_their_history(board):
    slices = {one["name"]: one for one in board["slices"]["history"]}
    assert {name: one["users"] for name, one in slices.items()} == {
        "0": 1,
        "1-2": 1,
        "3-9": 0,
        "10+": 1,
        "cold users (0-2)": 2,
    }
    assert slices["10+"]["metrics"]["theirs"]["ndcg@10"]["mean"] == 1
    assert slices["3-9"]["metrics"] == {}


def test_targets_are_sliced_by_how_often_they_were_bought(board):
    slices = {one["name"]: one for one in board["slices"]["train_count"]}
    assert {name: one["targets"] for name, one in slices.items()} == {
        "0": 2,  # an item that nobody bought, and one outside the vocabulary
        "1-5": 0,
        "6-20": 1,
        "21+": 1,
        "rare items (0-5)": 2,
    }
    # Of the first user's two targets the slice looks at item 1 alone, which was ranked first.
    assert slices["0"]["metrics"]["ours"]["ndcg@10"]["mean"] == 1 / 2
    assert slices["0"]["metrics"]["ours"]["hit_rate@10"]["mean"] == 1 / 2
