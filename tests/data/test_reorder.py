"""Reordering: orders stay whole, stay in the train part and near their place, and are otherwise a matter of chance."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ray_app.data.reorder import reordered
from ray_app.data.sequences import Histories
from ray_app.schema import Col, sequences_schema

User = tuple[list[int], int]
"""Sizes of the orders, and how many of the orders are in the train part."""
USERS = st.lists(
    st.lists(st.integers(1, 3), min_size=1, max_size=6).flatmap(
        lambda sizes: st.tuples(st.just(sizes), st.integers(0, len(sizes)))
    ),
    max_size=5,
)


def histories(users: list[User]) -> Histories:
    """Every event has an item of its own, from 1 on, and a weight equal to it."""
    orders = [np.repeat(np.arange(len(sizes)), sizes) for sizes, _ in users]
    ends = np.cumsum([len(order) for order in orders])
    items = [np.arange(end - len(order) + 1, end + 1) for end, order in zip(ends, orders, strict=True)]
    columns = {
        Col.USER: list(range(len(users))),
        Col.ITEMS: items,
        Col.TIMES: items,
        Col.WEIGHTS: [numbers.astype(np.float32) for numbers in items],
        Col.ORDERS: orders,
        Col.NUM_TRAIN: [sum(sizes[:train]) for sizes, train in users],
        Col.NUM_VALIDATION: [0] * len(users),
    }
    return Histories.from_tables([pa.table(columns, schema=sequences_schema(pa.int64()))])


def lists(found: Histories, name: str) -> list[list[int]]:
    values = getattr(found, name)
    return [values[start:stop].tolist() for start, stop in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


@given(USERS, st.floats(0.1, 10), st.integers(0, 99))
def test_orders_stay_whole_near_their_place_and_in_their_part(users: list[User], reach: float, seed: int) -> None:
    before = histories(users)
    after = reordered(before, reach, np.random.default_rng(seed))
    assert after.items.tolist() == after.weights.astype(int).tolist()
    assert after.times.tolist() == before.times.tolist()
    for (sizes, train), own, moved, orders in zip(
        users, lists(before, "items"), lists(after, "items"), lists(after, "orders"), strict=True
    ):
        cut = sum(sizes[:train])
        assert moved[cut:] == own[cut:]
        assert sorted(moved) == own
        distinct = list(dict.fromkeys(orders))
        assert orders == [order for order in distinct for _ in range(sizes[order])]  # whole
        assert all(abs(place - order) < reach for place, order in enumerate(distinct))
        assert [own.index(item) for item in moved] == [at for order in distinct for at in place_of(order, sizes)]


def place_of(order: int, sizes: list[int]) -> range:
    return range(sum(sizes[:order]), sum(sizes[: order + 1]))


def test_neighbours_change_places_one_time_in_eight_within_a_reach_of_two() -> None:
    before = histories([([1, 1], 2)] * 20_000)
    after = reordered(before, 2, np.random.default_rng(0))
    assert abs(np.mean(after.items[::2] != before.items[::2]) - 1 / 8) < 0.01
    assert np.array_equal(reordered(before, 1, np.random.default_rng(0)).items, before.items)


def test_no_histories_stay_none() -> None:
    assert not len(reordered(histories([]), 2, np.random.default_rng(0)))
