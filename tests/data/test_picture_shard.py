import numpy as np
import pytest
from pictures import picture_set

from ray_app.data.picture_shard import PictureShard, Rows, contents_of, share_of


@pytest.fixture(scope="module")
def shard_of(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    pictures = picture_set(tmp_path_factory.mktemp("pictures"), train=23, per_file=5)

    def make(rank: int = 0, world_size: int = 1, window: int = 1000) -> PictureShard:
        return PictureShard(
            share_of(pictures, "train", rank, world_size), lambda one: contents_of(pictures, one), window
        )

    return make


def seen(batches: object) -> list[tuple[bytes, int]]:
    rows: list[Rows] = [rows for rows, _ in batches]  # type: ignore[attr-defined]
    return [pair for one in rows for pair in zip(one.values.tolist(), one.labels.tolist(), strict=True)]


@pytest.mark.parametrize("window", [1000, 7])
def test_an_epoch_shows_every_picture_once_in_even_batches(shard_of, window: int) -> None:  # type: ignore[no-untyped-def]
    shard = shard_of(window=window)
    batches = list(shard.batches(4, np.random.default_rng(0)))
    assert sorted(len(rows.labels) for rows, _ in batches) == [5, 6, 6, 6]
    stored = [
        pair for rows in shard.in_order(3) for pair in zip(rows.values.tolist(), rows.labels.tolist(), strict=True)
    ]
    assert sorted(seen(batches)) == sorted(stored)
    assert seen(batches) != stored
    assert seen(shard.batches(4, np.random.default_rng(1))) != seen(batches)


@pytest.mark.parametrize("window", [1000, 7])
def test_an_epoch_goes_on_where_it_was_left(shard_of, window: int) -> None:  # type: ignore[no-untyped-def]
    whole = list(shard_of(window=window).batches(5, np.random.default_rng(4)))
    rest = list(shard_of(window=window).batches(5, np.random.default_rng(4), first=2))
    assert seen(rest) == seen(whole[2:])
    assert [random.integers(2**40) for _, random in rest] == [random.integers(2**40) for _, random in whole[2:]]


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_workers_share_the_pictures_evenly(shard_of, world_size: int) -> None:  # type: ignore[no-untyped-def]
    shards = [shard_of(rank, world_size) for rank in range(world_size)]
    assert max(shard.size for shard in shards) - min(shard.size for shard in shards) <= 1
    pictures = [pair for shard in shards for pair in seen(shard.batches(2, np.random.default_rng(0)))]
    assert sorted(pictures) == sorted(seen(shard_of().batches(2, np.random.default_rng(0))))
