"""What trials take of the cluster, and how many fit into it at once: arithmetic before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ray_app.config import Config
from ray_app.errors import TrainingError
from ray_app.tune_config import TuneConfig

DRIVER_CPUS = 0.1
"""Of the process that looks after a distributed trial; Ray Tune refuses none at all."""


@dataclass(frozen=True)
class Room:
    """How trials run, and how many at a time."""

    mode: Literal["packed", "distributed"]
    workers: int
    cpus: int
    gpus: int
    """CPUs and GPUs are those of one worker."""
    at_once: int

    @property
    def resources(self) -> dict[str, float]:
        """What Ray Tune reserves for a trial: in distributed mode Ray Train reserves the workers."""
        return {"CPU": DRIVER_CPUS} if self.mode == "distributed" else {"CPU": self.cpus, "GPU": self.gpus}

    def describe(self, tune: TuneConfig, cluster: Mapping[str, float]) -> str:
        """The arithmetic as a sentence."""
        total = self.at_once * self.workers
        gpus = f" and {total * self.gpus} of {cluster.get('GPU', 0):g} GPUs" if self.gpus else ""
        each = "one process" if self.workers == 1 else f"{self.workers} workers"
        taken = f"{total * self.cpus} of {cluster.get('CPU', 0):g} CPUs{gpus}"
        return f"up to {tune.num_trials} trials, {self.at_once} at a time ({self.mode}, {each} each), on {taken}"


def room_for(config: Config, cluster: Mapping[str, float]) -> Room:
    """How the trials of `config` fit into a cluster with these resources.

    Raises:
        TrainingError: not even one trial fits, or packed trials are asked for several workers each.
    """
    tune, train = config.tune or TuneConfig(), config.train
    if tune.mode == "packed" and train.num_workers > 1:
        raise TrainingError(
            f"a packed trial is one process, and train.num_workers is {train.num_workers}: "
            "set train.num_workers=1 or tune.mode=distributed"
        )
    mode: Literal["packed", "distributed"] = "packed"
    if tune.mode == "distributed" or train.num_workers > 1:
        mode = "distributed"
    gpus = int(train.use_gpu)
    driver = DRIVER_CPUS if mode == "distributed" else 0.0
    wanted = {"CPU": train.num_workers * train.cpus_per_worker + driver, "GPU": train.num_workers * gpus}
    fits = {kind: int(cluster.get(kind, 0.0) / number + 1e-9) for kind, number in wanted.items() if number}
    lacking = [kind for kind, number in fits.items() if number < 1]
    if lacking:
        needs = " and ".join(f"{wanted[kind]:g} {kind}s (it has {cluster.get(kind, 0.0):g})" for kind in lacking)
        raise TrainingError(
            f"the cluster has no room for a single trial, which needs {needs}: lower train.num_workers or "
            "train.cpus_per_worker, set train.use_gpu=false, or add nodes"
        )
    at_once = min(*fits.values(), tune.num_trials, tune.max_concurrent_trials or tune.num_trials)
    return Room(mode, train.num_workers, train.cpus_per_worker, gpus, at_once)
