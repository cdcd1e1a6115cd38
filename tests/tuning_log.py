"""A small log and searches on it, for the tests of the search."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_app.tuning.search import Search

MakeSearch = Callable[..., Search]


def write_log(path: Path, users: int, seed: int) -> None:
    """Each item is followed by the next one, four times out of five."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int]] = []
    for user in range(users):
        item = int(rng.integers(40))
        for _ in range(int(rng.integers(3, 10))):
            rows.append((user, item))
            item = (item + 1) % 40 if rng.random() < 0.8 else int(rng.integers(40))
    users_column, items = zip(*rows, strict=True)
    pq.write_table(pa.table({"user_id": users_column, "item_id": items, "timestamp": range(len(rows))}), path)
