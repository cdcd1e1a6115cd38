"""Histories as sparse matrices: one row per user, one column per item."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ray_app.metrics import Ragged
from ray_app.schema import PAD

Matrix: TypeAlias = "sparse.csr_array[np.float32, tuple[int, int]]"


def matrix(values: Any, rows: NDArray[Any], columns: NDArray[Any], shape: tuple[int, int]) -> Matrix:
    """Sum `values` (an array, or one number for all) by row and column."""
    data = np.broadcast_to(np.asarray(values, np.float32), rows.shape)
    return settled(sparse.coo_array((data, (rows, columns)), shape=shape))


def settled(any_matrix: Any) -> Matrix:
    """Float32 CSR in its final form: scipy then never sorts it in place, which shared read-only memory forbids."""
    found: Matrix = sparse.csr_array(any_matrix, dtype=np.float32)
    found.sum_duplicates()
    return found


def known(histories: Ragged) -> Ragged:
    """The histories without `PAD`: an item that is not in the vocabulary says nothing."""
    values, offsets = histories
    kept = values != PAD
    return values[kept], np.concatenate([[0], np.cumsum(kept)])[offsets]


def bags(histories: Ragged, num_items: int) -> Matrix:
    """1 for every item of each user, however often it stands there; `[users, num_items + 1]`."""
    items, offsets = known(histories)
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    found = matrix(1, users, items, (len(offsets) - 1, num_items + 1))
    found.data[:] = 1
    return found


def last_items(histories: Ragged, weights: tuple[float, ...], num_items: int) -> Matrix:
    """`weights[n]` at each user's n-th item from the end; `[users, num_items + 1]`."""
    items, offsets = known(histories)
    lengths = np.diff(offsets)
    places = [np.flatnonzero(lengths > place) for place in range(len(weights))]
    rows = np.concatenate(places)
    columns = np.concatenate([items[offsets[1:][users] - 1 - place] for place, users in enumerate(places)])
    values = np.repeat(weights, [len(users) for users in places])
    return matrix(values, rows, columns, (len(lengths), num_items + 1))
