"""One search: what it is made of, the key that follows from it, and the folder that keeps all of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from ray_app import checkpoint
from ray_app.config import Config, dump, fingerprint
from ray_app.data.dataset import Dataset
from ray_app.schedule import Schedule
from ray_app.storage import Storage, join
from ray_app.training.run import Run
from ray_app.tune_config import TuneConfig
from ray_app.tuning.space import Candidate, Space
from ray_app.tuning.trials import Trials

_BUDGETS = ("num_trials", "max_epochs", "time_budget_s", "max_concurrent_trials")
"""Of `tune`: a search with more to spend goes on with the trials of the one before."""


@dataclass(frozen=True)
class Search:
    """A search is known by its inputs: the same inputs find the trials that were made before."""

    config: Config
    """With `tune`; `model.start_from` names the checkpoint that all trials but those from scratch begin with."""
    dataset: Dataset

    @classmethod
    def begin(cls, config: Config, dataset: Dataset, start_from: str | None) -> Self:
        """A search for the schedule of `config`, from a published checkpoint or, without one, from scratch."""
        model = config.model.model_copy(update={"start_from": start_from})
        return cls(config.model_copy(update={"model": model, "pretrain": None}), dataset)

    @property
    def storage(self) -> Storage:
        """Where trials are read and written."""
        return self.dataset.storage

    @property
    def tune(self) -> TuneConfig:
        """How to search."""
        assert self.config.tune is not None
        return self.config.tune

    @cached_property
    def space(self) -> Space:
        """What is chosen among."""
        return Space(self.config)

    @cached_property
    def key(self) -> str:
        """Hash of everything that the trials depend on."""
        config, start = self.config, self.config.model.start_from
        tune, train, model = dump(self.tune), dump(config.train), dump(config.model)
        for budget in _BUDGETS:
            tune.pop(budget)
        train.pop("max_failures")
        model.pop("start_from")
        files = checkpoint.read_manifest(self.storage, start)["files"] if start else None
        schedules = (config.schedule, config.evaluate.scratch_schedule)
        data = (self.dataset.manifest.fingerprint, config.evaluate.exclude_seen)
        return fingerprint(tune, train, model, *schedules, files, *data)

    @property
    def uri(self) -> str:
        """The folder of trials, shared phases and results."""
        return join(self.storage.root(self.config.name), "searches", self.key)

    @property
    def prefixes_uri(self) -> str:
        """Snapshots at the ends of phases, which other trials go on from."""
        return join(self.uri, "prefixes")

    @property
    def trials_uri(self) -> str:
        """The files of the trials."""
        return join(self.uri, "trials")

    def trials(self) -> Trials:
        """All that were proposed until now."""
        return Trials(self.storage, self.trials_uri)

    def run_of(self, candidate: Candidate) -> Run:
        """The training run of a candidate: what `finetune` would make of its configuration."""
        config, schedule = self.space.resolve(candidate)
        start = config.model.start_from
        if candidate.strategy == "scratch" or start is None:
            return Run("scratch", config, schedule, self.dataset)
        return Run("finetune", config, schedule, self.dataset, start)

    def config_of(self, candidate: Candidate) -> Config:
        """The configuration by which `finetune` makes exactly that run."""
        config, schedule = self.space.resolve(candidate)
        if candidate.strategy != "scratch":
            return config.model_copy(update={"schedule": schedule})
        model = config.model.model_copy(update={"start_from": None})
        return config.model_copy(update={"model": model, "schedule": Schedule()})
