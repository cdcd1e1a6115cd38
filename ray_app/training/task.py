"""What the loop needs of a task; it knows no domain word beyond this."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn


class Task(Protocol):
    """What is trained: a model, its batches, its loss and its validation, all for this worker's share of the data."""

    @property
    def model(self) -> nn.Module:
        """Trained in place."""

    metric: str
    """Key of `validate()` that early stopping watches; higher is better."""
    steps_per_epoch: int
    """The same on every worker."""
    reference: dict[str, Tensor]
    """Pretrained values by parameter name (what L2-SP pulls toward); empty when training from scratch."""
    memory_settings: dict[str, object]
    """Settings that an out-of-memory message tells the user to lower, with their present values."""

    def batches(self, rng: np.random.Generator, first: int) -> Iterator[Any]:
        """The epoch's batches from number `first` on; the rest of `steps_per_epoch` batches exactly."""

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of the loss over the batch's targets, and their count (weights summed)."""

    def validate(self) -> dict[str, tuple[float, float]]:
        """(sum, count) of each metric over this worker's users."""


@runtime_checkable
class WholeTask(Protocol):
    """A task whose head can be fitted on all training targets at once, while the rest is frozen."""

    def whole(self) -> Any:
        """All of them as one batch, the same on every worker."""
