"""How a version has done lately: how long it took, how often it failed, how like its lists were to those given."""

import math
from collections import deque
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from ray_app.serve_config import RollbackConfig
from ray_app.serving.schemas import Recommended

NEWEST = 1000
"""So many answers are remembered."""


class Record:
    """The newest answers of one version in one replica."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=NEWEST)
        self._overlaps: deque[float] = deque(maxlen=NEWEST)

    def answered(self, count: int, seconds: float) -> None:
        """One pass gave so many answers; how long they waited for it is the load's doing and does not count."""
        self._seconds.extend([seconds] * count)

    def failed(self) -> None:
        """An answer that it owed was not given."""
        self._seconds.append(math.inf)

    def compared(self, overlap: float) -> None:
        """A list of its own beside the one that was given."""
        self._overlaps.append(overlap)

    def clear(self) -> None:
        """Begin anew."""
        self._seconds.clear()
        self._overlaps.clear()

    @property
    def requests(self) -> int:
        """Answers that are remembered, given or not."""
        return len(self._seconds)

    @property
    def error_rate(self) -> float:
        """Share of those that were not given."""
        return sum(map(math.isinf, self._seconds)) / max(self.requests, 1)

    @property
    def p99_s(self) -> float | None:
        """Time of a pass that 99 of 100 answers did not exceed."""
        given = [seconds for seconds in self._seconds if math.isfinite(seconds)]
        return float(np.quantile(given, 0.99)) if given else None

    @property
    def overlap(self) -> float | None:
        """Mean overlap with the lists that were given."""
        return fmean(self._overlaps) if self._overlaps else None

    def fault(self, rules: RollbackConfig) -> str | None:
        """Which of the rules is broken."""
        if self.requests < rules.min_requests:
            return None
        if self.error_rate > rules.error_rate:
            return f"{self.error_rate:.1%} of {self.requests} answers failed, {rules.error_rate:.1%} are allowed"
        if self.p99_s is not None and self.p99_s > rules.p99_s:
            return f"p99 of {self.requests} answers was {self.p99_s:.3f} s, {rules.p99_s:g} s are allowed"
        return None


def overlap(given: Sequence[Recommended], other: Sequence[Recommended]) -> float:
    """Share of the `k` items given that the other list of `k` has too, wherever they stand: overlap@k."""
    return len({item.item_id for item in given} & {item.item_id for item in other}) / max(len(given), 1)
