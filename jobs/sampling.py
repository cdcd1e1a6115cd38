"""The stage of the pipeline that trains on parts of the users, to tell what more or fewer of them are worth."""

import json
from typing import Any

import ray
from runs import bars, console, say

from ray_app.checkpoint import read_manifest
from ray_app.config import Config, fingerprint
from ray_app.data.dataset import Dataset
from ray_app.data.sample import sampled
from ray_app.errors import ConfigError
from ray_app.evaluate_config import CurveStrategy
from ray_app.registry import METRICS_FILE, REPORT_FILE
from ray_app.report.data_curve import data_curve_report, data_curve_table
from ray_app.storage import join
from ray_app.tasks.data_curve import Point, data_curve, for_few
from ray_app.training.run import Run
from ray_app.tuning.room import room_for
from ray_app.tuning.side_by_side import train_side_by_side
from ray_app.tuning.strategies import possible, schedule_of, unusable

USUAL: tuple[CurveStrategy, ...] = ("configured", "linear_probe", "full", "scratch")
WHOLE = 1.0
FINE_TUNED, PRETRAINED = "fine-tuned", "pretrained"

Runs = dict[float, dict[str, Run]]
"""By share and name of the strategy."""


def strategies_of(config: Config) -> tuple[CurveStrategy, ...]:
    """Those that are compared.

    Raises:
        ConfigError: a strategy that the configuration has no use for.
    """
    assert config.data_curve is not None
    chosen = config.data_curve.strategies
    if chosen is None:
        return tuple(strategy for strategy in USUAL if strategy in possible(config))
    if faults := unusable(chosen, "data_curve.strategies", config):
        raise ConfigError(faults)
    return chosen


def data_curve_stage(config: Config, target: Dataset, start: str | None) -> dict[str, Any]:
    """Train what is missing, ask all of it about all users, write the outcome and show it; what `metrics.json` holds.

    Args:
        config: with `data_curve`; its schedule as configured, whatever a search found.
        target: the whole log.
        start: URI of the published checkpoint that fine-tuning begins with, if there is one.
    """
    assert config.data_curve is not None
    strategies, storage = strategies_of(config), target.storage
    parts = {share: _part(target, share) for share in (*sorted(set(config.data_curve.shares)), WHOLE)}
    runs = {
        share: _runs(config if part is target else for_few(config, part, target), part, strategies, start)
        for share, part in parts.items()
    }
    names = [run.name for one in runs.values() for run in one.values()]
    key = fingerprint(target.manifest.fingerprint, config.data_curve, config.evaluate, config.train.seed, names)
    folder = join(storage.root(config.name), "data_curves", key)
    metrics_uri = join(folder, METRICS_FILE)
    if storage.exists(metrics_uri):
        say("data curve", "found", folder)
        curve: dict[str, Any] = json.loads(storage.read_bytes(metrics_uri))
    else:
        _train(config, runs)
        before = {PRETRAINED: start} if start is not None else {}
        models = {share: {name: run.uri for name, run in one.items()} | before for share, one in runs.items()}
        with bars("data curve") as progress:
            points = [Point(share, part, models[share]) for share, part in parts.items()]
            curve = data_curve(target, points, config, progress)
        manifest = read_manifest(storage, runs[WHOLE][next(iter(runs[WHOLE]))].uri)
        versions = {**manifest["versions"], "git commit": manifest["git_commit"]}
        records = {_told(share, name): run.records() for share, one in runs.items() for name, run in one.items()}
        storage.write_bytes(join(folder, REPORT_FILE), data_curve_report(curve, config, records, versions).encode())
        storage.write_bytes(metrics_uri, json.dumps(curve, indent=1).encode())
        say("data curve", "wrote", folder)
    console.print(data_curve_table(curve))
    return curve


def _part(target: Dataset, share: float) -> Dataset:
    if share == WHOLE:
        return target
    with bars("data curve") as progress:
        return sampled(target, share, progress)


def _runs(config: Config, part: Dataset, strategies: tuple[CurveStrategy, ...], start: str | None) -> dict[str, Run]:
    """By name, the trainings on one part."""
    return {
        FINE_TUNED if strategy == "configured" else strategy: Run(
            "scratch" if strategy == "scratch" else "finetune",
            config,
            schedule_of(strategy, config),
            part,
            None if strategy == "scratch" else start,
        )
        for strategy in strategies
    }


def _train(config: Config, runs: Runs) -> None:
    """Train what is not published yet."""
    told = {run.key: _told(share, name) for share, one in runs.items() for name, run in one.items()}
    missing = [run for one in runs.values() for run in one.values() if not run.is_published()]
    if not missing:
        return
    cluster = ray.cluster_resources()
    room = room_for(config.train, cluster, len(missing))
    sentence = room.describe(f"{len(missing)} of {len(told)} trainings", cluster)
    console.print(f"data curve: {sentence}", highlight=False, soft_wrap=True)
    for run in train_side_by_side(missing, room):
        say(told[run.key], "wrote", run.uri)


def _told(share: float, name: str) -> str:
    return f"{name} on {share:.0%}"
