import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.data.returns import find_returned


def returned(*events: tuple[int, float]) -> list[int]:
    group, quantity = (np.array(values) for values in zip(*events, strict=True))
    return np.flatnonzero(find_returned(group.astype(np.int64), quantity.astype(np.float64))).tolist()


def test_the_latest_earlier_purchase_with_enough_left_is_undone():
    assert returned((0, 2), (0, 5), (0, 1), (0, -2)) == []  # the 5 are the latest that are enough, and 3 of them stay
    assert returned((0, 2), (0, 1), (0, -2)) == [0]
    assert returned((0, 2), (0, 2), (0, -2)) == [1]


def test_a_return_before_any_purchase_undoes_nothing():
    assert returned((0, -1), (0, 1)) == []


def test_a_purchase_returned_bit_by_bit_is_undone():
    assert returned((0, 3), (0, -1), (0, -2)) == [0]
    assert returned((0, 3), (0, -1), (0, -1)) == []


def test_a_return_of_more_than_any_one_purchase_undoes_nothing():
    assert returned((0, 1), (0, 1), (0, -2)) == []


def test_other_groups_are_left_alone():
    assert returned((0, 1), (1, 1), (1, -1)) == [1]
    assert returned((7, 1), (3, 1), (3, -1), (7, 2)) == [1]


def test_no_quantity_is_one():
    assert returned((0, float("nan")), (0, -1)) == [0]


def one_by_one(group: list[int], quantity: list[float]) -> list[bool]:
    left = list(quantity)
    gone = [False] * len(group)
    for position, amount in enumerate(quantity):
        if amount < 0:
            for earlier in range(position - 1, -1, -1):
                if group[earlier] == group[position] and quantity[earlier] > 0 and left[earlier] >= -amount:
                    left[earlier] += amount
                    gone[earlier] = left[earlier] <= 0
                    break
    return gone


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-3, -2, -1, 1, 2, 3, 5])), max_size=40))
def test_agrees_with_going_through_the_returns_one_by_one(events: list[tuple[int, int]]):
    group, quantity = [g for g, _ in events], [float(q) for _, q in events]
    found = find_returned(np.array(group, np.int64), np.array(quantity, np.float64))
    assert found.tolist() == one_by_one(group, quantity)


def test_returns_in_fractions_add_up():
    assert returned((0, 0.3), (0, -0.1), (0, -0.2)) == [0]


@pytest.mark.timeout(10)
def test_a_robot_that_buys_and_returns_one_product_does_not_stall_the_job():
    for quantity in (np.tile([1.0, -1.0], 50_000), np.repeat([1.0, -1.0], 50_000), np.repeat([1.0, -2.0], 20_000)):
        found = find_returned(np.zeros(len(quantity), np.int64), quantity)
        assert found.sum() == (len(quantity) // 2 if quantity.min() == -1 else 0)
