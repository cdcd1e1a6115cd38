"""The sequence model: a causal transformer over item vectors (the SASRec family).

Item vectors are tied: the same table reads the history and scores the catalogue.

Sources: Kang & McAuley 2018 (SASRec, arXiv 1808.09781); pre-norm and sampled softmax after Petrov & Macdonald 2023
(gSASRec, arXiv 2308.07192) and Klenitskiy & Vasilev 2023 (arXiv 2309.07602).
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ray_app.models.items import DescribedItems
from ray_app.models.repeats import habits_of, with_habits


class _Unfilled(TorchFunctionMode):
    """Leaves new parameters as they are: what is drawn on the meta device is nothing, and takes torch's compiler.

    That is some 100 MB and seconds of imports in every process that only wants to answer.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchFunctionMode`."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class SequenceModel(DescribedItems):
    """Scores every item of a catalogue after every position of a history.

    A query and an item's scored vector are as wide as `dim`, and by the likeness vector wider where there is one.
    """

    @torch.no_grad()
    def flattened(self) -> "SequenceModel":
        """The same scores from one table of vectors, to answer with: content and ids are added up once, and let go."""
        shape = replace(self.shape, content_dim=0, delta_norm=None, picture_dim=0, labels=False)
        rows = torch.arange(self.num_items, device=self.row_of_item.device)
        with torch.device("meta"), _Unfilled():
            alike = None if self.alike is None else torch.empty(self.alike.shape)
            model = SequenceModel(shape, rows, 0, alike=alike)
        names = model.state_dict().keys()
        kept = {name: value for name, value in self.state_dict().items() if name in names}
        ids = {"backbone.items.weight": self.backbone.items.weight[:0], "head.items.weight": self._vector_table()}
        kept |= ids | {"row_of_item": rows}
        model.load_state_dict(kept, assign=True)
        return model.eval()

    def forward(self, items: Tensor, clicks: Tensor | None = None) -> Tensor:
        """Item indices `[batch, history]`, padded on the right, to query vectors `[batch, history, width]`.

        `clicks`, here and below: as `Backbone` takes it.
        """
        expected = self._expected(items, None, clicks)
        if self.head.likeness is None:
            return expected
        return torch.cat([expected, self.head.likeness(self._alike(items).to(expected.dtype), expected)], -1)

    def _expected(self, items: Tensor, last: Tensor | None, clicks: Tensor | None) -> Tensor:
        expected: Tensor = self.backbone(self.vectors(items), last, clicks)
        temperature = self.shape.temperature
        return expected if temperature is None else functional.normalize(expected, dim=-1) / temperature

    def queries(self, items: Tensor, lengths: Tensor, clicks: Tensor | None = None) -> Tensor:
        """Query vector after each history `[batch, history]`, zeros after an empty one: `[batch, width]`."""
        last = (lengths - 1).clamp_min(0)
        query = self._expected(items, last, clicks).squeeze(1)
        if self.head.likeness is not None:
            alike = self._alike(items).to(query.dtype)
            query = torch.cat([query, self.head.likeness.after(alike, last, query)], 1)
        return query * (lengths > 0).unsqueeze(-1)

    def scores_of(self, wanted: Tensor, items: Tensor, lengths: Tensor, last: Tensor, table: Tensor) -> Tensor:
        """As `scores`, of some items alone after one history whose query is known.

        Args:
            wanted: item indices, `[wanted]`.
            items: `[1, history]`.
            lengths: `[1]`.
            last: of `queries`, `[1, width]`.
            table: `self.table()`.
        """
        logits: Tensor = table[wanted - 1] @ last[0] + self.bias(wanted)
        if self.head.repeats is None:
            return logits
        habits = self._habits_after(items, lengths, last)
        had = torch.isin(wanted, items)
        own = wanted[had]
        habit = habits_of(own, items.expand(len(own), -1), habits.expand(len(own), -1))
        logits[had] = torch.logaddexp(logits[had], habit)
        return logits

    def scores(
        self, items: Tensor, lengths: Tensor, table: Tensor | None = None, clicks: Tensor | None = None
    ) -> Tensor:
        """Score of every item after each history: `[batch, num_items + 1]`, column 0 (padding) is -inf.

        An empty history is scored by the bias alone. `table` is `self.table()`, handed in when it is used often.
        """
        last = self.queries(items, lengths, clicks)
        table = self.table() if table is None else table
        logits = torch.addmm(self.head.bias.to(last.dtype), last, table.T.to(last.dtype)).float()
        logits = functional.pad(logits, (1, 0), value=float("-inf"))
        if self.head.repeats is None:
            return logits
        return with_habits(logits, items, self._habits_after(items, lengths, last))

    def _habits_after(self, items: Tensor, lengths: Tensor, last: Tensor) -> Tensor:
        assert self.head.repeats is not None
        expected = last[:, : self.shape.dim]
        return self.head.repeats.after(items, lengths, self.vectors(items), expected, self.num_items)
