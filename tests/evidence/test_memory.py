from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ragged import ragged
from safetensors.numpy import load_file

from ray_app.baselines import TrainingLog
from ray_app.evidence.memory import COUNTED, WRITTEN, Memory
from ray_app.evidence.moves import DECAY, Moves


def test_what_follows_is_counted_over_powers_of_popularity(memory: Memory):
    counts = [0, 2, 2, 2, 1, 0]
    assert memory.counts.tolist() == counts
    assert memory.forward[1, 2] == pytest.approx(2 / (2**0.25 * 2**0.15))
    assert memory.forward[1, 3] == pytest.approx(DECAY / (2**0.25 * 2**0.15))
    assert memory.forward[2, 1] == 0
    assert memory.backward[2, 1] == pytest.approx(2 / (2**0.25 * 2**0.15))
    assert memory.around[3, 4] == memory.around[4, 3] == pytest.approx(1 / 2**0.5)


def test_texts_and_users_in_common(memory: Memory):
    assert memory.alike[1, 2] > 0
    assert memory.alike[1, 3] == 0
    assert memory.labels[[1]].multiply(memory.labels[[2]]).sum() == pytest.approx(1)  # same brand, same category
    assert memory.together[1, 2] == pytest.approx(1)
    assert memory.words.shape[0] == memory.num_items + 1
    assert memory.words[[0, 5]].nnz == 0  # nothing is said of padding and of an item without a text


def test_it_is_the_same_after_a_file(memory: Memory, tmp_path: Path):
    memory.save(tmp_path / "memory.safetensors")
    again = Memory.load(tmp_path / "memory.safetensors")
    assert np.array_equal(again.counts, memory.counts)
    for name in (*COUNTED, *WRITTEN):
        one, other = getattr(memory, name), getattr(again, name)
        assert one.shape == other.shape
        assert (one != other).nnz == 0


def test_counts_of_another_log_stand_beside_the_same_texts(memory: Memory, items: pa.Table, tmp_path: Path):
    values, offsets = ragged([1, 2, 3], [1, 2, 5], [4, 3])
    zeros, ones = np.zeros(len(values), np.int64), np.ones(len(values), np.float32)
    log = TrainingLog(values, offsets, zeros, ones, 5)
    today = memory.recounted(log)
    today.save_counts(tmp_path / "today.safetensors")
    memory.save(tmp_path / "memory.safetensors")
    whole = Memory.fit(log, items)
    assert memory.forward[2, 5] == 0
    assert today.forward[2, 5] == pytest.approx(1 / 2**0.25)
    for found in (today, memory.with_counts(tmp_path / "today.safetensors")):
        assert np.array_equal(found.counts, whole.counts)
        assert all((getattr(found, name) != getattr(whole, name)).nnz == 0 for name in (*COUNTED, *WRITTEN))
        assert found.words is memory.words
    stored = load_file(tmp_path / "today.safetensors")
    assert not any(name.startswith(WRITTEN) for name in stored), "texts are not stored twice"


def test_what_came_since_is_added_as_it_would_be_counted(memory: Memory):
    """User d c goes on to b, and with what was counted that makes two."""

    def log(*histories: list[int]) -> TrainingLog:
        values, offsets = ragged(*histories)
        zeros, ones = np.zeros(len(values), np.int64), np.ones(len(values), np.float32)
        return TrainingLog(values, offsets, zeros, ones, 5)

    moves = Moves.of(log([4, 3, 2])).plus(Moves.of(log([4, 3])), -1)
    now = memory.with_moves(moves)
    assert now.counts.tolist() == [0, 2, 3, 2, 1, 0]
    assert now.forward[3, 2] == pytest.approx(1 / (2**0.25 * 3**0.15))
    assert now.forward[4, 2] == pytest.approx(DECAY / 3**0.15)
    assert now.forward[1, 2] == memory.forward[1, 2], "what was there stays as it was"
    assert now.backward[2, 3] == pytest.approx(memory.backward[2, 3] + 1 / (3**0.25 * 2**0.15))
    assert now.around[2, 4] == now.around[4, 2] > 0
    assert memory.forward[3, 2] == 0, "nobody who reads the old one is disturbed"
    assert now.words is memory.words
    assert now.together is memory.together
