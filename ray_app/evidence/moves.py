"""Who went from which item to which: transitions as they are counted, before anything is divided by popularity."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ray_app.baselines.histories import Matrix, settled
from ray_app.baselines.log import TrainingLog
from ray_app.baselines.transitions import transition_counts

WINDOW, DECAY = 5, 0.7
"""As in the transition graph published for Amazon Beauty."""
FAR_WINDOW, FAR_DECAY = 10, 0.85


@dataclass(frozen=True)
class Moves:
    """Sums over a log; those of two logs may be added and taken from each other."""

    near: Matrix
    """How often column followed row, near ones counting more, `[num_items + 1, num_items + 1]`."""
    far: Matrix
    """The same over a wider window."""
    counts: NDArray[np.float64]
    """Summed weights of the events of each item, `[num_items + 1]`."""

    @classmethod
    def of(cls, log: TrainingLog) -> Self:
        """Count a log."""
        near, far = transition_counts(log, WINDOW, DECAY), transition_counts(log, FAR_WINDOW, FAR_DECAY)
        return cls(near, far, log.popularity())

    def plus(self, other: "Moves", times: float = 1.0) -> "Moves":
        """Both together; with `times` -1, what the other has not."""
        near, far = self.near + times * other.near, self.far + times * other.far
        return Moves(settled(near), settled(far), self.counts + times * other.counts)
