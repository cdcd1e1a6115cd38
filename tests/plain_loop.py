"""Runs without Ray, in this process or in two that train together: what Ray must not change."""

from pathlib import Path

import torch
from processes import run_two_workers

from ray_app.training.loop import fit
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.trainer import loop_settings
from ray_app.training.world import World


def plain(run: Run) -> Snapshot:
    """The trained model of `run` and its records."""
    torch.set_num_threads(1)
    world = World.current()
    task = run.begin(world)
    progress = fit(task, run.schedule, loop_settings(run, world.device), world, lambda record, now: None)
    return Snapshot.take(task.model, None, {}, progress)


def plain_by_two(run: Run, folder: Path) -> Snapshot:
    """The same by two processes, which need an empty `folder`."""
    run_two_workers(_one_of_two, folder, run)
    return Snapshot.load(folder / "trained")


def _one_of_two(rank: int, folder: Path, run: Run) -> None:
    trained = plain(run)
    if rank == 0:
        (folder / "trained").mkdir()
        trained.save(folder / "trained")
