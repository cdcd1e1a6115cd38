"""A small log of five items, counted by hand."""

import numpy as np
import pyarrow as pa
import pytest
from ragged import ragged

from ray_app.baselines import TrainingLog
from ray_app.evidence.memory import Memory


@pytest.fixture
def items() -> pa.Table:
    return pa.table(
        {
            "item_id": ["a", "b", "c", "d", "e"],
            "title": ["red lamp", "red shade", "green tea", "black tea", None],
            "description": pa.nulls(5, pa.string()),
            "brand": ["x", "x", "y", "z", None],
            "category": ["light", "light", "food", "food", None],
        }
    )


@pytest.fixture
def memory(items: pa.Table) -> Memory:
    """Users: a b c / a b / d c."""
    values, offsets = ragged([1, 2, 3], [1, 2], [4, 3])
    ones = np.ones(len(values), np.float32)
    return Memory.fit(TrainingLog(values, offsets, np.zeros(len(values), np.int64), ones, 5), items)
