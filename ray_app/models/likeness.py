"""Likeness: what is like the last items in text and picture is wanted, beside all that the network expects.

Where a log is sparse, the cosine of content to the last few items ranks better than any network that it can teach (on
Amazon Scientific with a tenth of its users NDCG@10 .0726 with popularity, a transformer over the same content .0588).
So these cosines stand in the score outright: a query is what the network expects, followed by the summed content of the
last items, and an item's vector what it is to the network, followed by its content. What each place counts and how much
all of it weighs is learned, the latter gated by what the network makes of the history.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_app.models.content import principal_directions

PLACES = (1.0, 0.4, 0.15, *[0.05] * 7)
"""What the last items count at the start, the last first, as in the untrained graph with text."""
WEIGHT = 16.0
"""Of a cosine, at the start: best on the validation part of Amazon Scientific, with popularity beside it."""
_LOG_PLACES, _LOG_WEIGHT = torch.tensor(PLACES).log(), torch.tensor(WEIGHT).log()
"""Taken here: on the meta device (`SequenceModel.flattened`) a logarithm takes torch's compiler."""


class Likeness(nn.Module):
    """The part of a query that items' likeness vectors are multiplied with.

    Places and weight are learned as logs, at the network's rate: faster, they overfit where events are few.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.places = nn.Parameter(_LOG_PLACES.clone())
        self.weight = nn.Parameter(_LOG_WEIGHT.clone())
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, alike: Tensor, expected: Tensor) -> Tensor:
        """After each position: `[batch, history, likeness_dim]`.

        Args:
            alike: likeness vectors of the items, `[batch, history, likeness_dim]`, zeros for padding.
            expected: the network's output, `[batch, history, dim]`.
        """
        places = self.places.exp()
        summed = places[0] * alike
        for back in range(1, min(len(places), alike.shape[1])):
            summed = summed + places[back] * functional.pad(alike[:, :-back], (0, 0, back, 0))
        return summed * self._weight(expected)

    def after(self, alike: Tensor, last: Tensor, expected: Tensor) -> Tensor:
        """After the position `last` `[batch]` alone, `[batch, likeness_dim]`; `expected` is `[batch, dim]`."""
        places = self.places.exp()
        position = last.unsqueeze(1) - torch.arange(len(places), device=last.device)
        there = (position >= 0).unsqueeze(-1)
        found = alike.take_along_dim(position.clamp_min(0).unsqueeze(-1), 1) * there
        return (places.unsqueeze(-1) * found).sum(1) * self._weight(expected)

    def _weight(self, expected: Tensor) -> Tensor:
        weight: Tensor = (self.weight + (expected * self.gate).sum(-1, keepdim=True)).exp()
        return weight


def likeness_vectors(parts: list[Tensor], dim: int) -> Tensor:
    """Vectors of length 1 whose products say how alike items are, float16 `[items, dim]`; zeros without any content.

    Each part (texts, pictures; `[items, content_dim]`) is compared along its own principal directions, halfway whitened
    and seen from the catalogue's own centre, and counts alike.
    """
    compared = []
    for part in parts:
        center, directions = principal_directions(part, dim // len(parts))
        known = part.any(1, keepdim=True)
        compared.append(functional.normalize((part.float() - center) * known @ directions.T, dim=1))
    joined = functional.normalize(torch.cat(compared, 1), dim=1)
    return functional.pad(joined, (0, dim - joined.shape[1])).half()
