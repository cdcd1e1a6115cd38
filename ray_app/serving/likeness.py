"""How alike items are, by the vectors that a model has of them: cosines, read off its own table."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_app.schema import PAD

Vectors = NDArray[np.float32]
AT_ONCE = 1 << 16
SMALLEST = 1e-12


class Likeness:
    """Vectors from which their mean was taken, made of length 1 when they are asked for: a table of a million is large.

    The mean says how popular items are scored, and would make all of them look alike.
    """

    def __init__(self, table: Vectors) -> None:
        """`table` is of the items 1, 2, ..., `[items, dim]`."""
        self._table = table
        self._mean = table.mean(axis=0)
        parts = (table[start : start + AT_ONCE] - self._mean for start in range(0, len(table), AT_ONCE))
        self._lengths = np.concatenate([np.linalg.norm(part, axis=1) for part in parts]).clip(SMALLEST)
        self.added = table[:0]
        """Vectors of items that were added since, of length 1 or 0."""

    def rows(self, items: NDArray[np.integer[Any]]) -> Vectors:
        """Vectors of item indices, `[items, dim]`; zeros for `PAD`."""
        size = len(self._table)
        place = np.clip(items - 1, 0, size - 1)
        found: Vectors = (self._table[place] - self._mean) / self._lengths[place, None]
        found[items == PAD] = 0
        found[items > size] = self.added[items[items > size] - size - 1]
        return found

    def to_all(self, row: Vectors) -> Vectors:
        """Cosine of a vector of length 1 with every item, `[items + 1]`."""
        trained = (self._table @ row - self._mean @ row) / self._lengths
        return np.concatenate([np.zeros(1, np.float32), trained, self.added @ row])
