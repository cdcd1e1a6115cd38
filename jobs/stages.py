"""The stages of the pipeline, each of which finds its own finished work and otherwise does it.

What differs between logs and what is classified is in `log_stages` and `picture_stages`, which have the same functions.
"""

import json
from pathlib import Path
from typing import Any, Protocol

from runs import console, say, train

from ray_app.checkpoint import MANIFEST_FILE
from ray_app.config import Config, fingerprint
from ray_app.data.dataset import Dataset
from ray_app.data.picture_set import PictureSet
from ray_app.registry import METRICS_FILE, REPORT_FILE, Registry, Version
from ray_app.report import summary_table
from ray_app.storage import join
from ray_app.training.run import Run

__all__ = ["console", "train"]
Target = Dataset | PictureSet
"""What is learned from: a log, or labelled pictures or texts."""


class Stages(Protocol):
    """What a kind of task does in its own way; `target` is what its `target_dataset` gives."""

    def target_dataset(self, config: Config, /) -> Any:
        """The prepared target."""

    def finetune_run(self, config: Config, target: Any, /) -> Run:
        """Fine-tune from what is pretrained; where nothing is, train from scratch."""

    def scratch_run(self, config: Config, target: Any, /) -> Run:
        """The same model on the target alone."""

    def earlier_runs(self, config: Config, target: Any, /) -> dict[str, Run]:
        """Runs on other data that fine-tuning began with, by their name in the results table."""

    def main_model(self, config: Config, target: Any, run: Run, /) -> str:
        """URI of the model that answers, once `run` is published."""

    def evaluation(
        self, config: Config, target: Any, runs: dict[str, Run], models: dict[str, str], /
    ) -> tuple[dict[str, object], str]:
        """What `metrics.json` holds, and the page about it."""

    def show_examples(self, config: Config, target: Any, model_uri: str, /) -> None:
        """A few answers of the model, for a person."""

    def predict_stage(self, config: Config, target: Any, model_uri: str, /) -> str:
        """The model's answers as parquet; the URI of their folder."""

    def add_files(self, target: Any, folder: Path, /) -> None:
        """What belongs to a registered version beside the model."""


def _stages(config: Config) -> Stages:
    """Imported where wanted: each takes seconds."""
    if config.task.kind == "classify":
        import picture_stages  # noqa: PLC0415

        return picture_stages
    import log_stages  # noqa: PLC0415

    return log_stages


def target_dataset(config: Config) -> Any:
    """The prepared target: a log, or pictures or texts where the task is to classify them."""
    return _stages(config).target_dataset(config)


def finetune_run(config: Config, target: Target) -> Run:
    """Fine-tune from what is pretrained, with `tune` by the schedule that a search finds; else train from scratch."""
    return _stages(config).finetune_run(config, target)


def scratch_run(config: Config, target: Target) -> Run:
    """The same model on the target alone: what fine-tuning must beat."""
    return _stages(config).scratch_run(config, target)


def compared_runs(config: Config, target: Target) -> dict[str, Run]:
    """Published runs by their name in the results table; the main one first."""
    main = finetune_run(config, target)
    runs = {"fine-tuned" if main.role == "finetune" else "scratch": main}
    if main.role == "finetune" and config.evaluate.scratch:
        runs["scratch"] = scratch_run(config, target)
    if main.role == "finetune":
        runs |= _stages(config).earlier_runs(config, target)
    for run in runs.values():
        train(run)
    return runs


def main_model(config: Config, target: Target, run: Run) -> str:
    """What answers: the hybrid around a published run where a ranker is configured, else its model."""
    return _stages(config).main_model(config, target, run)


def compared_models(config: Config, target: Target, runs: dict[str, Run]) -> dict[str, str]:
    """Published models by their name in the results table; the main one first."""
    main = next(iter(runs.values()))
    hybrid = {"hybrid": main_model(config, target, main)} if config.ranker else {}
    return hybrid | {name: run.uri for name, run in runs.items()}


def evaluate_stage(config: Config, target: Target, runs: dict[str, Run], models: dict[str, str]) -> str:
    """Compare the models with the baselines, write metrics and report, print the table; the URI of their folder."""
    storage = target.storage
    manifests = [storage.read_bytes(join(uri, MANIFEST_FILE)).decode() for uri in models.values()]
    asked = [config.evaluate, *(one for one in (config.data_curve, config.choose) if one is not None)]
    key = fingerprint(target.manifest.fingerprint, *asked, config.train.seed, list(models), manifests)
    folder = join(storage.root(config.name), "evaluations", key)
    metrics_uri = join(folder, METRICS_FILE)
    if storage.exists(metrics_uri):
        say("evaluate", "found", folder)
        metrics = json.loads(storage.read_bytes(metrics_uri))
    else:
        metrics, page = _stages(config).evaluation(config, target, runs, models)
        storage.write_bytes(join(folder, REPORT_FILE), page.encode())
        storage.write_bytes(metrics_uri, json.dumps(metrics, indent=1).encode())
        say("evaluate", "wrote", folder)
    console.print(summary_table(metrics))
    return folder


def show_examples(config: Config, target: Target, model_uri: str) -> None:
    """Five users, what they bought and what is recommended; or a few pictures or texts and their labels."""
    _stages(config).show_examples(config, target, model_uri)


def register_stage(config: Config, target: Target, model_uri: str, evaluation_uri: str) -> Version:
    """Keep the main model of an evaluation with its evidence, where `jobs/promote.py` finds it."""
    storage = target.storage
    metrics, report = (storage.read_bytes(join(evaluation_uri, name)) for name in (METRICS_FILE, REPORT_FILE))

    def add_files(folder: Path) -> None:
        _stages(config).add_files(target, folder)

    version = Registry(storage, config.name).register(model_uri, metrics, report, add_files)
    say("register", "version", version.uri)
    return version


def predict_stage(config: Config, target: Target, model_uri: str) -> str:
    """Top-k lists of every user, or labels of the whole test part; the URI of their folder."""
    return _stages(config).predict_stage(config, target, model_uri)
