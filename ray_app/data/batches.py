"""Length-aware batches: users of similar length share a batch, so that almost no position is padding.

Retail histories are short; padding them all to `max_history_len` would waste most of the work.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_app.data.sequences import FloatArray, IntArray, LongArray, Ragged
from ray_app.schema import PAD

POOL_BATCHES = 32
"""Batches whose windows are sorted by length together: enough for little padding, few enough to stay random."""


class Batch(NamedTuple):
    """Histories padded on the right with `PAD`: a causal model needs no mask for that."""

    items: Tensor
    """int64 `[batch, history]`: what the model reads."""
    targets: Tensor
    """int64 `[batch, history]`: the item that followed, `PAD` where there is none."""
    weights: Tensor
    """float32 `[batch, history]`: weight of each target in the loss, 0 at padding."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Windows(NamedTuple):
    """Stretches of at most `max_history_len + 1` events, each the training example of one user."""

    events: IntArray
    weights: FloatArray
    start: LongArray
    length: LongArray
    """Number of predictions in the window: events minus one."""

    @property
    def num_positions(self) -> int:
        """Predictions in all windows together."""
        return int(self.length.sum())


def cut_windows(histories: Ragged, weights: FloatArray, max_history_len: int) -> Windows:
    """Cut each history, from its end, into windows that overlap by one event.

    So every event but a user's first is a target exactly once. Users with fewer than two events give no window.
    """
    predictions = np.maximum(histories.lengths - 1, 0)
    count = -(-predictions // max_history_len)
    user = np.repeat(np.arange(len(count)), count)
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    last = histories.offsets[user + 1] - 1 - nth * max_history_len
    start = np.maximum(last - max_history_len, histories.offsets[user])
    return Windows(histories.values, weights, start, last - start)


def num_steps(num_positions: int, tokens_per_batch: int) -> int:
    """Optimizer steps that an epoch over `num_positions` predictions of one worker takes (at least one)."""
    return max(1, -(-num_positions // tokens_per_batch))


def training_batches(windows: Windows, steps: int, rng: np.random.Generator, first: int = 0) -> Iterator[Batch]:
    """Every window once, in exactly `steps` batches of about equal size; batches before `first` are skipped.

    The number of steps is given, not found, so that all workers of a run take the same number. Windows are shuffled,
    sorted by length inside pools, cut at equal numbers of positions, and the batches are shuffled again. A worker with
    fewer windows than steps gives batches without a target.
    """
    order = _pooled_order(windows.length, steps, rng)
    total = np.cumsum(windows.length[order])
    shares = np.arange(1, steps) * (total[-1] / steps if len(total) else 0)
    bounds = np.concatenate([[0], np.searchsorted(total, shares, side="left"), [len(order)]])
    for step in rng.permutation(steps)[first:]:
        yield collate(windows, order[bounds[step] : bounds[step + 1]])


def collate(windows: Windows, chosen: NDArray[np.int64]) -> Batch:
    """Pad the chosen windows on the right to the longest of them."""
    if not len(chosen):  # a worker without work still takes part in the step
        nothing = torch.full((1, 1), PAD, dtype=torch.int64)
        return Batch(nothing, nothing, torch.zeros(1, 1))
    length = windows.length[chosen]
    column = np.arange(int(length.max()))
    inside = column < length[:, None]
    position = np.where(inside, windows.start[chosen][:, None] + column, 0)
    following = np.where(inside, position + 1, 0)
    return Batch(
        torch.from_numpy(np.where(inside, windows.events[position], PAD).astype(np.int64)),
        torch.from_numpy(np.where(inside, windows.events[following], PAD).astype(np.int64)),
        torch.from_numpy(np.where(inside, windows.weights[following], 0).astype(np.float32)),
    )


def pad_histories(histories: Ragged, max_history_len: int) -> tuple[Tensor, Tensor]:
    """The last `max_history_len` items of each history, padded on the right, and how many they are.

    Returns:
        int64 `[batch, history]` and int64 `[batch]` (0 for an empty history).
    """
    length = np.minimum(histories.lengths, max_history_len)
    longest = max(int(length.max(initial=0)), 1)
    column = np.arange(longest)
    inside = column < length[:, None]
    position = np.where(inside, (histories.offsets[1:] - length)[:, None] + column, 0)
    values = histories.values if len(histories.values) else np.array([PAD], np.int32)
    return torch.from_numpy(np.where(inside, values[position], PAD).astype(np.int64)), torch.from_numpy(length)


def _pooled_order(length: LongArray, steps: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order in which neighbours have similar lengths, rising and falling pool by pool."""
    order = rng.permutation(len(length))
    pools = max(1, steps // POOL_BATCHES)
    sorted_pools = []
    for number, pool in enumerate(np.array_split(order, pools)):
        ascending = pool[np.argsort(length[pool], kind="stable")]
        sorted_pools.append(ascending if number % 2 == 0 else ascending[::-1])
    return np.concatenate(sorted_pools) if sorted_pools else order
