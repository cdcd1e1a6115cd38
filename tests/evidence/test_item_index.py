"""The item index on a log that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest
from shops import DAY_US, write_dataset

from ray_app.evidence.item_index import DOUBT, INDEX_FILE, NEVER, ItemIndex
from ray_app.storage import Storage

ITEMS = [{"item_id": name} for name in "abcd"]
USERS = {
    "u": [(1, 0, 0), (2, 0, 0), (1, 20, 1)],
    "v": [(1, 1, 0), (2, 1, 0), (0, 2, 1), (3, 30, 2)],  # 0: an item outside the vocabulary
    "w": [],
}


@pytest.fixture
def index(tmp_path: Path) -> ItemIndex:
    return ItemIndex.fit(write_dataset(Storage(), str(tmp_path / "d"), USERS, ITEMS))


def test_counts_times_and_popularity(index: ItemIndex):
    assert index.counts.tolist() == [0, 3, 2, 1, 0]
    assert index.recent.tolist() == [0, 0, 0, 1, 0]
    assert index.first.tolist() == [NEVER, 0, 0, 30 * DAY_US, NEVER]
    assert index.last_time == 30 * DAY_US
    assert index.by_popularity().tolist() == [3, 1, 2, 4]


def test_bought_together_is_a_cosine_over_orders_less_a_doubt(index: ItemIndex):
    cosine = 2 / np.sqrt(3 * 2)  # two orders in common of three and two
    assert index.together[[1], [2]] == pytest.approx(cosine * 2 / (2 + DOUBT))
    assert index.together.nnz == 2, "only these two, both ways round"


def test_what_was_saved_is_loaded(index: ItemIndex, tmp_path: Path):
    index.save(tmp_path / INDEX_FILE)
    loaded = ItemIndex.load(tmp_path / INDEX_FILE)
    for name in ("counts", "recent", "first"):
        assert np.array_equal(getattr(loaded, name), getattr(index, name))
    assert loaded.last_time == index.last_time
    assert (loaded.together != index.together).nnz == 0


def test_without_a_clock_or_orders(tmp_path: Path):
    """Order numbers tell no date; users in common stand in for orders."""
    events = {user: [(item, n, n) for n, (item, _, _) in enumerate(rows)] for user, rows in USERS.items()}
    index = ItemIndex.fit(write_dataset(Storage(), str(tmp_path / "d"), events, ITEMS, unit="order"))
    assert index.recent.tolist() == index.counts.tolist() == [0, 3, 2, 1, 0]
    assert (index.first == NEVER).all()
    assert index.last_time == NEVER
    assert index.together[[1], [2]] == pytest.approx(2 / (2 + DOUBT)), "both users of both"
