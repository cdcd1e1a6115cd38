"""The backbone of the sequence model: reads the vectors of a history and says what will be wanted next."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_app.models.content import ContentProjection


@dataclass(frozen=True)
class SequenceShape:
    """Sizes that fix the parameters of a `SequenceModel`."""

    dim: int
    num_layers: int
    num_heads: int
    feedforward_dim: int
    max_history_len: int
    repeats: bool = False
    """Whether buying again is scored outright."""
    content_dim: int = 0
    """Of vectors of texts; 0 where there are none."""
    delta_norm: float | None = None
    """Bound on the norm of what an item's id adds to its content."""
    picture_dim: int = 0
    """Of vectors of pictures; 0 where there are none."""
    labels: bool = False
    """Whether an item is its labels, too."""
    likeness_dim: int = 0
    """Of the vectors by which likeness to the last items is scored outright; 0 where it is not."""
    mark_clicks: bool = False
    """Whether clicks are told apart from the other events of a history."""
    temperature: float | None = None
    """What the cosine of query and item is divided by to be a score; None: a score is their product as it is."""


class Block(nn.Module):
    """Pre-norm causal self-attention and a SwiGLU feed-forward (Shazeer 2020), each let through by a gate.

    The gates are those of LiGR (Borisyuk et al. 2024, arXiv 2502.03417), which eSASRec (Tikhonovich et al. 2025, arXiv
    2508.06450) found to win on public logs: what a block adds depends on where it is added.
    """

    def __init__(self, shape: SequenceShape, dropout: float) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(shape.dim)
        self.query_key_value = nn.Linear(shape.dim, 3 * shape.dim)
        self.attention_out = nn.Linear(shape.dim, shape.dim)
        self.attention_gate = nn.Linear(shape.dim, shape.dim)
        self.feedforward_norm = nn.LayerNorm(shape.dim)
        self.feedforward_in = nn.Linear(shape.dim, 2 * shape.feedforward_dim)
        self.feedforward_out = nn.Linear(shape.feedforward_dim, shape.dim)
        self.feedforward_gate = nn.Linear(shape.dim, shape.dim)

    def forward(self, hidden: Tensor, last: Tensor | None = None) -> Tensor:
        """`[batch, history, dim]` to the same; with `last`, a position of each, to that alone: `[batch, 1, dim]`."""
        normed = self.attention_norm(hidden)
        if last is None:
            query, key, value = self._split(self.query_key_value(normed), 3)
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:  # all are read, one is asked: most of the work is saved
            mask = torch.arange(hidden.shape[1], device=hidden.device) <= last[:, None]
            one, dim = last[:, None, None], hidden.shape[-1]
            weights, biases = self.query_key_value.weight, self.query_key_value.bias
            [query] = self._split(functional.linear(normed.take_along_dim(one, 1), weights[:dim], biases[:dim]), 1)
            key, value = self._split(functional.linear(normed, weights[dim:], biases[dim:]), 2)
            mixed = functional.scaled_dot_product_attention(query, key, value, mask[:, None, None])
            hidden = hidden.take_along_dim(one, 1)
        mixed = mixed.transpose(1, 2).reshape(hidden.shape)
        hidden = hidden + self._drop(self.attention_out(mixed) * torch.sigmoid(self.attention_gate(hidden)))
        signal, through = self.feedforward_in(self.feedforward_norm(hidden)).chunk(2, dim=-1)
        fed = self.feedforward_out(self._drop(functional.silu(signal) * through))
        return hidden + self._drop(fed * torch.sigmoid(self.feedforward_gate(hidden)))

    def _split(self, joined: Tensor, parts: int) -> Tensor:
        """`[batch, history, parts * dim]` to `[parts, batch, heads, history, dim of a head]`."""
        batch, history, _ = joined.shape
        return joined.view(batch, history, parts, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def _drop(self, value: Tensor) -> Tensor:
        return functional.dropout(value, self.dropout, self.training)


class Backbone(nn.Module):
    """Reads item vectors, gives one vector per position: what will be wanted next."""

    at_input = ("content", "content_image", "labels")
    """Make the vectors that are read, though they were registered last (see `blocks_of`)."""
    dropout_when_frozen = True
    """Frozen, it is still what the head's vectors of new items learn through: dropout keeps them from overfitting."""

    def __init__(self, shape: SequenceShape, num_known: int, dropout: float, known_labels: int = 0) -> None:
        super().__init__()
        self.dropout = dropout
        self.items = nn.Embedding(num_known, shape.dim)
        self.positions = nn.Embedding(shape.max_history_len, shape.dim)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.num_layers))
        self.norm = nn.LayerNorm(shape.dim)
        self.content = ContentProjection(shape.content_dim, shape.dim) if shape.content_dim else None
        self.content_image = ContentProjection(shape.picture_dim, shape.dim) if shape.picture_dim else None
        self.labels = nn.Embedding(known_labels, shape.dim) if shape.labels else None
        self.click = nn.Parameter(torch.zeros(shape.dim)) if shape.mark_clicks else None

    def forward(self, vectors: Tensor, last: Tensor | None = None, clicks: Tensor | None = None) -> Tensor:
        """`[batch, history, dim]` to the same; position t depends on positions up to t alone.

        With `last`, a position of each, what comes out there alone: `[batch, 1, dim]`. `clicks` says which events are
        clicks, bool `[batch, history]`, for shapes that tell them apart; None: none.
        """
        # Scaled as in Vaswani et al. 2017: tied vectors are small for the output's sake and would drown in dropout.
        hidden = vectors * math.sqrt(vectors.shape[-1]) + self.positions.weight[: vectors.shape[1]]
        if self.click is not None and clicks is not None:
            hidden = hidden + clicks.unsqueeze(-1) * self.click
        hidden = functional.dropout(hidden, self.dropout, self.training)
        *lower, top = self.blocks
        for block in lower:
            hidden = block(hidden)
        out: Tensor = self.norm(top(hidden, last))
        return out
