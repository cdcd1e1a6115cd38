"""Repeat habits: an item that the user had before is wanted again because it was had, whatever else speaks for it.

A transformer over a sparse log takes long to learn to copy; buying again is most of what grocery customers do. So an
item's score is the log of a sum: what the network expects of it, plus what the user's own history says (a copy
mechanism: Gu et al. 2016, CopyNet, arXiv 1603.06393). Summed, not multiplied: a rare item that is bought every week is
as likely next week as a popular one. Counts of the history alone are personal top frequency, the baseline that most
next-basket models lose to (GP-TopFreq: Li et al. 2023, arXiv 2109.14233).
"""

import torch
from torch import Tensor, nn

HALF_LIVES = (float("inf"), 50.0, 10.0)
"""In events: all of the history, the last months, the last orders."""
WEIGHTS = (-1.0, -2.0, -2.0)
"""Logs of what a count at each half-life is worth at the start."""
POWER, NORM = 1.0, -1.0
"""At the start the habit is a share: counts by the length of the history."""
GAIN = 10.0
"""Parameters are learned divided by this: at the network's rate Adam takes thousands of steps to move them by one."""


class Repeats(nn.Module):
    """A user's habit for an item, as a log that stands beside the network's logit.

    power * log(sum_h weight_h * sum over earlier events of i of 2^(-age / h)) + norm * log(1 + events)
    + (what the item is like: milk is bought again, a cake tin is not) + (what the user asks for now).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(WEIGHTS) / GAIN)
        self.shape = nn.Parameter(torch.tensor([POWER, NORM]) / GAIN)
        self.of_item = nn.Linear(dim, 1, bias=False)
        self.of_query = nn.Linear(dim, 1, bias=False)

    def evidence(self, items: Tensor, vectors: Tensor, queries: Tensor) -> Tensor:
        """Habit for the item at each position after each place, `[batch, place, position]`; -inf unless it was had.

        Args:
            items: `[batch, history]`.
            vectors: of the items, `[batch, history, dim]`.
            queries: the network's output, `[batch, history, dim]`.
        """
        place = torch.arange(items.shape[1], device=items.device)
        same = (items.unsqueeze(2) == items.unsqueeze(1)).to(self.weights.dtype)
        counts = self._fading(place.unsqueeze(1) - place) @ same
        habit = self._habit(counts, place.unsqueeze(1), vectors.unsqueeze(1), queries.unsqueeze(2))
        return habit.masked_fill((counts == 0) | (items == 0).unsqueeze(1), float("-inf"))

    def after(self, items: Tensor, lengths: Tensor, vectors: Tensor, query: Tensor, num_items: int) -> Tensor:
        """Habit for the item at each position after the whole history, `[batch, history]`; -inf for padding.

        Args:
            items: `[batch, history]`, padded on the right with 0.
            lengths: `[batch]`.
            vectors: of the items, `[batch, history, dim]`.
            query: the network's output at the end, `[batch, dim]`.
            num_items: size of the catalogue.
        """
        age = (lengths - 1).unsqueeze(1) - torch.arange(items.shape[1], device=items.device)
        totals = torch.zeros(len(items), num_items + 1, dtype=self.weights.dtype, device=items.device)
        counts = totals.scatter_add(1, items, self._fading(age)).gather(1, items)
        habit = self._habit(counts, (lengths - 1).clamp_min(0).unsqueeze(1), vectors, query.unsqueeze(1))
        return habit.masked_fill((counts == 0) | (items == 0), float("-inf"))

    def _fading(self, age: Tensor) -> Tensor:
        """Weight of an event of each age; what is yet to come weighs nothing."""
        half_lives = torch.tensor(HALF_LIVES, device=age.device)
        fading = torch.exp2(-age.clamp_min(0).unsqueeze(-1) / half_lives) @ (GAIN * self.weights).exp()
        weight: Tensor = torch.where(age >= 0, fading, 0.0)
        return weight

    def _habit(self, counts: Tensor, place: Tensor, vectors: Tensor, queries: Tensor) -> Tensor:
        power, norm = GAIN * self.shape
        # Where nothing was counted any finite value does: the caller puts -inf there.
        habit = power * torch.where(counts > 0, counts, 1.0).log() + norm * place.to(counts.dtype).log1p()
        gates = GAIN * self.of_item(vectors).squeeze(-1) + self.of_query(queries).squeeze(-1)
        gated: Tensor = habit + gates
        return gated


def with_habits(logits: Tensor, items: Tensor, habits: Tensor) -> Tensor:
    """`logits` `[rows, num_items + 1]` with the habit of every item of each row's history.

    Args:
        logits: the network's.
        items: `[rows, history]`.
        habits: `[rows, history]`; the same item has the same habit at each of its positions. Where gradients are
            wanted, each item may stand there once (others are 0): scatter gives its gradient to all who wrote.
    """
    own = torch.logaddexp(logits.gather(1, items), habits.to(logits.dtype))
    return logits.scatter(1, items, own)


def habits_of(wanted: Tensor, items: Tensor, habits: Tensor) -> Tensor:
    """Habit for one item per row, `[rows]`; -inf for one that was never had. Arguments as in `with_habits`."""
    return habits.masked_fill(items != wanted.unsqueeze(1), float("-inf")).amax(1)


def last_places(items: Tensor) -> Tensor:
    """For each place the positions up to it that hold an item for the last time, bool `[batch, place, position]`.

    Each distinct item of the history up to a place is so found once; padding is not.
    """
    history = items.shape[1]
    position = torch.arange(history, device=items.device)
    again = (items.unsqueeze(2) == items.unsqueeze(1)) & (position > position.unsqueeze(1))
    following = torch.where(again, position, history).amin(2)
    place = position.unsqueeze(1)
    return (position <= place) & (following.unsqueeze(1) > place) & (items > 0).unsqueeze(1)


def without_had(logits: Tensor, items: Tensor, row: Tensor, place: Tensor, sample: Tensor) -> Tensor:
    """`logits` with -inf where a query's history holds the item of the sample.

    Args:
        logits: `[queries, samples]`.
        items: `[batch, history]`.
        row: row of each query in `items`, `[queries]`.
        place: last position of each query's history, `[queries]`.
        sample: item indices, `[samples]`.
    """
    # Few of a history are in a sample of a large catalogue: these few are looked for, and not each of both in each.
    in_row, at = torch.isin(items, sample).nonzero(as_tuple=True)
    hit, drawn = (items[in_row, at].unsqueeze(1) == sample).nonzero(as_tuple=True)
    query, found = ((row.unsqueeze(1) == in_row[hit]) & (place.unsqueeze(1) >= at[hit])).nonzero(as_tuple=True)
    return logits.index_put((query, drawn[found]), logits.new_tensor(float("-inf")))
