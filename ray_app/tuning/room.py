"""What trials take of the cluster, and how many fit into it at once: arithmetic before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from ray_app.config import Config
from ray_app.errors import TrainingError
from ray_app.tune_config import TuneConfig


@dataclass(frozen=True)
class Room:
    """What each trial, a process of its own, takes, and how many there are at a time."""

    resources: dict[str, float]
    at_once: int

    def describe(self, tune: TuneConfig, cluster: Mapping[str, float]) -> str:
        """The arithmetic as a sentence."""
        has = {kind: cluster.get(kind, 0.0) for kind in self.resources}
        return (
            f"up to {tune.num_trials} trials, {self.at_once} at a time, each one process with "
            f"{_counted(self.resources)}; the cluster has {_counted(has)}"
        )


def room_for(config: Config, cluster: Mapping[str, float]) -> Room:
    """How the trials of `config` fit into a cluster with these resources.

    Raises:
        TrainingError: not even one trial fits, or the training wants several workers.
    """
    tune, train = config.tune or TuneConfig(), config.train
    if train.num_workers > 1:
        raise TrainingError(
            f"train.num_workers is {train.num_workers}, and a trial is one process: set train.num_workers=1 for the "
            "search, and train with more by the schedule.yaml that it writes"
        )
    wanted: dict[str, float] = {"CPU": train.cpus_per_worker, **({"GPU": 1} if train.use_gpu else {})}
    fits = {kind: int(cluster.get(kind, 0.0) / number) for kind, number in wanted.items()}
    for kind, remedy in (("CPU", "lower train.cpus_per_worker"), ("GPU", "set train.use_gpu=false")):
        if not fits.get(kind, 1):
            raise TrainingError(
                f"there is no room for a single trial, which needs {wanted[kind]:g} {kind}s (the cluster has "
                f"{cluster.get(kind, 0.0):g}): {remedy}, or add nodes"
            )
    return Room(wanted, min(*fits.values(), tune.num_trials, tune.max_concurrent_trials or tune.num_trials))


def _counted(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{number:g} {kind}{'' if number == 1 else 's'}" for kind, number in resources.items())
