"""A worker's share: all positions once, in the number of steps that every worker takes."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.data.batches import Batch, num_steps
from ray_app.data.dataset import Dataset, Manifest, Part
from ray_app.data.shard import Shard, share_of, steps_per_epoch
from ray_app.schema import Col, sequences_schema
from ray_app.storage import Storage

MAX_LEN = 4


class Log:
    """Parts in memory, and how often each was read. All items are different, so that a target names its position."""

    def __init__(self, parts: list[list[int]]) -> None:
        lengths = [length for part in parts for length in part]
        ends = np.cumsum(lengths)
        users = [list(range(end - length + 1, end + 1)) for end, length in zip(ends.tolist(), lengths, strict=True)]
        self.targets = sorted(item for user in users for item in user[1:])
        self.reads: list[str] = []
        self.tables = {}
        for number, part in enumerate(parts):
            here, users = users[: len(part)], users[len(part) :]
            self.tables[f"part-{number}"] = pa.table(
                {
                    Col.USER: [user[0] for user in here],
                    Col.ITEMS: here,
                    Col.TIMES: here,
                    Col.WEIGHTS: [[1.0] * len(user) for user in here],
                    Col.ORDERS: [list(range(len(user))) for user in here],
                    Col.NUM_TRAIN: [len(user) for user in here],
                    Col.NUM_VALIDATION: [0] * len(here),
                },
                schema=sequences_schema(pa.int64()),
            )

    def read(self, uris: list[str]) -> Iterator[pa.Table]:
        for uri in uris:
            self.reads.append(uri)
            yield self.tables[uri]

    def shard(self, window_users: int) -> Shard:
        return Shard(list(self.tables), len(self.targets), self.read, window_users)


def batches(shard: Shard, steps: int, seed: int = 0, first: int = 0, reorder: float = 0) -> list[Batch]:
    return list(shard.batches(steps, MAX_LEN, np.random.default_rng(seed), first, reorder=reorder))


def targets(found: list[Batch]) -> list[int]:
    return sorted(torch.cat([batch.targets for batch in found]).tolist())


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(a, b, strict=True))


def test_one_window_is_read_once_and_kept() -> None:
    log = Log([[3, 5], [2]])
    shard = log.shard(window_users=100)
    (window,) = shard.windows()
    assert targets(batches(shard, 3)) == targets(batches(shard, 5)) == log.targets
    assert next(shard.windows()) is window
    assert log.reads == ["part-0", "part-1"]


def test_several_windows_are_read_anew_and_hold_the_users_in_order() -> None:
    log = Log([[2] * 5, [2] * 3, [2]])
    shard = log.shard(window_users=4)
    for _ in range(2):
        windows = list(shard.windows())
        assert [len(window) for window in windows] == [4, 4, 1]
        assert np.concatenate([window.items for window in windows]).tolist() == list(range(1, 19))
    assert log.reads == ["part-0", "part-1", "part-2"] * 2


@pytest.mark.parametrize("small", [0, 1, 2])
def test_windows_too_small_for_a_step_wait_for_the_next(small: int) -> None:
    """Their share of the steps was rounded to none, and nobody saw their events; the last one has none to wait for."""
    windows = [[20, 20], [20, 20], [20, 20]]
    windows[small] = [2, 1]
    log = Log(windows)
    found = batches(log.shard(window_users=2), 4)
    assert len(found) == 4
    assert targets(found) == log.targets


def test_more_windows_than_steps() -> None:
    log = Log([[3] * 10])
    found = batches(log.shard(window_users=1), 2)
    assert [len(batch.targets) for batch in found] == [10, 10]
    assert targets(found) == log.targets


def test_what_waited_is_still_foretold_from_its_own_history() -> None:
    """Where windows are joined, indices into their events move."""
    log = Log([[3, 3], [2]])
    (batch,) = batches(log.shard(window_users=1), 1)
    read = batch.items.flatten()[batch.queries][batch.query_of_target]
    assert (read + 1).tolist() == batch.targets.tolist()
    assert sorted(batch.targets.tolist()) == [2, 3, 5, 6, 8]


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.integers(1, 12), max_size=12), max_size=5), st.integers(1, 8), st.integers(1, 12), st.data()
)
def test_every_position_once_in_exactly_the_steps_given_and_from_any_step_on(
    parts: list[list[int]], window_users: int, steps: int, data: st.DataObject
) -> None:
    log = Log(parts)
    shard = log.shard(window_users)
    found = batches(shard, steps)
    assert len(found) == steps
    assert targets(found) == log.targets
    first = data.draw(st.integers(0, steps))
    resumed = batches(shard, steps, first=first)
    assert len(resumed) == steps - first
    assert all(map(same, found[first:], resumed))


def test_reordered_batches_are_new_in_each_epoch_and_the_same_from_any_step_on() -> None:
    log = Log([[12] * 9, [5] * 4])
    shard = log.shard(window_users=4)
    found = batches(shard, 5, reorder=3)
    assert not all(map(same, found, batches(shard, 5)))
    assert not all(map(same, found, batches(shard, 5, seed=1, reorder=3)))
    assert all(map(same, found[2:], batches(shard, 5, first=2, reorder=3)))
    assert len(set(targets(found))) == len(log.targets)


def test_a_worker_without_users_takes_its_steps() -> None:
    """It gave no batch at all, and the other workers would have waited for it for ever."""
    found = batches(Log([]).shard(window_users=4), 3)
    assert [len(batch.targets) for batch in found] == [0, 0, 0]


def dataset(train_targets: list[int]) -> Dataset:
    parts = [
        Part(path=f"sequences/part-{number:05}.parquet", users=1, train_events=count + 1, train_targets=count)
        for number, count in enumerate(train_targets)
    ]
    return Dataset(Storage(path="here"), "here", Manifest.model_construct(parts=parts))


@pytest.mark.parametrize("world_size", range(1, 21))
def test_shares_are_all_parts_once(world_size: int) -> None:
    data = dataset([100 + number for number in range(16)])
    shares = [share_of(data, rank, world_size) for rank in range(world_size)]
    assert sorted(uri for share in shares for uri in share) == sorted(data.part_uris)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("world_size", "largest"), [(1, 1060), (2, 1050), (3, 1000), (4, 1030), (9, 1000)])
def test_steps_are_those_of_the_largest_share(world_size: int, largest: int) -> None:
    data = dataset([1000, 10, 20, 0, 30])
    assert steps_per_epoch(data, world_size, tokens_per_batch=100) == num_steps(largest, 100)
