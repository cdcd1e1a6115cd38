"""The one training loop, for every task and phase. Plain torch: it runs the same with and without Ray.

It knows no domain word; what it needs of a task is in `task.Task`.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ray_app.errors import TrainingError
from ray_app.schedule import START, WISE, Phase, Schedule
from ray_app.training.chance import order_of, reseed
from ray_app.training.clock import Clock
from ray_app.training.pace import momentum, rate_factor, slow_down
from ray_app.training.snapshot import Progress, Snapshot
from ray_app.training.stepper import Stepper
from ray_app.training.task import Task, WholeTask
from ray_app.training.validation import validate
from ray_app.training.wise import backbone_state, interpolate
from ray_app.training.world import World

STILL = 1e-5
"""Change of the loss, as a share of it, that is none: a fit on all targets at once is over."""
CHECK_EVERY = 50
"""Steps between looks at the loss: looking makes the accelerator wait."""


@dataclass(frozen=True)
class LoopSettings:
    """How the loop runs, apart from the schedule."""

    seed: int = 0
    bf16: bool = False
    checkpoint_every_steps: int | None = None


Report = Callable[[dict[str, float | str], Snapshot], None]
"""Called by every worker equally often: at the end of each epoch with its record, inside an epoch with no record."""


def fit(
    task: Task, schedule: Schedule, settings: LoopSettings, world: World, report: Report, start: Snapshot | None = None
) -> Progress:
    """Run every phase; the model ends with the weights of the last, which are its best ones where it has `patience`.

    Where the schedule averages, these are averages; where it interpolates, what is between them and the start.

    Args:
        task: the model is trained in place.
        schedule: phases to run.
        settings: seed, precision, checkpoint frequency.
        world: this worker's place.
        report: where progress and snapshots go.
        start: a snapshot to go on from, as `report` was given it.

    Raises:
        TrainingError: non-finite loss, out of memory, a group that does not fit the model, `patience` without anybody
            to validate on, `wise` without pretrained weights.
    """
    if schedule.wise and not task.reference:
        raise TrainingError(
            "schedule.wise goes back toward pretrained weights, and this run begins without: leave it out"
        )
    loop = _Loop(task, schedule, settings, world, report)
    if start is None:
        loop.begin()
    else:
        loop.resume(start)
    while loop.progress.phase < len(schedule.phases):
        loop.run_phase(start)
        start = None
    return loop.progress


class _Loop:
    def __init__(self, task: Task, schedule: Schedule, settings: LoopSettings, world: World, report: Report) -> None:
        self.task, self.schedule, self.settings, self.world, self.report = task, schedule, settings, world, report
        self.progress, self.steps = Progress(), task.steps_per_epoch
        self.best: dict[str, Tensor] = {}
        self.origin = backbone_state(task.model) if schedule.wise else {}  # before a snapshot is put in its place

    def begin(self) -> None:
        """Measure pretrained weights before anything moves: later epochs must beat them."""
        if self.task.reference:
            self.progress.records.append({"phase": START, "epoch": 0, **self._judge()})

    def resume(self, start: Snapshot) -> None:
        self.progress = start.progress
        self.best = start.best
        self.task.model.load_state_dict(start.model)

    def run_phase(self, start: Snapshot | None) -> None:
        phase, schedule, progress = self.schedule.phases[self.progress.phase], self.schedule, self.progress
        self.steps = 1 if phase.is_whole else self.task.steps_per_epoch
        stepper = Stepper(self.task, phase, self.world, clip_norm=schedule.clip_norm, bf16=self.settings.bf16)
        if start:
            Snapshot.load_optimizer(stepper.optimizer, self.task.model, start.optimizer)
        if schedule.ema is not None and not phase.is_whole:
            stepper.keep_average(schedule.ema, self._steps_of_phase(), start.average if start else {})
        number = progress.phase
        while progress.phase == number:
            record = self._run_epoch(phase, stepper)
            self._end_epoch(phase, stepper, record)
            over = progress.phase != number
            if over and progress.phase == len(schedule.phases) and schedule.wise:
                self._interpolate()
            self.report(record, self._snapshot(None if over else stepper))

    def _run_epoch(self, phase: Phase, stepper: Stepper) -> dict[str, float | str]:
        progress = self.progress
        clock, first, targets_before = Clock(), progress.step, progress.loss_count
        total_steps = phase.epochs * self.steps
        batches = self._batches(phase)
        reseed(self.settings.seed, progress, self.world)
        unchecked: list[Tensor] = []
        while progress.step < self.steps:
            with clock.waiting():
                batch = next(batches)
            place = self._steps_of_phase(), total_steps
            factor = rate_factor(phase, *place) * 0.5**progress.halvings
            unchecked.append(stepper.take(batch, factor, momentum(phase, *place)))
            progress.step += 1
            at_checkpoint = self._is_checkpoint(progress.step)
            if len(unchecked) == CHECK_EVERY or at_checkpoint or progress.step == self.steps:
                self._check(phase, unchecked)
                unchecked.clear()
            if at_checkpoint:
                self.report({}, self._snapshot(stepper))
                reseed(self.settings.seed, progress, self.world)
        seconds = clock.seconds()
        return {
            "phase": phase.name,
            "epoch": progress.epoch + 1,
            "train/loss": progress.loss_sum / (progress.loss_count or 1.0),
            "train/learning_rate": phase.learning_rate * factor,
            "train/step_time_s": seconds / (progress.step - first),
            "train/targets_per_s": (progress.loss_count - targets_before) / seconds,
            "data/wait_s": clock.waited,
        }

    def _batches(self, phase: Phase) -> Iterator[Any]:
        if phase.is_whole:
            assert isinstance(self.task, WholeTask)  # the configuration sees to it
            return iter([self.task.whole()])
        return iter(self.task.batches(order_of(self.settings.seed, self.progress, self.world), self.progress.step))

    def _check(self, phase: Phase, losses: list[Tensor]) -> None:
        """Add the losses of all workers to the epoch's sums, unless one is not finite: then all workers stop."""
        table = self.world.sum(torch.stack(losses)).cpu()
        bad = (~torch.isfinite(table[:, 0])).nonzero()
        if len(bad):
            step = self.progress.step - len(losses) + int(bad[0])
            raise TrainingError(
                f"the loss is not finite in phase {phase.name!r}, epoch {self.progress.epoch + 1}, step {step}; "
                f"the last checkpoint was taken {self.progress.last_saved or 'never'}. Lower "
                f"schedule.phases.{self.progress.phase}.learning_rate (now {phase.learning_rate}) "
                f"or schedule.clip_norm (now {self.schedule.clip_norm})"
            )
        self.progress.loss_sum += table[:, 0].sum().item()
        self.progress.loss_count += table[:, 1].sum().item()

    def _end_epoch(self, phase: Phase, stepper: Stepper, record: dict[str, float | str]) -> None:
        """Validate, keep the best weights, and move on to the next epoch or phase."""
        progress = self.progress
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum = progress.loss_count = 0.0
        last = progress.epoch == phase.epochs or (phase.is_whole and self._is_still(record))
        if progress.epoch % self.schedule.validate_every == 0 or last:
            with stepper.averaged():
                record.update(self._judge())
            if progress.best is not None:
                record["val/best"] = progress.best
            last = last or (phase.patience is not None and progress.epoch - progress.best_epoch >= phase.patience)
            if phase.decay == "plateau":
                slow_down(phase, progress)
        record["finished_at"] = time.time()
        progress.records.append(record)
        if last:
            if phase.patience is not None and self.best:
                self.task.model.load_state_dict(self.best)
            elif stepper.average:
                stepper.average.settle()
            progress.end_phase()

    def _is_still(self, record: dict[str, float | str]) -> bool:
        """Whether an epoch has left the loss where the one before it did."""
        earlier = [one for one in self.progress.records if one["phase"] == record["phase"]]
        losses = [float(one["train/loss"]) for one in (*earlier[-1:], record)]
        return len(losses) > 1 and math.isclose(*losses, rel_tol=STILL)

    def _judge(self) -> dict[str, float]:
        """Validate the model as it is now, and keep its weights if none were better."""
        progress, metrics = self.progress, self._validate()
        value = metrics.get(f"val/{self.task.metric}")
        if value is not None and (progress.best is None or value > progress.best):
            progress.best, progress.best_epoch = value, progress.epoch
            self.best = {name: t.detach().to("cpu", copy=True) for name, t in self.task.model.state_dict().items()}
        return metrics

    def _interpolate(self) -> None:
        """End with the best of the points between the pretrained backbone and this one, which is one of them."""
        model, trained = self.task.model, backbone_state(self.task.model)
        found: dict[float, dict[str, float]] = {}
        for alpha in sorted({*self.schedule.wise, 1.0}, reverse=True):  # of equal ones, the one that is trained most
            interpolate(model, self.origin, trained, alpha)
            found[alpha] = self._judge()
        best = max(found, key=lambda alpha: found[alpha][f"val/{self.task.metric}"])
        interpolate(model, self.origin, trained, best)
        self.progress.records.append({"phase": WISE, "epoch": 0, "alpha": best, **found[best]})

    def _validate(self) -> dict[str, float]:
        metrics = validate(self.task, self.world)
        if f"val/{self.task.metric}" not in metrics and self.schedule.needs_validation:
            raise TrainingError(
                "the validation part asks nothing, so nothing tells when a phase with patience should end, or how far "
                "schedule.wise should go: give it more of the log (data.split), or leave these out of the schedule"
            )
        return metrics

    def _steps_of_phase(self) -> int:
        return self.progress.epoch * self.steps + self.progress.step

    def _is_checkpoint(self, step: int) -> bool:
        every = self.settings.checkpoint_every_steps
        return every is not None and step % every == 0 and step < self.steps

    def _snapshot(self, stepper: Stepper | None) -> Snapshot:
        optimizer, average = (stepper.optimizer, stepper.average) if stepper else (None, None)
        return Snapshot.take(self.task.model, optimizer, self.best, self.progress, average.values if average else None)
