"""Trainings that do not wait for each other: on Ray, as many at a time as there is room for, each published."""

from collections.abc import Iterator, Sequence

import ray
import torch

from ray_app.data.picture_set import PictureSet
from ray_app.models.device import device_of
from ray_app.tasks.answers import answer_here
from ray_app.training.loop import fit
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.trainer import build_trainer, loop_settings, publish_result
from ray_app.training.world import World
from ray_app.tuning.room import Room


def train_side_by_side(runs: Sequence[Run], room: Room) -> Iterator[Run]:
    """Each run as soon as it is published.

    Raises:
        UserError: one of them cannot be trained; what is published stays.
    """
    options = {"num_cpus": room.resources["CPU"], "num_gpus": room.resources.get("GPU", 0)}
    task = ray.remote(train_alone if room.workers == 1 else train_by_workers).options(**options)
    waiting, going = list(runs), dict[ray.ObjectRef, Run]()
    while waiting or going:
        while waiting and len(going) < room.at_once:
            run = waiting.pop(0)
            going[task.remote(run)] = run
        [done], _ = ray.wait(list(going), num_returns=1)
        ray.get(done)
        yield going.pop(done)


def train_alone(run: Run) -> None:
    """Train and publish in this process; of pictures or texts, tell the test part too, while the model is at hand."""
    torch.set_num_threads(run.config.train.cpus_per_worker)
    device = device_of(run.config.train.use_gpu)
    world = World.current(device)
    run.prepare()

    def keep_last(record: dict[str, float | str], now: Snapshot) -> None:
        if now.progress.phase == len(run.schedule.phases):
            run.publish(now)

    fit(run.begin(world), run.schedule, loop_settings(run, device), world, keep_last)
    if isinstance(run.dataset, PictureSet):
        answer_here(run.dataset, run.uri, run.config)


def train_by_workers(run: Run) -> None:
    """Train by the workers of Ray Train, which go on where they were killed, and publish."""
    publish_result(run, build_trainer(run).fit())
