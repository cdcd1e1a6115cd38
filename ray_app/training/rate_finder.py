"""Which learning rate a phase bears: a sweep from far too small to far too great (Smith 2015, arXiv 1506.01186)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ray_app.errors import TrainingError
from ray_app.schedule import Phase
from ray_app.training.chance import order_of, reseed
from ray_app.training.loop import LoopSettings
from ray_app.training.snapshot import Progress
from ray_app.training.stepper import Stepper
from ray_app.training.task import Task
from ray_app.training.world import World

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9
"""How much of the loss before stays in the smoothed one."""
DIVERGED = 4.0
"""Times the least smoothed loss at which the sweep ends."""


@dataclass(frozen=True)
class Sweep:
    """Learning rates in rising order, and the smoothed loss at each."""

    rates: list[float]
    losses: list[float]

    @property
    def lowest(self) -> float:
        """A tenth of the rate at which the loss is least: what is safe."""
        return self.rates[self._least] / 10

    @property
    def steepest(self) -> float:
        """The rate before that at which the loss falls fastest by orders of magnitude of the rate."""
        first = max(1, len(self.losses) // 10)  # of few batches the mean is not smooth yet
        slopes = [(self.losses[n + 1] - self.losses[n - 1], n) for n in range(first, self._least)]
        return self.rates[min(slopes)[1]] if slopes else self.rates[self._least]

    @property
    def _least(self) -> int:
        return min(range(len(self.losses)), key=self.losses.__getitem__)


def sweep_rates(
    task: Task, phase: Phase, settings: LoopSettings, world: World, *, clip_norm: float | None = 1.0, steps: int = 100
) -> Sweep:
    """Take up to `steps` steps of the phase at rates that rise from step to step; the model is then as it was before.

    Raises:
        TrainingError: the loss is not finite from the beginning, or the phase does not fit the model.
    """
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    stepper = Stepper(task, phase, world, clip_norm=clip_norm, bf16=settings.bf16)
    batches = _endless(task, settings.seed, world)
    rates, losses, smoothed = list[float](), list[float](), 0.0
    try:
        for step in range(steps):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1))
            total, count = world.sum(stepper.take(next(batches), rate / phase.learning_rate)).tolist()
            smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * total / (count or 1.0)
            loss = smoothed / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(loss) or (losses and loss > DIVERGED * min(losses)):
                break
            rates.append(rate)
            losses.append(loss)
    finally:
        task.model.load_state_dict(before)
        task.model.requires_grad_(True)
    if not losses:
        raise TrainingError(f"phase {phase.name!r}: the loss is not finite at the first step")
    return Sweep(rates, losses)


def _endless(task: Task, seed: int, world: World) -> Iterator[Any]:
    """Batches of one epoch after another."""
    place = Progress()
    while True:
        reseed(seed, place, world)
        yield from task.batches(order_of(seed, place, world), 0)
        place.epoch += 1
