"""The steps of one phase: forward, backward, clip, optimizer, pull."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from ray_app.errors import TrainingError
from ray_app.schedule import Phase
from ray_app.training.average import Average
from ray_app.training.optimizer import assign_rates, build_optimizer, freeze, pull
from ray_app.training.task import Task
from ray_app.training.world import World


class Stepper:
    """The task's model made ready for a phase, and the optimizer that moves it."""

    def __init__(
        self, task: Task, phase: Phase, world: World, *, clip_norm: float | None = None, bf16: bool = False
    ) -> None:
        model = task.model.train(not phase.is_whole)  # to compare losses, nothing may be random
        rates = assign_rates(model, phase)
        freeze(model, rates, keep_statistics=phase.keep_statistics)
        self.optimizer: Optimizer = build_optimizer(model, phase, rates, decay_all=not task.reference)
        self._task, self._phase, self._world, self._clip_norm, self._bf16 = task, phase, world, clip_norm, bf16
        self._module = world.wrap(_Forward(task))
        named = dict(model.named_parameters()) if phase.l2_sp else {}
        self._reference = {
            id(named[name]): value.to(world.device) for name, value in task.reference.items() if phase.l2_sp
        }

        self.average: Average | None = None

    def keep_average(self, decay: float, steps: int, values: Mapping[str, Tensor]) -> None:
        """Average the weights from here on, or go on with what `values` had after `steps` of the phase's steps."""
        self.average = Average(self._task.model, decay, steps, values)

    def averaged(self) -> AbstractContextManager[None]:
        """The model with averaged weights, where they are kept."""
        return self.average.applied() if self.average else nullcontext()

    def take(self, batch: Any, factor: float, momentum: float | None = None) -> Tensor:
        """One step at `factor` times the phase's rates; (loss sum, count) of this worker, still on the device.

        Raises:
            TrainingError: out of memory, with the settings to lower.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
            if momentum is not None:
                group["momentum"] = momentum
        try:
            local = self._move(batch)
        except torch.OutOfMemoryError as error:
            settings = ", ".join(f"{name} (now {value})" for name, value in self._task.memory_settings.items())
            raise TrainingError(f"out of memory in phase {self._phase.name!r}; lower {settings}") from error
        if self._reference:
            pull(self.optimizer, self._reference, self._phase.l2_sp)
        if self.average:
            self.average.update()
        return local

    def _move(self, batch: Any) -> Tensor:
        if isinstance(self.optimizer, LBFGS):
            return self._fit(batch, self.optimizer)
        world = self._world
        with torch.autocast(world.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            loss, count = self._module(batch)
        local = torch.stack([loss.detach().double(), count.double()])
        everywhere = world.sum(count.double().clone()) if world.size > 1 else count
        # DDP averages over workers; the mean over all targets is the sum times size over the global count.
        (loss * (world.size / everywhere.clamp_min(1e-12))).backward()
        if self._clip_norm is not None:
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, self._clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return local

    def _fit(self, whole: Any, optimizer: LBFGS) -> Tensor:
        """Many steps on all targets. Every worker takes them by itself, since rounding alone may end its search sooner.

        What the optimizer remembers is forgotten afterwards, so that nothing of it need be saved.
        """
        group = optimizer.param_groups[0]
        matrices = [parameter for parameter in group["params"] if parameter.ndim > 1]

        def objective() -> Tensor:
            optimizer.zero_grad()
            loss, count = self._task.loss(whole)
            decay = torch.stack([matrix.square().sum() for matrix in matrices]).sum() * group["weight_decay"] / 2
            value: Tensor = loss / count + decay
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        optimizer.state.clear()
        with torch.no_grad():
            loss, count = self._task.loss(whole)
        return torch.stack([loss.double(), count.double()]) / self._world.size


class _Forward(nn.Module):
    """One forward pass with its loss, so that DDP sees the whole of it."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._loss = task.loss

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self._loss(batch)
