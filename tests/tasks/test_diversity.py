import numpy as np
import pytest
from scipy import sparse

from ray_app.tasks import diversity
from ray_app.tasks.diversity import diversified

# Items 1 and 2 are alike, 3 is unlike both, 4 half like 1 and 2 (of unit length, row 0 is padding).
VECTORS = np.array([[0, 0], [1, 0], [1, 0], [0, 1], [0.6, 0.8]], np.float32)
POOL = np.array([[1, 2, 3, 4]], np.int32)
SCORES = np.array([[3.0, 2.9, 2.0, 1.0]], np.float32)


def order(how_far, k=4, pool=POOL, scores=SCORES, vectors=VECTORS):
    return diversified(pool, scores, vectors, k, how_far)[0].tolist()


def test_without_diversity_the_order_stays():
    assert order(0) == [[1, 2, 3, 4]]


def test_what_is_like_the_list_already_waits_as_worked_by_hand():
    """Relevance is 1, .95, .5, 0. At .5, after item 1: item 2 has .475 - .5 = -.025, item 3 .25, item 4 -.3.

    After item 3 as well: item 2 still -.025, item 4 0 - .5 * .8 = -.4.
    """
    assert order(0.5) == [[1, 3, 2, 4]]
    assert order(0.5, k=2) == [[1, 3]]


def test_at_one_only_the_first_item_is_for_its_score():
    assert order(1) == [[1, 3, 4, 2]]  # after 1 and 3 the cosines are 1 for item 2 and .8 for item 4


def test_the_scores_go_with_their_items():
    items, scores = diversified(POOL, SCORES, VECTORS, 3, 0.5)
    assert scores.tolist() == [pytest.approx([3.0, 2.0, 2.9])]
    assert items.tolist() == [[1, 3, 2]]


@pytest.mark.parametrize("at_once", [1, 1000, 1 << 25])
def test_sparse_vectors_give_the_same_however_few_are_held_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    vectors = rng.random((50, 6)).astype(np.float32) * (rng.random((50, 6)) < 0.5)
    vectors[0] = 0
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    pools = np.stack([rng.permutation(np.arange(1, 50))[:20] for _ in range(8)]).astype(np.int32)
    scores = -np.sort(-rng.random((8, 20)).astype(np.float32), axis=1)
    whole = order(0.4, 10, pools, scores, vectors)
    monkeypatch.setattr(diversity, "COSINES_AT_ONCE", at_once)
    assert order(0.4, 10, pools, scores, sparse.csr_array(vectors)) == whole


@pytest.mark.parametrize("how_far", [0, 0.3, 1])
def test_short_pools_end_in_padding_and_no_item_comes_twice(how_far: float):
    pools = np.array([[3, 0, 0, 0], [0, 0, 0, 0], [2, 1, 0, 0]], np.int32)
    scores = np.where(pools > 0, 1.0, -np.inf).astype(np.float32)
    items, found = diversified(pools, scores, VECTORS, 3, how_far)
    assert items.tolist() == [[3, 0, 0], [0, 0, 0], [2, 1, 0]]
    assert np.isneginf(found[items == 0]).all()


def test_no_users_no_lists():
    items, scores = diversified(np.zeros((0, 4), np.int32), np.zeros((0, 4), np.float32), VECTORS, 3, 0.5)
    assert items.shape == scores.shape == (0, 3)
