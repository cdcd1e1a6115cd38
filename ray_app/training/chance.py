"""All that is random in training follows from seed, place and rank, so that a resumed run repeats it."""

import numpy as np
import torch

from ray_app.training.snapshot import Progress
from ray_app.training.world import World


def order_of(seed: int, progress: Progress, world: World) -> np.random.Generator:
    """What orders the batches of the present epoch."""
    return np.random.default_rng([seed, progress.phase, progress.epoch, world.size, world.rank])


def reseed(seed: int, progress: Progress, world: World) -> None:
    """Dropout and sampling too: reseeded at each epoch and checkpoint, so that nothing random needs saving."""
    place = [seed, progress.phase, progress.epoch, progress.step, world.rank]
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
