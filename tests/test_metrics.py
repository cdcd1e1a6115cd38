import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from ray_app.metrics import (
    MISS,
    PAD,
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
    target_ranks,
    top_k,
)
from ray_app.schema import PAD as SCHEMA_PAD


def ragged(*lists, dtype=np.int32):
    values = np.array([x for one in lists for x in one], dtype)
    return values, np.cumsum([0, *map(len, lists)], dtype=np.int64)


def scores(*rows):
    """Rows of item scores; column PAD gets a score that would win if it were ranked."""
    return np.array([[99.0, *row] for row in rows], np.float32)


def test_pad_is_the_schemas_pad():
    assert PAD == SCHEMA_PAD


def test_rank_counts_better_items_and_ties_of_lower_index():
    given_scores = scores([0.1, 0.5, 0.5, 0.9], [3.0, 2.0, 1.0, 0.0])
    ranks, offsets = target_ranks(given_scores, ragged([1, 2, 3, 4], [3]))
    assert ranks.tolist() == [4, 2, 3, 1, 3]
    assert ranks.dtype == np.int64
    assert offsets.tolist() == [0, 4, 5]


def test_seen_items_are_taken_out_of_the_ranking():
    given_scores = scores([0.1, 0.5, 0.5, 0.9])
    ranks, _ = target_ranks(given_scores, ragged([1, 3, 4]), seen=ragged([4, 2, 4, PAD]))
    assert ranks.tolist() == [2, 1, MISS]  # item 4 is seen itself: a miss


def test_what_cannot_be_ranked_is_a_miss():
    given_scores = scores([0.1, -np.inf, 0.5])
    ranks, _ = target_ranks(given_scores, ragged([PAD, 2, PAD, 1]))
    assert ranks.tolist() == [MISS, MISS, MISS, 2]


def test_a_miss_scores_nothing_in_a_catalogue_smaller_than_the_list():
    """It had the rank after the last item: with three items, fourth of a list of ten."""
    rows = scores([0.1, -np.inf, 0.5], [0.1, 0.2, 0.5])
    ranks = target_ranks(rows, ragged([2, PAD], [1, 3]), seen=ragged([], [3]))
    for metric in (lambda r: hit_rate(r, 10), lambda r: recall(r, 10), lambda r: ndcg(r, 10), mrr):
        missed, found = metric(ranks)
        assert missed == 0
        assert found > 0
    assert recall(ranks, 10)[1] == 1 / 2
    assert mrr(ranks)[1] == 1 / 2


def test_scores_are_left_as_they_were():
    given_scores = scores([0.1, 0.5])
    before = given_scores.copy()
    target_ranks(given_scores, ragged([1]), seen=ragged([2]))
    top_k(given_scores, 1, seen=ragged([2]))
    np.testing.assert_array_equal(given_scores, before)


@pytest.mark.parametrize("rank", [lambda s: target_ranks(s, ragged([1])), lambda s: top_k(s, 1)])
def test_nan_is_refused(rank):
    with pytest.raises(ValueError, match="NaN"):
        rank(scores([np.nan, 0.5]))


def test_a_repeated_target_is_refused():
    with pytest.raises(ValueError, match="distinct"):
        target_ranks(scores([0.1, 0.5]), ragged([2, 2]))


def test_top_k_pads_short_lists():
    items, best = top_k(scores([0.1, -np.inf, 0.5], [1.0, 1.0, 1.0]), 4, seen=ragged([], [1]))
    assert items.tolist() == [[3, 1, PAD, PAD], [2, 3, PAD, PAD]]
    assert items.dtype == np.int32
    assert best.tolist() == [[0.5, np.float32(0.1), -np.inf, -np.inf], [1.0, 1.0, -np.inf, -np.inf]]


@st.composite
def rankings(draw):
    """Scores from few distinct values (so that ties abound, also signed zeros and infinities), seen items, and a k."""
    num_users, num_items = draw(st.integers(1, 4)), draw(st.integers(1, 30))
    few = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 2.0, np.inf])
    rows = draw(st.lists(st.lists(few, min_size=num_items, max_size=num_items), min_size=num_users, max_size=num_users))
    history = st.lists(st.integers(0, num_items), max_size=8)
    seen = draw(st.none() | st.lists(history, min_size=num_users, max_size=num_users))
    return scores(*rows), None if seen is None else ragged(*seen), draw(st.integers(1, num_items + 3))


@given(rankings())
@settings(max_examples=300)
def test_lists_and_ranks_agree(ranking):
    given_scores, seen, k = ranking
    num_users, num_items = len(given_scores), given_scores.shape[1] - 1
    everything = ragged(*[range(1, num_items + 1)] * num_users)
    ranks = target_ranks(given_scores, everything, seen)[0].reshape(num_users, num_items)
    items, best = top_k(given_scores, k, seen)
    for user in range(num_users):
        listed = {int(item): place for place, item in enumerate(items[user], start=1) if item != PAD}
        expected = {item: rank for item, rank in enumerate(ranks[user].tolist(), start=1) if rank <= min(k, num_items)}
        assert listed == expected
        padded = items[user] == PAD
        np.testing.assert_array_equal(best[user], np.where(padded, -np.inf, given_scores[user, items[user]]))


@given(rankings())
@settings(max_examples=100)
def test_ranks_of_distinct_ranked_items_are_one_to_n(ranking):
    given_scores, seen, _ = ranking
    num_items = given_scores.shape[1] - 1
    for user in range(len(given_scores)):
        one_seen = None if seen is None else (seen[0][seen[1][user] : seen[1][user + 1]],)
        one_seen = None if one_seen is None else ragged(*one_seen)
        row = given_scores[user : user + 1]
        ranks, _ = target_ranks(row, ragged(range(1, num_items + 1)), one_seen)
        ranked = np.sort(ranks[ranks <= num_items])
        np.testing.assert_array_equal(ranked, np.arange(1, len(ranked) + 1))


# Three users with one, two and three targets: ranks 3 | 1, 11 | 2, 4, 50.
RANKS = ragged([3], [1, 11], [2, 4, 50], dtype=np.int64)


def test_hit_rate_by_hand():
    assert hit_rate(RANKS, 1).tolist() == [0, 1, 0]
    assert hit_rate(RANKS, 3).tolist() == [1, 1, 1]


def test_recall_by_hand():
    assert recall(RANKS, 1).tolist() == [0, 1 / 2, 0]
    assert recall(RANKS, 10).tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert recall(RANKS, 50).tolist() == [1, 1, 1]


def test_ndcg_by_hand():
    two = 1 + 1 / math.log2(3)
    expected = [1 / math.log2(4), 1 / two, (1 / math.log2(3) + 1 / math.log2(5)) / (two + 1 / math.log2(4))]
    assert ndcg(RANKS, 10).tolist() == pytest.approx(expected)
    # At 2 the ideal list of the third user holds two targets, not three.
    assert ndcg(RANKS, 2).tolist() == pytest.approx([0, 1 / two, (1 / math.log2(3)) / two])


def test_equal_ranks_give_exactly_equal_values():
    """Values taken as differences of one long running sum differed in the last digits from user to user."""
    ranks = np.random.default_rng(0).integers(1, 30, 5000)
    assert len(np.unique(ndcg((ranks, np.arange(5001)), 10))) == 11


def test_mrr_by_hand():
    assert mrr(RANKS).tolist() == pytest.approx([1 / 3, 1, 1 / 2])


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=50)
def test_ndcg_equals_scikit_learns(seed, k):
    rng = np.random.default_rng(seed)
    num_items = int(rng.integers(2, 40))
    row = rng.permutation(num_items).astype(np.float32)
    targets = rng.choice(np.arange(1, num_items + 1), size=rng.integers(1, num_items + 1), replace=False)
    relevance = np.isin(np.arange(1, num_items + 1), targets).astype(float)
    ours = ndcg(target_ranks(scores(row), ragged(targets)), k)
    assert ours.tolist() == pytest.approx([ndcg_score([relevance], [row], k=k)])


@pytest.mark.parametrize("metric", [lambda r: hit_rate(r, 5), lambda r: recall(r, 5), lambda r: ndcg(r, 5), mrr])
def test_a_user_without_targets_is_refused(metric):
    with pytest.raises(ValueError, match="target"):
        metric(ragged([1], [], [2], dtype=np.int64))
    assert metric(ragged(dtype=np.int64)).shape == (0,)


LISTS = np.array([[1, 2], [2, PAD], [PAD, PAD]], np.int32)


def test_coverage_by_hand():
    assert coverage(LISTS, 4) == 2 / 4
    assert coverage(LISTS[2:], 4) == 0


def test_novelty_by_hand():
    counts = np.array([0, 3, 0, 1])  # probabilities 4/7, 1/7, 2/7
    expected = [(math.log2(7 / 4) + math.log2(7)) / 2, math.log2(7), 0]
    assert novelty(LISTS, counts).tolist() == pytest.approx(expected)


def test_diversity_by_hand():
    """Item 1 is of categories 0 and 1, item 2 of 1, item 3 of none; a quarter and three quarters have .811 bits."""
    categories = (np.array([0, 1, 1]), np.array([0, 0, 2, 3, 3]))
    lists = np.array([[1, 2, 3], [1, 0, 0], [2, 3, 0], [3, 0, 0], [0, 0, 0]], np.int32)
    quarter = -0.25 * math.log2(0.25) - 0.75 * math.log2(0.75)
    assert diversity(lists, categories).tolist() == pytest.approx([quarter, 1, 0, 0, 0])


def test_a_list_of_as_many_categories_as_items_is_as_diverse_as_can_be():
    categories = (np.arange(8), np.array([0, *range(9)]))
    assert diversity(np.arange(1, 9, dtype=np.int32)[None], categories).tolist() == pytest.approx([3])


def test_popularity_lift_by_hand():
    counts = np.array([0, 3, 0, 9])
    of_lists = mean_popularity(np.array([[1, 3], [2, 0], [0, 0], [3, 3]], np.int32), counts)
    assert of_lists.tolist() == pytest.approx([6, 0, np.nan, 9], nan_ok=True)
    assert popularity_lift(of_lists, np.array([2.0, 1, 5, np.nan])) == pytest.approx((6 + 0) / (2 + 1) - 1)
    assert math.isnan(popularity_lift(of_lists, np.full(4, np.nan)))


def test_interval_of_a_constant_is_the_constant():
    assert bootstrap_interval(np.full(50, 0.3), 200, seed=0) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize("continuous", [False, True])
def test_interval_is_the_normal_one_for_many_users(continuous):
    """Both ways of resampling (few and many distinct values) give mean +- 1.96 standard errors."""
    rng = np.random.default_rng(1)
    values = rng.random(20_000) if continuous else rng.integers(0, 5, 20_000) / 4
    low, high = bootstrap_interval(values, 2000, seed=2)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_same_seed_same_interval():
    values = np.random.default_rng(0).random(2000)
    assert bootstrap_interval(values, 100, seed=3) == bootstrap_interval(values, 100, seed=3)
    assert bootstrap_interval(values, 100, seed=3) != bootstrap_interval(values, 100, seed=4)


def test_what_belongs_together_is_drawn_together():
    of_group = np.random.default_rng(5).random(40)
    values, groups = np.repeat(of_group, 25), np.repeat(np.arange(40) * 7, 25)
    low, high = bootstrap_interval(values, 2000, 0, groups)
    alone = bootstrap_interval(of_group, 2000, 1)
    assert (low, high) == pytest.approx(alone, abs=0.01), "25 copies of a value say no more than one"
    plain = bootstrap_interval(values, 2000, 0)
    assert (high - low) / (plain[1] - plain[0]) == pytest.approx(5, rel=0.1)
    each = bootstrap_interval(values, 2000, 0, np.arange(1000))
    assert each == pytest.approx(plain, abs=0.003)
    assert bootstrap_interval(values, 100, 3, groups) == bootstrap_interval(values, 100, 3, groups)


def test_no_users_no_interval():
    with pytest.raises(ValueError, match="at least one user"):
        bootstrap_interval(np.empty(0), 100, seed=0)


def test_paired_difference_sees_what_unpaired_intervals_hide():
    users = np.random.default_rng(0).random(1000)
    better = users + 0.001
    mean, low, high = paired_difference(better, users, 500, seed=0)
    assert (mean, low, high) == pytest.approx((0.001, 0.001, 0.001))
    assert bootstrap_interval(users, 500, seed=0)[1] > bootstrap_interval(better, 500, seed=0)[0]
