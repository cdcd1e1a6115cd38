"""Ray Train around the loop: `build_trainer` makes a TorchTrainer that anyone may `.fit()`."""

import logging
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.actor import ActorHandle
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    CheckpointUploadMode,
    FailureConfig,
    LoggingConfig,
    Result,
    RunConfig,
    ScalingConfig,
    UserCallback,
)
from ray.train.torch import TorchTrainer, get_device

from ray_app import checkpoint
from ray_app.config import dump
from ray_app.data.streaming import quiet
from ray_app.errors import UserError
from ray_app.schedule import WISE
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress, Snapshot
from ray_app.training.world import World

KEPT_CHECKPOINTS = 2
CONTROLLER_FAILURES = 3
"""Without a limit Ray Train waits for ever for resources that the cluster does not have."""


def build_trainer(
    run: Run, board: ActorHandle[Any] | None = None, callbacks: Sequence[UserCallback] = ()
) -> TorchTrainer:
    """A trainer for `run`; fitting it again after a loss goes on from the last checkpoint.

    Args:
        run: what to train.
        board: a `progress.Board` actor that is told of every epoch, or None.
        callbacks: what else is told of every report; it has all records of the run until then.
    """
    train = run.config.train
    filesystem, path = run.storage.filesystem(run.work_uri)
    resources = {"CPU": train.cpus_per_worker, **({"GPU": 1} if train.use_gpu else {})}
    return TorchTrainer(
        train_worker,
        train_loop_config={"run": run, "board": board},
        scaling_config=ScalingConfig(
            num_workers=train.num_workers, use_gpu=train.use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=train.max_failures, controller_failure_limit=CONTROLLER_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
            callbacks=list(callbacks),
            logging_config=LoggingConfig(log_level="ERROR"),  # what a person wants to know comes by the board
        ),
    )


def publish_result(run: Run, result: Result) -> None:
    """Publish the last checkpoint of a fitted trainer.

    Raises:
        UserError: training could not go on.
    """
    if isinstance(result.return_value, UserError):
        raise result.return_value
    with result.checkpoint.as_directory() as folder:
        run.publish(Snapshot.load(Path(folder)))


def train_worker(settings: dict[str, Any]) -> UserError | None:
    """What every worker runs.

    A fault of the user's is returned, not raised: trying again would not mend it. Of several workers one alone may have
    it, and the others would wait for that one for half an hour: there it is raised, and Ray ends them all.
    """
    run: Run = settings["run"]
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train makes it INFO, to print the metrics of every report
    torch.set_num_threads(run.config.train.cpus_per_worker)
    world = World.current(get_device())
    try:
        task = run.begin(world)
        report = partial(_report, run, world, settings["board"])
        with quiet():
            progress = fit(task, run.schedule, loop_settings(run, world.device), world, report, _last_snapshot())
        board, last = settings["board"], progress.records[-1]
        if board is not None and world.rank == 0 and last["phase"] == WISE:
            board.post.remote(last)
    except UserError as error:
        if world.size > 1:
            raise
        return error
    return None


def loop_settings(run: Run, device: torch.device) -> LoopSettings:
    """What the loop needs of the configuration."""
    train = run.config.train
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return LoopSettings(
        seed=train.seed,
        bf16=train.precision == "bf16" or (train.precision == "auto" and has_bf16),
        checkpoint_every_steps=train.checkpoint_every_steps,
    )


def _last_snapshot() -> Snapshot | None:
    saved = ray.train.get_checkpoint()
    if saved is None:
        return None
    with saved.as_directory() as name:
        checkpoint.verify(Path(name))
        return Snapshot.load(Path(name))


def _report(
    run: Run, world: World, board: ActorHandle[Any] | None, record: dict[str, float | str], now: Snapshot
) -> None:
    """Every rank reports, rank 0 brings the checkpoint; the upload goes on while training does."""
    metrics = {**record, **_place(now.progress), "records": now.progress.records}
    if world.rank:
        ray.train.report(metrics)
        return
    if board is not None and record:
        board.post.remote(record)
    folder = Path(tempfile.mkdtemp(prefix="snapshot-"))
    now.save(folder)
    checkpoint.seal(folder, dump(run.config), role=run.role, dataset=run.dataset.uri)
    ray.train.report(
        metrics,
        checkpoint=Checkpoint.from_directory(folder),
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=True,
    )


def _place(progress: Progress) -> dict[str, int]:
    return {"at/phase": progress.phase, "at/epoch": progress.epoch, "at/step": progress.step}
