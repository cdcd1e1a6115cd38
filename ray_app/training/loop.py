"""The one training loop, for every task and phase. Plain torch: it runs the same with and without Ray.

It knows no domain word; what it needs of a task is in `task.Task`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ray_app.errors import TrainingError
from ray_app.schedule import Phase, Schedule
from ray_app.training.clock import Clock
from ray_app.training.optimizer import rate_factor
from ray_app.training.snapshot import Progress, Snapshot
from ray_app.training.stepper import Stepper
from ray_app.training.task import Task
from ray_app.training.world import World

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

    Args:
        task: the model is trained in place.
        schedule: phases to run.
        settings: seed, precision, checkpoint frequency.
        world: this worker's place.
        report: where progress and snapshots go.
        start: a snapshot to go on from, as `report` was given it.

    Raises:
        TrainingError: non-finite loss, out of memory, a group that does not fit the model, `patience` without anybody
            to validate on.
    """
    loop = _Loop(task, schedule, settings, world, report)
    if start is None:
        loop.begin()
    else:
        loop.resume(start)
    while loop.progress.phase < len(schedule.phases):
        loop.run_phase(None if start is None else start.optimizer)
        start = None
    return loop.progress


class _Loop:
    def __init__(self, task: Task, schedule: Schedule, settings: LoopSettings, world: World, report: Report) -> None:
        self.task, self.schedule, self.settings, self.world, self.report = task, schedule, settings, world, report
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Measure pretrained weights before anything moves: later epochs must beat them."""
        if self.task.reference:
            metrics = self._validate()
            self.progress.best = metrics.get(f"val/{self.task.metric}")
            self.progress.records.append({"phase": "start", "epoch": 0, **metrics})
            self._keep_best()

    def resume(self, start: Snapshot) -> None:
        self.progress = start.progress
        self.best = start.best
        self.task.model.load_state_dict(start.model)

    def run_phase(self, optimizer_state: dict[str, Tensor] | None) -> None:
        phase, settings = self.schedule.phases[self.progress.phase], self.settings
        clip_norm = self.schedule.clip_norm
        stepper = Stepper(self.task, phase, self.world, clip_norm=clip_norm, bf16=settings.bf16)
        if optimizer_state:
            Snapshot.load_optimizer(stepper.optimizer, self.task.model, optimizer_state)
        number = self.progress.phase
        while self.progress.phase == number:
            record = self._run_epoch(phase, stepper)
            self._end_epoch(phase, record)
            over = self.progress.phase != number
            self.report(record, self._snapshot(None if over else stepper))

    def _run_epoch(self, phase: Phase, stepper: Stepper) -> dict[str, float | str]:
        task, progress = self.task, self.progress
        clock, first, targets_before = Clock(), progress.step, progress.loss_count
        total_steps = phase.epochs * task.steps_per_epoch
        batches = iter(task.batches(self._rng(), first))
        self._reseed()
        unchecked: list[Tensor] = []
        while progress.step < task.steps_per_epoch:
            with clock.waiting():
                batch = next(batches)
            factor = rate_factor(phase, progress.epoch * task.steps_per_epoch + progress.step, total_steps)
            unchecked.append(stepper.take(batch, factor))
            progress.step += 1
            at_checkpoint = self._is_checkpoint(progress.step)
            if len(unchecked) == CHECK_EVERY or at_checkpoint or progress.step == task.steps_per_epoch:
                self._check(phase, unchecked)
                unchecked.clear()
            if at_checkpoint:
                self.report({}, self._snapshot(stepper))
                self._reseed()
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

    def _end_epoch(self, phase: Phase, record: dict[str, float | str]) -> None:
        """Validate, keep the best weights, and move on to the next epoch or phase."""
        progress = self.progress
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum = progress.loss_count = 0.0
        last = progress.epoch == phase.epochs
        if progress.epoch % self.schedule.validate_every == 0 or last:
            metrics = self._validate()
            record.update(metrics)
            value = metrics.get(f"val/{self.task.metric}")
            if value is not None and (progress.best is None or value > progress.best):
                progress.best, progress.best_epoch = value, progress.epoch
                self._keep_best()
            if progress.best is not None:
                record["val/best"] = progress.best
            stale = progress.epoch - progress.best_epoch
            last = last or (phase.patience is not None and stale >= phase.patience)
        record["finished_at"] = time.time()
        progress.records.append(record)
        if last:
            if phase.patience is not None and self.best:
                self.task.model.load_state_dict(self.best)
            progress.phase, progress.epoch, progress.best_epoch = progress.phase + 1, 0, 0

    def _validate(self) -> dict[str, float]:
        model, began = self.task.model, time.perf_counter()
        modes = [(module, module.training) for module in model.modules()]  # frozen norm layers stay in eval mode
        model.eval()
        with torch.no_grad():
            metrics = self.world.sum_counts(self.task.validate())
        for module, was_training in modes:
            module.training = was_training
        if self.task.metric not in metrics and any(phase.patience for phase in self.schedule.phases):
            raise TrainingError(
                "the validation part asks nothing, so nothing tells when a phase with patience should end: "
                "give it more of the log (data.split), or leave patience out of the schedule"
            )
        return {f"val/{name}": value for name, value in metrics.items()} | {"val/time_s": time.perf_counter() - began}

    def _keep_best(self) -> None:
        self.best = {name: value.detach().to("cpu", copy=True) for name, value in self.task.model.state_dict().items()}

    def _rng(self) -> np.random.Generator:
        """Order of the epoch's batches: a function of seed, place and rank, so that a resumed run repeats it."""
        return np.random.default_rng(
            [self.settings.seed, self.progress.phase, self.progress.epoch, self.world.size, self.world.rank]
        )

    def _reseed(self) -> None:
        """Dropout and sampling too: reseeded at each epoch and checkpoint, so that nothing random needs saving."""
        place = [self.settings.seed, self.progress.phase, self.progress.epoch, self.progress.step, self.world.rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def _is_checkpoint(self, step: int) -> bool:
        every = self.settings.checkpoint_every_steps
        return every is not None and step % every == 0 and step < self.task.steps_per_epoch

    def _snapshot(self, stepper: Stepper | None) -> Snapshot:
        return Snapshot.take(self.task.model, stepper.optimizer if stepper else None, self.best, self.progress)
