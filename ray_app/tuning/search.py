"""One search: what it is made of, the key that follows from it, and the folder that keeps all of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from ray_app.config import Config, dump, fingerprint
from ray_app.data.dataset import Dataset
from ray_app.data.picture_set import PictureSet
from ray_app.schedule import Schedule
from ray_app.storage import Storage, join
from ray_app.training.kinds import KINDS
from ray_app.training.run import Run
from ray_app.tune_config import TuneConfig
from ray_app.tuning.space import Candidate, Space
from ray_app.tuning.trials import Trials

_APART = ("num_trials", "max_epochs", "time_budget_s", "max_concurrent_trials", "soup", "trackers")
"""Of `tune`: a search with more to spend, or shown elsewhere, goes on with the trials of the one before."""


@dataclass(frozen=True)
class Search:
    """A search is known by its inputs: the same inputs find the trials that were made before."""

    config: Config
    """With `tune`; `model.start_from` names the checkpoint that all trials but those from scratch begin with."""
    dataset: Dataset | PictureSet

    @classmethod
    def begin(cls, config: Config, dataset: Dataset | PictureSet, start_from: str | None) -> Self:
        """A search for the schedule of `config`, from a published checkpoint or, without one, from scratch.

        A classifier begins with `classifier.weights` instead.
        """
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
        tune = dump(self.tune)
        for budget in _APART:
            tune.pop(budget)
        return fingerprint(tune, self.config.evaluate.scratch_schedule, self.run_of(self.space.anchors[0]).key)

    @property
    def metric(self) -> str:
        """What trials are judged by; higher is better."""
        return KINDS[self.config.task.kind].metric

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
        if candidate.strategy == "scratch":
            return Run("scratch", _from_scratch(config), schedule, self.dataset)
        return Run("finetune", config, schedule, self.dataset, config.model.start_from)

    def config_of(self, candidate: Candidate) -> Config:
        """The configuration by which `finetune` makes exactly that run."""
        config, schedule = self.space.resolve(candidate)
        if candidate.strategy != "scratch":
            return config.model_copy(update={"schedule": schedule})
        return _from_scratch(config).model_copy(update={"schedule": Schedule()})


def _from_scratch(config: Config) -> Config:
    """The configuration with nothing pretrained."""
    model = config.model.model_copy(update={"start_from": None})
    classifier = config.classifier and config.classifier.from_scratch()
    return config.model_copy(update={"model": model, "classifier": classifier})
