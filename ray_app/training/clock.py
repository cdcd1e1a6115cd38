"""Wall time of an epoch, and how much of it was spent waiting for data."""

import time


class Clock:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.waited = 0.0

    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self.began

    def waiting(self) -> "Clock":
        """A context whose time counts as waiting."""
        return self

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.waited += time.perf_counter() - self._entered
