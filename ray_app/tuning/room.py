"""What trials or folds take of the cluster, how many fit into it at once: arithmetic before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from ray_app.errors import TrainingError
from ray_app.train_config import TrainConfig

DRIVER_CPUS = 0.1
"""Of the process that looks after a training by several workers; Ray Tune refuses none at all."""


@dataclass(frozen=True)
class Room:
    """What each trial takes, and how many there are at a time."""

    workers: int
    """One: it trains in the process that Ray Tune, or the job, starts. More: Ray Train starts them."""
    wanted: dict[str, float]
    """By all workers of one training."""
    at_once: int

    @property
    def resources(self) -> dict[str, float]:
        """What is reserved for a training, beside what Ray Train reserves itself."""
        return self.wanted if self.workers == 1 else {"CPU": DRIVER_CPUS}

    def describe(self, what: str, cluster: Mapping[str, float]) -> str:
        """The arithmetic as a sentence about `what` is trained."""
        who = "one process" if self.workers == 1 else f"{self.workers} workers"
        has = {kind: cluster.get(kind, 0.0) for kind in self.wanted}
        return (
            f"{what}, {self.at_once} at a time, each {who} with {_counted(self.wanted)}; "
            f"the cluster has {_counted(has)}"
        )


def room_for(train: TrainConfig, cluster: Mapping[str, float], at_most: int) -> Room:
    """How trainings with these workers fit into a cluster with these resources, so many at a time `at_most`.

    Raises:
        TrainingError: not even one fits.
    """
    wanted: dict[str, float] = {"CPU": train.num_workers * train.cpus_per_worker}
    if train.num_workers > 1:
        wanted["CPU"] += DRIVER_CPUS
    if train.use_gpu:
        wanted["GPU"] = train.num_workers
    fewer = "lower train.num_workers" if train.num_workers > 1 else ""
    fits = {kind: int(cluster.get(kind, 0.0) / number) for kind, number in wanted.items()}
    for kind, remedy in (("CPU", "lower train.cpus_per_worker"), ("GPU", "set train.use_gpu=false")):
        if not fits.get(kind, 1):
            raise TrainingError(
                f"there is no room for a single training, which needs {wanted[kind]:g} {kind}s (the cluster has "
                f"{cluster.get(kind, 0.0):g}): {', '.join(part for part in (fewer, remedy) if part)}, or add nodes"
            )
    return Room(train.num_workers, wanted, min(*fits.values(), at_most))


def _counted(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{number:g} {kind}{'' if number == 1 else 's'}" for kind, number in resources.items())
