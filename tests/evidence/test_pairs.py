import numpy as np
import pytest
from ragged import ragged

from ray_app.evidence.memory import Memory
from ray_app.evidence.pairs import RECENCY_DECAY, candidates, looked_up, products, read_memory

LOW = np.finfo(np.float32).min


def scores(num_users: int) -> np.ndarray:
    found = np.tile(np.array([LOW, 0.5, 0.4, 0.3, 0.2, 0.1], np.float32), (num_users, 1))
    return found


def test_recent_events_weigh_more(memory: Memory):
    read = read_memory(memory, ragged([1, 2], [], [4, 0]))
    expected = RECENCY_DECAY * memory.forward[1, 3] + memory.forward[2, 3]
    assert read.forward[0, 3] == pytest.approx(expected)
    assert read.forward[[1]].nnz == 0
    assert read.forward[2, 3] == pytest.approx(memory.forward[4, 3])  # an item outside the vocabulary says nothing


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_own_items_are_candidates_unless_excluded(memory: Memory, exclude_seen: bool):
    histories = ragged([1, 2], [])
    pairs = candidates(scores(2), read_memory(memory, histories), memory, histories, exclude_seen=exclude_seen)
    of_first = pairs.items[pairs.users == 0].tolist()
    assert of_first == ([3, 4, 5] if exclude_seen else [1, 2, 3, 4, 5])
    assert pairs.items[pairs.users == 1].tolist() == [1, 2, 3, 4, 5]


def test_each_source_brings_its_best(memory: Memory, monkeypatch: pytest.MonkeyPatch):
    for name in ("FROM_MODEL", "FROM_MEMORY"):
        monkeypatch.setattr(f"ray_app.evidence.pairs.{name}", 1)
    monkeypatch.setattr("ray_app.evidence.pairs.FROM_POPULAR", 0)
    histories = ragged([4])
    pairs = candidates(scores(1), read_memory(memory, histories), memory, histories, exclude_seen=True)
    assert pairs.items.tolist() == [1, 3]  # the model's first; what followed, was had beside, and reads like item 4


def test_numbers_of_pairs(memory: Memory):
    rows, columns = np.array([1, 1, 0, 2]), np.array([2, 5, 3, 3])
    assert looked_up(memory.forward, rows, columns).tolist() == [
        memory.forward[i, j] for i, j in zip(rows, columns, strict=True)
    ]
    words = memory.words.toarray()
    assert products(memory.words, rows, columns) == pytest.approx((words[rows] * words[columns]).sum(1))
