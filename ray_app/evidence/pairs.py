"""Pairs of a user and an item: candidates from every source, and numbers looked up for each pair."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ray_app.baselines.histories import Matrix, known, settled
from ray_app.evidence.memory import Memory
from ray_app.metrics import Ragged, Scores
from ray_app.schema import PAD

RECENCY_DECAY = 0.8
"""Weight of an event of the history per later event."""
FROM_MODEL, FROM_MEMORY, FROM_POPULAR = 100, 60, 20
"""Candidates taken from each source."""


@dataclass(frozen=True)
class Pairs:
    """Candidates of some users, by user and then by item."""

    users: NDArray[np.int64]
    """Row of each pair's user among the histories."""
    items: NDArray[np.int64]
    """Item index of each pair."""


@dataclass(frozen=True)
class Evidence:
    """What the memory says of every item after each history: sparse, `[users, num_items + 1]`."""

    forward: Matrix
    backward: Matrix
    around: Matrix
    together: Matrix
    alike: Matrix


def read_memory(memory: Memory, histories: Ragged) -> Evidence:
    """Sums over the whole history, recent events weighing more (for users in common, all the same)."""
    items, offsets = known(histories)
    lengths = np.diff(offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    age = np.repeat(offsets[1:], lengths) - 1 - np.arange(len(items))
    shape = (len(lengths), memory.num_items + 1)
    recent = sparse.csr_array((np.float32(RECENCY_DECAY) ** age, (users, items)), shape=shape)
    bags = sparse.csr_array((np.ones(len(items), np.float32), (users, items)), shape=shape)
    bags.data[:] = 1  # however often it stands there
    return Evidence(
        forward=settled(recent @ memory.forward),
        backward=settled(recent @ memory.backward),
        around=settled(recent @ memory.around),
        together=settled(bags @ memory.together),
        alike=settled(recent @ memory.alike),
    )


def candidates(scores: Scores, evidence: Evidence, memory: Memory, histories: Ragged, *, exclude_seen: bool) -> Pairs:
    """The best of the model, of each kind of evidence and of the popular items; own items too unless excluded."""
    num_users, width = scores.shape
    found = [_best_dense(scores, FROM_MODEL)]
    found += [_best_sparse(getattr(evidence, name), FROM_MEMORY) for name in ("forward", "around", "together", "alike")]
    popular = np.argsort(-memory.counts[1:], kind="stable")[:FROM_POPULAR] + 1
    found.append((np.arange(num_users)[:, None] * width + popular).ravel())
    items, offsets = known(histories)
    own = np.repeat(np.arange(num_users), np.diff(offsets)) * width + items
    keys = np.unique(np.concatenate(found if exclude_seen else [*found, own]))
    keys = keys[keys % width != PAD]
    if exclude_seen:
        keys = np.setdiff1d(keys, own, assume_unique=False)
    return Pairs(keys // width, keys % width)


def looked_up(matrix: Matrix, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float32]:
    """`matrix[rows[n], columns[n]]` for each n."""
    found: Any = matrix[rows, columns]  # a one-dimensional sparse array, or a dense one in older versions of scipy
    return np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float32).ravel()


def products(matrix: Matrix, rows: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float32]:
    """Inner product of two rows of `matrix` for each n."""
    # A row is often asked for again and again: each pair is multiplied once.
    keys, place = np.unique(rows * np.int64(matrix.shape[0]) + others, return_inverse=True)
    left, right = np.divmod(keys, matrix.shape[0])
    return np.asarray(matrix[left].multiply(matrix[right]).sum(axis=1), np.float32).ravel()[place]


def _best_dense(scores: Scores, number: int) -> NDArray[np.int64]:
    num_users, width = scores.shape
    number = min(number, width - 1)
    top = np.argpartition(-scores, number - 1, axis=1)[:, :number]
    best: NDArray[np.int64] = (np.arange(num_users)[:, None] * width + top).ravel()
    return best


def _best_sparse(scores: Matrix, number: int) -> NDArray[np.int64]:
    rows = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    # One key for row and value: several times faster than sorting by two. Of equals the lower column comes first.
    keys = rows - scores.data.astype(np.float64) / (2 * max(float(scores.data.max(initial=0)), 1e-30))
    order = np.argsort(keys, kind="stable")
    kept = order[np.arange(len(order)) - scores.indptr[rows] < number]
    best: NDArray[np.int64] = rows[kept].astype(np.int64) * scores.shape[1] + scores.indices[kept]
    return best
