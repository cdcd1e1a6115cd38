"""Item vectors from content: a projection of the vectors that a frozen encoder made of items' texts, or pictures.

The projection begins at the principal directions of the catalogue's vectors, halfway whitened: what all texts of a shop
have in common says nothing of any of them, and a few directions would else drown the rest. Held there by the schedule
(`backbone.content` frozen), it leaves to training a small difference between an item and its content, so that an item
without training stands where its content says ("Let It Go?": arXiv 2507.19473).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

NEIGHBORS = 10
"""Items whose ids speak for one that has none."""
SHARPNESS = 10.0
"""How much more a nearer one has to say: weights are softmax(SHARPNESS * cosine)."""
ROWS = 4096
"""Items whose neighbours are looked for at a time."""
NORM = 0.5
"""Of item vectors, in the mean of their squares: as long as training makes vectors of ids."""
SMALLEST = 1e-4
"""Variance of a direction, by the greatest, below which it is noise."""
FITTED_ON = 100_000
"""Items are enough to find the directions."""


class ContentProjection(nn.Module):
    """Content vectors to item vectors."""

    center: Tensor

    def __init__(self, content_dim: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(content_dim))
        self.project = nn.Linear(content_dim, dim, bias=False)

    def forward(self, content: Tensor) -> Tensor:
        """`[..., content_dim]` to `[..., dim]`; zeros (no content) to zeros."""
        projected: Tensor = self.project(self._centered(content))
        return projected

    def directions(self, content: Tensor) -> Tensor:
        """Content vectors as compared with each other: from the centre, of length 1; zeros stay zeros."""
        return functional.normalize(self._centered(content), dim=-1)

    def _centered(self, content: Tensor) -> Tensor:
        return (content.to(self.center.dtype) - self.center) * content.any(-1, keepdim=True)

    @torch.no_grad()
    def fit(self, content: Tensor, norm: float = NORM, *, backward: bool = False) -> None:
        """Begin at the principal directions of a catalogue's vectors `[items, content_dim]`, zeros passed over.

        Args:
            content: the vectors.
            norm: of what it makes of them, in the mean of squares.
            backward: put the strongest directions last, where another projection has its weakest.
        """
        center, directions = principal_directions(content, self.project.out_features)
        self.center.copy_(center)
        self.project.weight.zero_()
        self.project.weight[: len(directions)] = directions * norm
        if backward:
            self.project.weight.copy_(self.project.weight.flip(0))

    @torch.no_grad()
    def move_to(self, content: Tensor) -> None:
        """See another catalogue from its own centre: what sets its texts apart from all others says nothing in it."""
        self.center.copy_(_described(content).mean(0))

    @staticmethod
    @torch.no_grad()
    def borrowed(
        asking: Iterable[Tensor], known: Tensor, own: Tensor, bias: Tensor, length: float
    ) -> tuple[Tensor, Tensor]:
        """What ids would add to items that have none, from the known items most like them: vectors and biases.

        A new item competes with items whose ids training made long: at its bare content it is never recommended. So it
        borrows the direction in which like items were moved, at the length that is usual for them.

        Args:
            asking: directions of the items, some at a time, `[some, directions]`; zeros where nothing is known.
            known: directions of items that were trained, `[known, directions]`.
            own: what their ids add, `[known, dim]`.
            bias: theirs, `[known]`.
            length: of what is lent, by what is usual.
        """
        usual = length * own.norm(dim=1).mean()
        vectors, biases = [own[:0]], [bias[:0]]
        for some in asking:
            described = some.any(1, keepdim=True)
            nearest, place = (some @ known.T).topk(min(NEIGHBORS, len(known)), dim=1)
            weights = torch.softmax(SHARPNESS * nearest, dim=1)
            mixed = functional.normalize((weights.unsqueeze(-1) * own[place]).sum(1), dim=1)
            vectors.append(mixed * usual * described)
            biases.append(torch.where(described.squeeze(1), (weights * bias[place]).sum(1), bias.mean()))
        return torch.cat(vectors), torch.cat(biases)


def principal_directions(content: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Centre `[content_dim]` of vectors `[items, content_dim]`, zeros passed over, and their directions.

    These are `dim` rows at most, the strongest first, halfway whitened (variances become their square roots), such that
    the squares of a centred vector's products with them sum to one in the mean.
    """
    sample = _described(content)
    centered = sample - sample.mean(0)
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(sample))  # ascending
    kept = min(dim, int((variances > SMALLEST * variances[-1]).sum()))
    variances, directions = variances.flip(0)[:kept], directions.flip(1)[:, :kept]
    halfway = directions * variances.pow(-0.25) / variances.sqrt().sum().sqrt()
    return sample.mean(0).float(), halfway.T.float()


def _described(content: Tensor) -> Tensor:
    """Some of the vectors that are not zero, float64, as many as it takes to find directions."""
    sample = content[:: -(-len(content) // FITTED_ON)]
    return sample[sample.any(1)].double()
