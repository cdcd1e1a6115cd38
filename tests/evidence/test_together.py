"""Five orders of three users: {1, 2}, {1, 2, 3}, {1}, {2, 3}, {1, 2}; item 4 is only looked at."""

import numpy as np
import pyarrow as pa
import pytest

from ray_app.data.sequences import Histories
from ray_app.evidence.together import best_partners, orders_of, shared_orders

ITEMS = 4


def log() -> Histories:
    return Histories(
        user_ids=pa.array(["a", "b", "c"]),
        items=np.array([1, 2, 2, 1, 2, 3, 1, 4, 2, 3, 0, 1, 2], np.int32),
        times=np.arange(13),
        weights=np.array([1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1], np.float32),
        orders=np.array([0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0], np.int32),
        offsets=np.array([0, 6, 11, 13]),
        num_train=np.array([3, 2, 0]),
        num_validation=np.array([3, 0, 2]),
    )


def counts(before_test: bool = False):
    orders = orders_of(log(), ITEMS, before_test)
    return np.asarray(orders.sum(axis=0)), orders.shape[0]


def partners(at_least: int = 1, k: int = 10, first: int = 0, stop: int = ITEMS + 1):
    orders = orders_of(log(), ITEMS, before_test=False)
    of_item, num_orders = counts()
    shared = shared_orders(orders, first, stop, of_item >= at_least)
    return best_partners(shared, first, of_item, num_orders, at_least, k)


def test_orders_hold_each_item_once_and_nothing_that_was_only_looked_at():
    of_item, num_orders = counts()
    assert (of_item.tolist(), num_orders) == ([0, 4, 4, 2, 0], 5)


def test_before_the_test_part_the_rest_is_not_known():
    of_item, num_orders = counts(before_test=True)
    assert (of_item.tolist(), num_orders) == ([0, 4, 3, 1, 0], 4)


def test_lift_by_hand():
    found = partners()
    assert list(zip(found.items.tolist(), found.partners.tolist(), found.ranks.tolist(), strict=True)) == [
        (1, 2, 1), (1, 3, 2), (2, 3, 1), (2, 1, 2), (3, 2, 1), (3, 1, 2)
    ]  # fmt: skip
    pair_12, pair_13, pair_23 = (3 + 0.5) / (16 / 5 + 0.5), (1 + 0.5) / (8 / 5 + 0.5), (2 + 0.5) / (8 / 5 + 0.5)
    assert found.lifts.tolist() == pytest.approx([pair_12, pair_13, pair_23, pair_12, pair_23, pair_13])
    assert found.orders.tolist() == [3, 1, 2, 3, 2, 1]


def test_pairs_seen_too_seldom_are_left_out_and_lists_end_at_k():
    found = partners(at_least=2)
    assert list(zip(found.items.tolist(), found.partners.tolist(), strict=True)) == [(1, 2), (2, 3), (2, 1), (3, 2)]
    assert partners(k=1).partners.tolist() == [2, 3, 2]


def test_blocks_of_items_give_what_the_whole_gives():
    whole = partners()
    blocks = [partners(first=first, stop=stop) for first, stop in ((0, 2), (2, 3), (3, 5))]
    for name, together in zip(whole._fields, zip(*blocks, strict=True), strict=True):
        assert np.concatenate(together).tolist() == getattr(whole, name).tolist()


def test_a_log_without_orders_has_no_pairs():
    nobody = Histories(pa.array([], pa.string()), *(np.zeros(0, np.int32) for _ in range(4)), np.zeros(1, np.int64),
                       np.zeros(0, np.int64), np.zeros(0, np.int64))  # fmt: skip
    orders = orders_of(nobody, ITEMS, before_test=False)
    assert orders.shape == (0, ITEMS + 1)
    assert shared_orders(orders, 0, ITEMS + 1, np.ones(ITEMS + 1, bool)).nnz == 0
