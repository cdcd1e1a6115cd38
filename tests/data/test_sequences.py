"""Ragged lists and histories: what is known before a part, and what is asked in it."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from ray_app.data.sequences import Events, Histories, Part, Ragged
from ray_app.schema import PAD, Col, sequences_schema


def ragged(*lists: list[int]) -> Ragged:
    return Ragged(np.array([x for one in lists for x in one], np.int32), np.cumsum([0, *map(len, lists)]))


def listed(found: Ragged) -> list[list[int]]:
    assert found.values.dtype == np.int32
    assert found.offsets.dtype == np.int64
    assert (found.offsets[0], found.offsets[-1]) == (0, len(found.values))
    return [found.values[a:b].tolist() for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


Event = tuple[int, int] | tuple[int, int, float]
"""Item, ordinal of the order, and weight (1)."""


def table(*users: tuple[list[Event], int, int]) -> pa.Table:
    """Users as (events, num_train, num_validation)."""
    events = [[(*event, 1.0)[:3] for event in user] for user, _, _ in users]
    return pa.table(
        {
            Col.USER: list(range(len(users))),
            Col.ITEMS: [[item for item, _, _ in user] for user in events],
            Col.TIMES: [list(range(len(user))) for user in events],
            Col.WEIGHTS: [[weight for _, _, weight in user] for user in events],
            Col.ORDERS: [[order for _, order, _ in user] for user in events],
            Col.NUM_TRAIN: [num_train for _, num_train, _ in users],
            Col.NUM_VALIDATION: [num_validation for _, _, num_validation in users],
        },
        schema=sequences_schema(pa.int64()),
    )


def histories(*users: tuple[list[Event], int, int]) -> Histories:
    return Histories.from_tables([table(*users)])


# --- ragged lists


def test_lengths() -> None:
    assert ragged([1, 2], [], [3]).lengths.tolist() == [2, 0, 1]


def test_take_in_the_order_asked_for_also_twice() -> None:
    lists = ragged([1, 2], [], [3, 4, 5], [6])
    assert listed(lists.take(np.array([2, 1, 0, 2]))) == [[3, 4, 5], [], [1, 2], [3, 4, 5]]
    assert listed(lists.take(np.array([], np.int64))) == []


def test_keep() -> None:
    lists = ragged([1, 2], [], [3, 4, 5], [6])
    assert listed(lists.keep(lists.values % 2 == 1)) == [[1], [], [3, 5], []]


def test_without_looks_at_the_same_list_alone() -> None:
    """`PAD` stays, though the other list holds it too."""
    mine, others = ragged([1, 2, 1], [1, PAD], [], [2, 7]), ragged([1], [2, PAD], [3], [])
    assert listed(mine.without(others)) == [[2], [1, PAD], [], [2, 7]]


def test_clicks_stay_beside_their_items() -> None:
    """Whoever unpacks events finds lists of items."""
    lists = ragged([1, 2], [], [3, 4, 5], [6])
    events = Events(*lists, np.array([True, False, False, True, True, False]))
    for chosen, clicks in (
        (events.slice(1, 3), [False, True, True]),
        (events.take(np.array([3, 0])), [False, True, False]),
        (events.keep(events.values % 2 == 1), [True, False, True]),
        (events.without(ragged([1], [], [], [])), [False, False, True, True, False]),
        (pickle.loads(pickle.dumps(events)), events.clicks.tolist()),
    ):
        assert isinstance(chosen, Events)
        assert chosen.clicks.tolist() == clicks
        assert len(chosen.values) == len(clicks)
    values, _ = events
    assert values is lists.values


def test_without_tells_the_largest_items_of_neighbours_apart() -> None:
    largest = int(np.iinfo(np.int32).max)
    assert listed(ragged([largest], [largest]).without(ragged([], [largest]))) == [[largest], []]


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (0, 2), (1, 3), (2, 4), (3, 3), (2, 9)])
def test_slice(start: int, stop: int) -> None:
    lists = [[1, 2], [], [3, 4, 5], [6]]
    assert listed(ragged(*lists).slice(start, stop)) == lists[start:stop]


# --- histories

SHOPPER = [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2), (6, 3), (7, 4), (8, 4), (9, 5)]
"""Trains on orders 0 and 1, is validated on 2 and 3, tested on 4 and 5."""


def test_parts_of_a_user() -> None:
    users = histories((SHOPPER, 3, 3), ([(1, 0)], 1, 0))
    assert len(users) == 2
    assert listed(users.train()) == [[1, 2, 3], [1]]
    assert users.train_orders().tolist() == [0, 0, 1, 0]
    assert listed(users.before("validation")) == [[1, 2, 3], [1]]
    assert listed(users.before("test")) == [[1, 2, 3, 4, 5, 6], [1]]
    assert listed(users.all_events()) == [list(range(1, 10)), [1]]


def test_the_items_of_the_first_order_of_a_part_are_asked_for() -> None:
    users = histories((SHOPPER, 3, 3), ([(1, 0)], 1, 0))
    assert listed(users.targets("validation")) == [[4, 5], []]
    assert listed(users.targets("test")) == [[7, 8], []]


def test_a_target_is_asked_for_once_in_an_order() -> None:
    assert listed(histories(([(1, 0), (5, 1), (2, 1), (5, 1)], 1, 3)).targets("validation")) == [[2, 5]]


def test_events_that_the_loss_does_not_count_are_no_targets() -> None:
    """An order of clicks alone is passed over; within the first order that counts, what has weight 0 is left out."""
    user = [(1, 0), (2, 1, 0.0), (3, 2), (4, 2, 0.0), (5, 3)]
    users = histories((user, 1, 4), ([(1, 0), (2, 1, 0.0)], 1, 1))
    assert listed(users.targets("validation")) == [[3], []]
    assert users.train_weights().tolist() == [1, 1]
    assert listed(users.before("test")) == [[1, 2, 3, 4, 5], [1, 2]]  # known, though nobody is asked for it


def test_what_is_known_says_which_events_are_clicks() -> None:
    users = histories(([(1, 0), (2, 1, 0.0), (3, 2), (PAD, 3, 0.0), (4, 4, 0.0), (5, 5)], 3, 2))
    for known, clicks in (
        (users.before("validation"), [False, True, False]),
        (users.before("test"), [False, True, False, True]),
        (users.all_events(), [False, True, False, True, False]),
    ):
        assert isinstance(known, Events)
        assert known.clicks.tolist() == clicks


def test_items_outside_the_vocabulary_are_asked_for_and_never_read() -> None:
    user = [(1, 0), (PAD, 1), (2, 1), (PAD, 2), (3, 3)]
    users = histories((user, 1, 2), ([(4, 0), (PAD, 1)], 1, 1))
    assert listed(users.targets("validation")) == [[PAD, 2], [PAD]]
    assert listed(users.targets("test")) == [[PAD], []]
    assert listed(users.before("test")) == [[1, 2], [4]]
    assert listed(users.all_events()) == [[1, 2, 3], [4]]


@pytest.mark.parametrize(
    ("part", "known", "asked"), [("validation", [[1, 2], [5, 5]], [[3], []]), ("test", [[1, 2, 3], [5, 5]], [[4], []])]
)
def test_leave_one_out(part: Part, known: list[list[int]], asked: list[list[int]]) -> None:
    """A user of two events is not asked about."""
    users = histories(([(1, 0), (2, 1), (3, 2), (4, 3)], 2, 1), ([(5, 0), (5, 1)], 2, 0))
    assert listed(users.before(part)) == known
    assert listed(users.targets(part)) == asked


def test_users_in_the_middle_of_a_table_are_the_same_users() -> None:
    """Lists of a sliced table begin inside its values."""
    users = table(([(9, 0), (9, 1)], 1, 0), (SHOPPER, 3, 3), ([(1, 0)], 1, 0), ([(7, 0), (8, 1)], 1, 1))
    middle = Histories.from_tables([users.slice(1, 1), users.slice(3)])
    assert middle.user_ids.to_pylist() == [1, 3]
    assert listed(middle.all_events()) == [list(range(1, 10)), [7, 8]]
    assert listed(middle.targets("validation")) == [[4, 5], [8]]
    assert middle.times.tolist() == [*range(9), 0, 1]


def test_no_users() -> None:
    nobody = histories()
    assert len(nobody) == 0
    assert listed(nobody.targets("test")) == listed(nobody.before("test")) == listed(nobody.train()) == []
