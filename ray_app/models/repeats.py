"""Repeat habits: how often, and how lately, the user had an item before says how likely it is wanted again.

A transformer over a sparse log takes long to learn to copy; buying again is most of what grocery customers do. Three
learned weights say it outright, as personal top frequency does (GP-TopFreq: Li et al. 2023, arXiv 2109.14233).
"""

import torch
from torch import Tensor, nn

HALF_LIVES = (float("inf"), 50.0, 10.0)
"""In events: all of the history, the last months, the last orders."""
GAIN = 10.0
"""Weights are learned divided by this: at the network's rate Adam would take thousands of steps to move them by one."""
INIT = 1.0
"""Of the weights as they act."""


class Repeats(nn.Module):
    """Adds sum_h weight_h * log(1 + sum over earlier events of the item of 2^(-age / h)) to an item's score."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((len(HALF_LIVES),), INIT / GAIN))

    def of_sample(self, items: Tensor, row: Tensor, place: Tensor, sample: Tensor) -> Tensor:
        """Bonus of each sampled item at each query, `[queries, samples]`.

        Args:
            items: `[batch, history]`.
            row: row of each query in `items`, `[queries]`.
            place: position of each query in its row, `[queries]`.
            sample: item indices `[samples]`.
        """
        same = (items.unsqueeze(-1) == sample).to(self.weights.dtype)
        counts = torch.bmm(_fading(place, items.shape[1]), same[row])
        return self._bonus(counts.transpose(0, 1))

    def of_pairs(self, items: Tensor, row: Tensor, place: Tensor, wanted: Tensor) -> Tensor:
        """Bonus of one item at each query, `[queries]`; arguments as in `of_sample`, `wanted` is `[queries]`."""
        same = (items[row] == wanted.unsqueeze(-1)).to(self.weights.dtype)
        counts = torch.einsum("qhl,ql->hq", _fading(place, items.shape[1]), same)
        return self._bonus(counts)

    def add_to(self, logits: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        """`logits` `[batch, num_items + 1]` with the bonus of every item of the history, which ends at `lengths`."""
        batch, history = items.shape
        row = torch.arange(batch, device=items.device).repeat_interleave(history)
        place = (lengths - 1).repeat_interleave(history)
        bonus = self.of_pairs(items, row, place, items.flatten()).view(batch, history)
        # The same item gets the same sum at each of its places, so it does not matter which is written last.
        return logits.scatter(1, items, logits.gather(1, items) + bonus.to(logits.dtype))

    def _bonus(self, counts: Tensor) -> Tensor:
        bonus: Tensor = GAIN * torch.tensordot(self.weights, counts.log1p(), dims=1)
        return bonus


def _fading(place: Tensor, history: int) -> Tensor:
    """Weight of each event at each query, `[queries, half-lives, history]`; what comes after it weighs nothing."""
    age = place.unsqueeze(1) - torch.arange(history, device=place.device)
    half_lives = torch.tensor(HALF_LIVES, device=place.device).view(1, -1, 1)
    return torch.where(age.unsqueeze(1) >= 0, torch.exp2(-age.clamp_min(0).unsqueeze(1) / half_lives), 0.0)
