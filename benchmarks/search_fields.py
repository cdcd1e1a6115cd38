"""What `search.py` searches on: a log in memory and a model pretrained on sources, or prepared pictures."""

import argparse
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sparse_data import gains
from strategies import test_answers
from target_logs import Log, part_of, read_logs, task_of

from ray_app.config import Config, StorageConfig, dump, fingerprint, load_config, with_values
from ray_app.content.pretrained import settled
from ray_app.data.dataset import Dataset
from ray_app.data.picture_set import PictureSet
from ray_app.data.pictures import prepare_pictures
from ray_app.storage import Storage
from ray_app.tasks.beginning import build_model
from ray_app.tasks.classify import ClassifyTask
from ray_app.tasks.recommend import RecommendTask
from ray_app.tasks.recommender import TrainedModel
from ray_app.training.run import Run
from ray_app.training.task import Task
from ray_app.training.world import World
from ray_app.tuning.search import Search
from ray_app.tuning.space import Candidate


@dataclass(frozen=True)
class Given:
    """What all searches of one call have in common."""

    log: Log
    """The users to learn from."""
    pretrained: TrainedModel
    key: str


@dataclass(frozen=True)
class LogRun(Run):
    """A run on a log in memory."""

    given: Given | None = None

    @cached_property
    def key(self) -> str:
        """Hash of everything that the result depends on."""
        assert self.given is not None
        return fingerprint(self.schedule, dump(self.config.train), dump(self.config.model), self.given.key)

    def begin(self, world: World, *, keep: bool = False) -> Task:
        """See `Run.begin`."""
        assert self.given is not None
        log, pretrained = self.given.log, self.given.pretrained if self.role == "finetune" else None
        begun = build_model(self.config.model, log.items, self.config.train.seed, pretrained, log.content)
        return task_of(*begun, log, self.config)


@dataclass(frozen=True)
class LogSearch(Search):
    """A search on a log in memory."""

    given: Given | None = None

    def run_of(self, candidate: Candidate) -> Run:
        """See `Search.run_of`."""
        run = super().run_of(candidate)
        return LogRun(run.role, run.config, run.schedule, run.dataset, run.start_from, given=self.given)


@dataclass(frozen=True)
class LogField:
    """A part of a log's users."""

    config: Config
    folder: Dataset
    """Where trials are kept; it has no data."""
    whole: Log
    given: Given

    @classmethod
    def read(cls, args: argparse.Namespace) -> Self:
        """As the options say."""
        config, whole, pretrained = read_logs(args, section="tune")
        log = part_of(whole, args.share, config.train.seed)
        folder = Dataset(Storage.from_config(StorageConfig(path=str(args.results))), "log", None)
        key = fingerprint(config.evaluate, args.share, len(log.table))
        return cls(config, folder, whole, Given(log, pretrained, key))

    def search(self, config: Config) -> Search:
        """By the `tune` of `config`."""
        return replace(LogSearch.begin(config, self.folder, "pretrained"), given=self.given)

    def tested(self, task: Task, config: Config) -> dict[str, NDArray[np.float64]]:
        """NDCG@10 of users by what was trained."""
        model, log = cast("RecommendTask", task).model.eval(), self.given.log
        asked = {"all users": self.whole, "users learned from": log}
        return {who: gains(model, log, users, config) for who, users in asked.items()}


@dataclass(frozen=True)
class PictureField:
    """A part of each product's pictures."""

    config: Config
    pictures: PictureSet

    @classmethod
    def read(cls, args: argparse.Namespace) -> Self:
        """As the options say."""
        config = settled(load_config(args.config, args.overrides, "tune"))
        config = with_values(config, {"pictures.train_share": args.share, "storage.path": str(args.results)})
        torch.set_num_threads(config.train.cpus_per_worker)
        return cls(config, prepare_pictures(Storage.from_config(config.storage), config.name, config))

    def search(self, config: Config) -> Search:
        """By the `tune` of `config`."""
        return Search.begin(config, self.pictures, None)

    def tested(self, task: Task, config: Config) -> dict[str, NDArray[np.float64]]:
        """Whether what was trained is right, of each picture of the test part."""
        said, labels = test_answers(self.pictures, cast("ClassifyTask", task).model, config)
        return {"pictures": (said.argmax(1) == labels).astype(float)}
