"""Vectors of items: what their texts, pictures and labels say, what their ids add, and how alike they are.

Every parameter belongs to `backbone` (what a checkpoint brings: the blocks, the positions, the vectors of items it
knows) or to `head` (what is new for this catalogue: vectors of items it has never seen, a bias for every item).
Where there is content, an item's vector is what each part of it says plus what its id adds, so that an item that no
training saw has a vector too.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_app.models.content import NORM, ROWS, ContentProjection
from ray_app.models.head import Head
from ray_app.models.transformer import Backbone, SequenceShape

INIT_STD = 0.02


class LabelRows(NamedTuple):
    """Labels of items as rows of one table: first those that the backbone knows, then those that are new."""

    of_item: Tensor
    """`[items, width]`; the number of all rows is padding."""
    num_known: int
    num_new: int


class DescribedItems(nn.Module):
    """A backbone, a head, and what both make of the items of a catalogue.

    Items have indices 1..num_items; 0 is padding. `row_of_item[i - 1]` is the row of item i in the joined table
    (`backbone.items` first, then `head.items`). `content[i - 1]` is the vector of item i's texts, zeros where nothing
    is known of it, and `pictures[i - 1]` that of its picture; `labels` are rows of a joined table, too. `id_dropout` is
    how often an item is trained without what its id adds, `lent_length` how long, by what is usual, the vectors are
    that an item without training is lent. `alike[i - 1]` is the item's likeness vector (`likeness_vectors`).

    A query and an item's scored vector are as wide as `dim`, and by the likeness vector wider where there is one.
    """

    row_of_item: Tensor
    content: Tensor | None
    content_image: Tensor | None
    labels: Tensor | None
    alike: Tensor | None

    def __init__(
        self,
        shape: SequenceShape,
        row_of_item: Tensor,
        num_known: int,
        dropout: float = 0.0,
        content: Tensor | None = None,
        id_dropout: float = 0.0,
        lent_length: float = 1.0,
        pictures: Tensor | None = None,
        labels: LabelRows | None = None,
        alike: Tensor | None = None,
    ) -> None:
        super().__init__()
        assert (0 if alike is None else alike.shape[1]) == shape.likeness_dim
        assert (0 if content is None else content.shape[1]) == shape.content_dim
        assert (0 if pictures is None else pictures.shape[1]) == shape.picture_dim
        assert (labels is not None) == shape.labels
        num_items = len(row_of_item)
        self.shape = shape
        self.num_items = num_items
        self.num_known = num_known
        self.id_dropout, self.lent_length = id_dropout, lent_length
        self.backbone = Backbone(shape, num_known, dropout, labels.num_known if labels else 0)
        self.head = Head(shape, num_items - num_known, num_items, labels.num_new if labels else 0)
        self.register_buffer("row_of_item", row_of_item.to(torch.int64))
        self.register_buffer("content", None if content is None else content.half())
        self.register_buffer("content_image", None if pictures is None else pictures.half())
        self.register_buffer("labels", labels.of_item if labels else None)
        self.register_buffer("alike", alike)
        self.is_described = not (content is None and pictures is None and labels is None)
        self.apply(_initialize)
        if self.head.labels is not None:
            nn.init.zeros_(self.head.labels.weight)  # until it is trained, a label says nothing

    def vectors(self, items: Tensor) -> Tensor:
        """Vectors of item indices (padding gives some item's vector; a causal reader never sees it): `[..., dim]`."""
        index = (items - 1).clamp_min(0)
        own = self._own_vectors(self.row_of_item[index])
        return self.content_vectors(*self._described(index)) + self._held(own) if self.is_described else own

    def scored(self, items: Tensor) -> Tensor:
        """What queries are multiplied with to score item indices, `[..., width]`."""
        vectors = self._as_scored(self.vectors(items))
        return vectors if self.alike is None else torch.cat([vectors, self._alike(items).to(vectors.dtype)], -1)

    def _as_scored(self, vectors: Tensor) -> Tensor:
        return vectors if self.shape.temperature is None else functional.normalize(vectors, dim=-1)

    def _alike(self, items: Tensor) -> Tensor:
        """Likeness vectors of item indices, zeros for padding, `[..., likeness_dim]`."""
        assert self.alike is not None
        return self.alike[(items - 1).clamp_min(0)] * (items > 0).unsqueeze(-1)

    def content_vectors(
        self, content: Tensor | None, pictures: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Vectors of items from their content alone, as of items added after training.

        Args:
            content: `[..., content_dim]`.
            pictures: `[..., picture_dim]`.
            labels: rows, `[..., labels]`.
        """
        said = [project(vectors) for project, vectors in self._projected(content, pictures)]
        if labels is not None:
            said.append(self._label_vectors(labels))
        vectors: Tensor = sum(said[1:], said[0])
        return vectors

    def directions(
        self, content: Tensor | None, pictures: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """What items are compared by, arguments as `content_vectors`: texts and pictures alike; `[items, directions]`.

        Labels alone where there is neither: beside texts they found worse neighbours (benchmarks/LOG.md).
        """
        parts = [project.directions(vectors) for project, vectors in self._projected(content, pictures)]
        if not parts:
            assert labels is not None
            parts = [self._label_vectors(labels)]
        return functional.normalize(torch.cat(parts, -1), dim=-1)

    def fit_content(self) -> None:
        """Begin projections at the principal directions of the catalogue's vectors, together as long as one alone."""
        parts = list(self._projected(self.content, self.content_image))
        for number, (project, vectors) in enumerate(parts):
            project.fit(vectors, NORM / len(parts) ** 0.5, backward=number > 0)

    def move_content(self) -> None:
        """See this catalogue's vectors from its own centre, wherever the projections were learned."""
        for project, vectors in self._projected(self.content, self.content_image):
            project.move_to(vectors)

    def _projected(self, content: Tensor | None, pictures: Tensor | None) -> Iterator[tuple[ContentProjection, Tensor]]:
        for project, vectors in ((self.backbone.content, content), (self.backbone.content_image, pictures)):
            if vectors is not None:
                assert project is not None
                yield project, vectors

    def _described(self, which: Tensor | slice) -> list[Tensor | None]:
        """What is known of the items at these positions (from 0), as `content_vectors` takes it."""
        return _rows((self.content, self.content_image, self.labels), which)

    def _label_vectors(self, rows: Tensor) -> Tensor:
        table = functional.pad(self.label_table(), (0, 0, 0, 1))  # the last row is padding
        vectors = functional.embedding_bag(rows.flatten(0, -2), table, mode="sum")
        return vectors.view(*rows.shape[:-1], -1)

    def label_table(self) -> Tensor:
        """Vectors of all labels, those that the backbone knows first, `[labels, dim]`."""
        assert self.backbone.labels is not None
        assert self.head.labels is not None
        return torch.cat([self.backbone.labels.weight, self.head.labels.weight])

    def _own_vectors(self, rows: Tensor) -> Tensor:
        vectors: Tensor
        if self.num_known in (0, self.num_items):
            table = self.head.items if self.num_known == 0 else self.backbone.items
            vectors = table(rows)
            return vectors
        known = rows < self.num_known
        from_backbone = self.backbone.items(torch.where(known, rows, 0))
        from_head = self.head.items(torch.where(known, 0, rows - self.num_known))
        return torch.where(known.unsqueeze(-1), from_backbone, from_head)

    def _held(self, own: Tensor) -> Tensor:
        """What ids add to content: inside the bound and, in training, now and then left out."""
        bound = self.shape.delta_norm
        if bound is not None:
            own = own * (bound / own.norm(dim=-1, keepdim=True).clamp_min(bound or 1))
        if self.training and self.id_dropout:
            own = own * (torch.rand(own.shape[:-1], device=own.device) >= self.id_dropout).unsqueeze(-1)
        return own

    def bias(self, items: Tensor) -> Tensor:
        """Bias of item indices, `[...]`."""
        return self.head.bias[(items - 1).clamp_min(0)]

    def table(self) -> Tensor:
        """What queries are multiplied with, of all items in the order of their index, `[num_items, width]`."""
        vectors = self._as_scored(self._vector_table())
        return vectors if self.alike is None else torch.cat([vectors, self.alike.to(vectors.dtype)], 1)

    def _vector_table(self) -> Tensor:
        own = self.own_table()
        return self.content_vectors(*self._described(slice(None))) + self._held(own) if self.is_described else own

    def own_table(self) -> Tensor:
        """What ids add to the content of all items (all there is without content), `[num_items, dim]`."""
        return torch.cat([self.backbone.items.weight, self.head.items.weight])[self.row_of_item]

    @torch.no_grad()
    def borrowed(
        self, content: Tensor | None, pictures: Tensor | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What ids would add to items with this content, and their biases, if they had any.

        Arguments as `content_vectors`. See `ContentProjection.borrowed`; an item whose id adds nothing was not trained
        and lends nothing.
        """
        parts = (content, pictures, labels)
        count = next(len(part) for part in parts if part is not None)
        own = self._held(self.own_table())
        trained = own.any(1)
        if not trained.any():
            return own.new_zeros(count, own.shape[1]), self.head.bias.mean().expand(count)
        known, bias = self.directions(*self._described(trained)), self.head.bias[trained]
        some = (slice(start, start + ROWS) for start in range(0, count, ROWS))
        asking = (self.directions(*_rows(parts, rows)) for rows in some)
        return ContentProjection.borrowed(asking, known, own[trained], bias, self.lent_length)

    @torch.no_grad()
    def introduce(self, items: Tensor) -> None:
        """Lend vectors to items (indices) that no training saw; they must be new to the backbone.

        Their biases stay: that nobody had them while the log was written says something, too.
        """
        assert self.is_described
        rows = self.row_of_item[items - 1] - self.num_known
        assert bool((rows >= 0).all())
        self.head.items.weight[rows] = 0
        self.head.items.weight[rows] = self.borrowed(*self._described(items - 1))[0]


def _rows(parts: Iterable[Tensor | None], which: Tensor | slice) -> list[Tensor | None]:
    return [None if part is None else part[which] for part in parts]


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
