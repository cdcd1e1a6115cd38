"""How fast a phase moves at each of its steps: the factor on its rates, and the momentum."""

import math

from ray_app.schedule import Phase
from ray_app.training.snapshot import Progress

FIRST, LAST = 1 / 25, 1 / 25e4
"""Of one cycle, by its highest rate; those of torch.optim.lr_scheduler.OneCycleLR, as its shape is."""
MOMENTUM, LOW_MOMENTUM = 0.95, 0.85


def rate_factor(phase: Phase, step: int, total_steps: int) -> float:
    """Factor on all learning rates at `step` (from 0) of the phase's `total_steps`: warm-up, then decay."""
    if phase.decay == "one_cycle":
        return _cycle(phase, step, total_steps, FIRST, 1.0, LAST)
    warmup_steps = math.ceil(phase.warmup * total_steps) if phase.warmup else 0
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if phase.decay == "cosine":
        return _cosine(1.0, 0.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 1.0


def momentum(phase: Phase, step: int, total_steps: int) -> float | None:
    """Momentum of SGD at `step` where it is moved: down while the rate of a cycle goes up, and back."""
    if phase.decay != "one_cycle" or phase.optimizer != "sgd":
        return None
    return _cycle(phase, step, total_steps, MOMENTUM, LOW_MOMENTUM, MOMENTUM)


def slow_down(phase: Phase, progress: Progress) -> None:
    """Halve the rates of a phase on a plateau: half its patience without a better metric, or since the last time."""
    assert phase.patience is not None
    stale = progress.epoch - max(progress.best_epoch, progress.halved_at)
    if stale >= max(1, phase.patience // 2):
        progress.halvings, progress.halved_at = progress.halvings + 1, progress.epoch


def _cycle(phase: Phase, step: int, total_steps: int, first: float, middle: float, last: float) -> float:
    share = 0.3 if phase.warmup is None else phase.warmup
    top = share * total_steps - 1
    if step < top:
        return _cosine(first, middle, step / top)
    return _cosine(middle, last, (step - max(top, 0)) / max(1, total_steps - 1 - max(top, 0)))


def _cosine(start: float, end: float, share: float) -> float:
    """From start to end along half a wave."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))
