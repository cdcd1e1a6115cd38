"""What trials take of the cluster, and how many fit into it at once: arithmetic before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from ray_app.config import Config
from ray_app.errors import TrainingError
from ray_app.tune_config import TuneConfig

DRIVER_CPUS = 0.1
"""Of the process that looks after a trial of several workers; Ray Tune refuses none at all."""


@dataclass(frozen=True)
class Room:
    """What each trial takes, and how many there are at a time."""

    workers: int
    """One: the trial runs in the process that Ray Tune starts. More: Ray Train starts them."""
    wanted: dict[str, float]
    """By all workers of a trial."""
    at_once: int

    @property
    def resources(self) -> dict[str, float]:
        """What Ray Tune reserves for a trial."""
        return self.wanted if self.workers == 1 else {"CPU": DRIVER_CPUS}

    def describe(self, tune: TuneConfig, cluster: Mapping[str, float]) -> str:
        """The arithmetic as a sentence."""
        who = "one process" if self.workers == 1 else f"{self.workers} workers"
        has = {kind: cluster.get(kind, 0.0) for kind in self.wanted}
        return (
            f"up to {tune.num_trials} trials, {self.at_once} at a time, each {who} with {_counted(self.wanted)}; "
            f"the cluster has {_counted(has)}"
        )


def room_for(config: Config, cluster: Mapping[str, float]) -> Room:
    """How the trials of `config` fit into a cluster with these resources.

    Raises:
        TrainingError: not even one trial fits.
    """
    tune, train = config.tune or TuneConfig(), config.train
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
                f"there is no room for a single trial, which needs {wanted[kind]:g} {kind}s (the cluster has "
                f"{cluster.get(kind, 0.0):g}): {', '.join(part for part in (fewer, remedy) if part)}, or add nodes"
            )
    at_once = min(*fits.values(), tune.num_trials, tune.max_concurrent_trials or tune.num_trials)
    return Room(train.num_workers, wanted, at_once)


def _counted(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{number:g} {kind}{'' if number == 1 else 's'}" for kind, number in resources.items())
