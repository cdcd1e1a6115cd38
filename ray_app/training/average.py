"""The running average of the weights over the steps of a phase: what is validated and kept in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of the parameters that are trained; all else of the model is as it is.

    The decay of step t, from 1, is min(decay, (1 + t) / (10 + t)), so that the first steps are soon forgotten.
    """

    def __init__(
        self, model: nn.Module, decay: float, steps: int = 0, values: Mapping[str, Tensor] | None = None
    ) -> None:
        self._decay, self._steps = decay, steps
        self._trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.values = {
            name: (values[name].to(parameter.device) if values else parameter.detach()).clone()
            for name, parameter in self._trained.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, parameter in self._trained.items():
            self.values[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the averaged weights; it has its own again afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def settle(self) -> None:
        """Leave the averaged weights to the model."""
        for name, parameter in self._trained.items():
            parameter.copy_(self.values[name])

    def _swap(self) -> None:
        for name, parameter in self._trained.items():
            parameter.data, self.values[name] = self.values[name], parameter.data
