"""Length-aware batches: users of similar length share a batch, so that almost no position is padding.

Retail histories are short; padding them all to `max_history_len` would waste most of the work.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_app.data.sequences import Events, FloatArray, Histories, IntArray, LongArray, Ragged
from ray_app.schema import PAD

POOL_BATCHES = 32
"""Batches whose windows are sorted by length together: enough for little padding, few enough to stay random."""


class Batch(NamedTuple):
    """Histories padded on the right with `PAD` (a causal model needs no mask for that), and what is asked of them."""

    items: Tensor
    """int64 `[batch, history]`: what the model reads."""
    queries: Tensor
    """int64 `[queries]`: positions, in `items` flattened, after which an order is to be foretold."""
    query_of_target: Tensor
    """int64 `[targets]`: which query asks for the target; an order has one query and many targets."""
    targets: Tensor
    """int64 `[targets]`: item indices."""
    weights: Tensor
    """float32 `[targets]`: weight of each target in the loss."""
    clicks: Tensor
    """bool `[batch, history]`: as `Events.clicks`."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Windows(NamedTuple):
    """Stretches of at most `max_history_len + 1` events, each the training example of one user."""

    events: IntArray
    context: LongArray
    """Beside `events`: index of the last event before the event's order, -1 where there is none."""
    weights: FloatArray
    clicks: NDArray[np.bool_]
    start: LongArray
    length: LongArray
    """Number of positions that the model reads: events minus one."""

    @property
    def num_positions(self) -> int:
        """Positions in all windows together."""
        return int(self.length.sum())


_NO_WINDOWS = Windows(
    events=np.zeros(0, np.int32),
    context=np.zeros(0, np.int64),
    weights=np.zeros(0, np.float32),
    clicks=np.zeros(0, np.bool_),
    start=np.zeros(0, np.int64),
    length=np.zeros(0, np.int64),
)


def cut_windows(histories: Histories, max_history_len: int, *, only_new: bool = False) -> Windows:
    """Cut the train part of each history, from its end, into windows that overlap by one event.

    The items of an order are foretold from what came before the order, as evaluation asks for them; in a log without
    orders that is the event before. So every event but those of a user's first order is a target exactly once, except
    where a window begins inside an order: there nothing is left to foretell its rest from.

    Args:
        histories: users with at least two train events give windows.
        max_history_len: positions in a window, at most.
        only_new: an item that the user had before is not a target.
    """
    events = histories.train()
    predictions = np.maximum(events.lengths - 1, 0)
    count = -(-predictions // max_history_len)
    user = np.repeat(np.arange(len(count)), count)
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    last = events.offsets[user + 1] - 1 - nth * max_history_len
    start = np.maximum(last - max_history_len, events.offsets[user])
    weights = histories.train_weights()
    if only_new:
        weights = np.where(_is_first(events), weights, 0)
    context = _context(events, histories.train_orders())
    return Windows(events.values, context, weights, events.clicks, start, last - start)


def join_windows(cuts: Sequence[Windows]) -> Windows:
    """The windows of several cuts as those of one; of none, no windows."""
    if len(cuts) == 1:
        return cuts[0]
    cuts = [_NO_WINDOWS, *cuts]
    shifts = np.cumsum([0, *(len(cut.events) for cut in cuts)])[:-1]
    return Windows(
        np.concatenate([cut.events for cut in cuts]),
        np.concatenate(
            [np.where(cut.context < 0, -1, cut.context + shift) for cut, shift in zip(cuts, shifts, strict=True)]
        ),
        np.concatenate([cut.weights for cut in cuts]),
        np.concatenate([cut.clicks for cut in cuts]),
        np.concatenate([cut.start + shift for cut, shift in zip(cuts, shifts, strict=True)]),
        np.concatenate([cut.length for cut in cuts]),
    )


def _context(events: Ragged, orders: IntArray) -> LongArray:
    """For each event the index of the last one before its order, -1 in a user's first order."""
    first_of_user = np.zeros(len(orders), np.bool_)
    first_of_user[events.offsets[:-1][events.lengths > 0]] = True
    begins = first_of_user | (np.diff(orders, prepend=-1) != 0)
    index = np.arange(len(orders))
    order_start = np.maximum.accumulate(np.where(begins, index, 0))
    return np.where(first_of_user[order_start], -1, order_start - 1) if len(orders) else index


def _is_first(events: Ragged) -> NDArray[np.bool_]:
    """Whether the user has the item for the first time."""
    key = np.repeat(np.arange(len(events.lengths), dtype=np.int64) << 32, events.lengths) | events.values
    first = np.zeros(len(key), np.bool_)
    first[np.unique(key, return_index=True)[1]] = True
    return first


def num_steps(num_positions: int, tokens_per_batch: int) -> int:
    """Optimizer steps that an epoch over `num_positions` of one worker takes (at least one)."""
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
    """Pad the chosen windows on the right to the longest of them, and gather their targets."""
    if not len(chosen):  # a worker without work still takes part in the step
        nothing, unread = torch.zeros(0, dtype=torch.int64), torch.full((1, 1), PAD, dtype=torch.int64)
        return Batch(unread, nothing, nothing, nothing, torch.zeros(0), unread.bool())
    start, length = windows.start[chosen][:, None], windows.length[chosen][:, None]
    column = np.arange(int(length.max()))
    inside = column < length
    position = np.where(inside, start + column, 0)
    following = np.where(inside, position + 1, 0)
    asked = windows.context[following] - start
    row, place = np.nonzero(inside & (asked >= 0) & (windows.weights[following] > 0))
    event = following[row, place]
    queries, query_of_target = np.unique(row * len(column) + asked[row, place], return_inverse=True)
    return Batch(
        torch.from_numpy(np.where(inside, windows.events[position], PAD).astype(np.int64)),
        torch.from_numpy(queries),
        torch.from_numpy(query_of_target),
        torch.from_numpy(windows.events[event].astype(np.int64)),
        torch.from_numpy(windows.weights[event].astype(np.float32)),
        torch.from_numpy(inside & windows.clicks[position]),
    )


def pad_histories(histories: Ragged, max_history_len: int) -> tuple[Tensor, Tensor, Tensor]:
    """The last `max_history_len` items of each history, padded on the right, how many they are, and which are clicks.

    Returns:
        int64 `[batch, history]`, int64 `[batch]` (0 for an empty history) and bool `[batch, history]`.
    """
    length = np.minimum(histories.lengths, max_history_len)
    longest = max(int(length.max(initial=0)), 1)
    column = np.arange(longest)
    inside = column < length[:, None]
    position = np.where(inside, (histories.offsets[1:] - length)[:, None] + column, 0)
    values = histories.values if len(histories.values) else np.array([PAD], np.int32)
    items = np.where(inside, values[position], PAD).astype(np.int64)
    clicks = np.zeros_like(inside)
    if isinstance(histories, Events) and len(histories.values):
        clicks = inside & histories.clicks[position]
    return torch.from_numpy(items), torch.from_numpy(length), torch.from_numpy(clicks)


def _pooled_order(length: LongArray, steps: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order in which neighbours have similar lengths, rising and falling pool by pool."""
    order = rng.permutation(len(length))
    pools = max(1, steps // POOL_BATCHES)
    sorted_pools = []
    for number, pool in enumerate(np.array_split(order, pools)):
        ascending = pool[np.argsort(length[pool], kind="stable")]
        sorted_pools.append(ascending if number % 2 == 0 else ascending[::-1])
    return np.concatenate(sorted_pools) if sorted_pools else order
