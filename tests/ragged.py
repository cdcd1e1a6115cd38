"""Lists of different lengths, written as lists."""

import numpy as np

from ray_app.data.sequences import Ragged


def ragged(*rows: list[int]) -> Ragged:
    return Ragged(np.array([x for row in rows for x in row], np.int32), np.cumsum([0, *map(len, rows)]))
