"""Windows and batches: every event is asked for once, from what came before its order, in the number of steps given."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.data.batches import collate, cut_windows, join_windows, num_steps, pad_histories, training_batches
from ray_app.data.sequences import Events, Histories, Ragged


def histories(users: list[list[tuple[int, int]]], held_out: int = 0) -> Histories:
    """Users as lists of (item, order); the last `held_out` events are the test part."""
    lengths = np.array([len(user) for user in users], np.int64)
    flat = [event for user in users for event in user]
    return Histories(
        user_ids=pa.array(range(len(users))),
        items=np.array([item for item, _ in flat], np.int32),
        times=np.arange(len(flat), dtype=np.int64),
        weights=np.ones(len(flat), np.float32),
        orders=np.array([order for _, order in flat], np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        num_train=np.maximum(lengths - held_out, 0),
        num_validation=np.zeros(len(users), np.int64),
    )


def single(*users: list[int]) -> Histories:
    return histories([[(item, place) for place, item in enumerate(user)] for user in users])


def asked(batch: tuple[torch.Tensor, ...]) -> list[tuple[list[int], int]]:
    """(what is read up to the query, target) for every target."""
    items, queries, query_of_target, targets, *_ = batch
    width = items.shape[1]
    asking = queries[query_of_target].tolist()
    return [(items[q // width, : q % width + 1].tolist(), t) for q, t in zip(asking, targets.tolist(), strict=True)]


def test_without_orders_each_event_is_foretold_from_those_before_it() -> None:
    windows = cut_windows(single([1, 2, 3], [4, 5], [6]), 10)
    assert windows.length.tolist() == [2, 1]
    batch = collate(windows, np.array([0, 1]))
    assert batch.items.tolist() == [[1, 2], [4, 0]]
    assert asked(batch) == [([1], 2), ([1, 2], 3), ([4], 5)]


def test_items_of_an_order_are_foretold_from_before_the_order() -> None:
    """A query inside the order would see part of the answer, which evaluation never does."""
    windows = cut_windows(histories([[(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)]]), 10)
    assert asked(collate(windows, np.array([0]))) == [([1, 2], 3), ([1, 2], 4), ([1, 2, 3, 4], 5)]


def test_only_new_items_are_targets_when_asked_so() -> None:
    windows = cut_windows(single([1, 2, 1, 3, 2]), 10, only_new=True)
    assert asked(collate(windows, np.array([0]))) == [([1], 2), ([1, 2, 1], 3)]


def test_long_histories_are_cut_from_the_end_and_overlap_by_one() -> None:
    windows = cut_windows(single([1, 2, 3, 4, 5, 6]), 2)
    found = [asked(collate(windows, np.array([number]))) for number in range(3)]
    assert found == [[([4], 5), ([4, 5], 6)], [([2], 3), ([2, 3], 4)], [([1], 2)]]


def test_held_out_events_are_never_seen() -> None:
    windows = cut_windows(histories([[(item, item) for item in range(1, 8)]], held_out=2), 10)
    batch = collate(windows, np.array([0]))
    assert set(batch.items.flatten().tolist()) | set(batch.targets.tolist()) == {1, 2, 3, 4, 5}


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 12), st.integers(0, 2**31)
)
def test_every_event_but_the_first_is_a_target_once_in_any_number_of_steps(
    lengths: list[int], max_len: int, steps: int, seed: int
) -> None:
    first = np.concatenate([[0], np.cumsum(lengths)])
    users = [list(range(int(first[i]) + 1, int(first[i]) + 1 + length)) for i, length in enumerate(lengths)]
    windows = cut_windows(single(*users), max_len)
    batches = list(training_batches(windows, steps, np.random.default_rng(seed)))
    assert len(batches) == steps
    targets = sorted(torch.cat([batch.targets for batch in batches]).tolist())
    assert targets == sorted(item for user in users for item in user[1:])
    again = list(training_batches(windows, steps, np.random.default_rng(seed), first=steps // 2))
    for batch, same in zip(batches[steps // 2 :], again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, same, strict=True))


def test_batches_hold_little_padding() -> None:
    rng = np.random.default_rng(0)
    users = [list(range(1, 3 + int(n))) for n in rng.geometric(0.12, 3000)]
    windows = cut_windows(single(*users), 50)
    steps = num_steps(windows.num_positions, 1024)
    batches = list(training_batches(windows, steps, rng))
    cells = sum(batch.items.numel() for batch in batches)
    assert windows.num_positions / cells > 0.93
    assert max(batch.items.numel() for batch in batches) < 2 * 1024


def test_inference_reads_the_last_items() -> None:
    lists = Ragged(np.array([1, 2, 3, 9], np.int32), np.array([0, 3, 3, 4]))
    items, lengths, clicks = pad_histories(lists, 2)
    assert items.tolist() == [[2, 3], [0, 0], [9, 0]]
    assert lengths.tolist() == [2, 0, 1]
    assert not clicks.any()
    events = Events(*lists, np.array([True, False, True, True]))
    assert pad_histories(events, 2)[2].tolist() == [[False, True], [False, False], [True, False]]
    nobody = Events(np.zeros(0, np.int32), np.zeros(2, np.int64), np.zeros(0, np.bool_))
    assert [tensor.tolist() for tensor in pad_histories(nobody, 2)] == [[[0]], [0], [[False]]]


def test_clicks_are_read_and_marked_and_are_no_targets() -> None:
    """An item that the user had before is no target either where only new ones are, but it is no click."""
    users = single([1, 2, 1, 3, 2], [4, 5, 6])
    users = replace(users, weights=np.array([1, 0, 1, 1, 1, 0, 0, 1], np.float32))
    for only_new in (False, True):
        cut = cut_windows(users, 10, only_new=only_new)
        batch = collate(join_windows([cut, cut]), np.array([0, 3]))
        assert batch.items.tolist() == [[1, 2, 1, 3], [4, 5, 0, 0]]
        assert batch.clicks.tolist() == [[False, True, False, False], [True, True, False, False]]
        assert batch.targets.tolist() == ([3, 6] if only_new else [1, 3, 2, 6])
    assert collate(cut, np.array([], np.int64)).clicks.shape == (1, 1)


@pytest.mark.parametrize(("positions", "steps"), [(0, 1), (1, 1), (1024, 1), (1025, 2)])
def test_number_of_steps(positions: int, steps: int) -> None:
    assert num_steps(positions, 1024) == steps
