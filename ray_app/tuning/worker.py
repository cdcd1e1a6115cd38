"""One trial in an actor of Ray Tune: the plain loop, in this process, from the longest phases that were trained before.

Actors are used again, so that trials after the first need no new process.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from ray import tune

from ray_app.errors import TrainingError, UserError
from ray_app.models.device import device_of
from ray_app.schedule import Schedule
from ray_app.training.loop import fit
from ray_app.training.snapshot import Progress, Snapshot
from ray_app.training.trainer import loop_settings
from ray_app.training.world import World
from ray_app.tuning.prefixes import keep_prefix, longest_prefix
from ray_app.tuning.search import Search
from ray_app.tuning.trials import Record, Trial, epochs_of, read_trial, result_of


def run_trial(config: dict[str, Any], search: Search) -> None:
    """What Ray Tune runs for a trial, of which `config` has the number; `report` may end the thread.

    A fault is reported, not raised: the search goes on with the next trial, in the same process.
    """
    trial = read_trial(search.storage, search.trials_uri, config["number"])
    try:
        train_trial(search, trial, tune.report)
    except Exception as error:
        tune.report(failure(trial, search, error))


def failure(trial: Trial, search: Search, error: Exception) -> dict[str, Any]:
    """What a trial tells of itself that cannot go on."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    failed = trial.model_copy(update={"state": "failed", "error": text})
    return result_of(failed, search.config.schedule, search.metric)


def train_trial(search: Search, trial: Trial, report: Callable[[dict[str, Any]], None]) -> None:
    """Train the trial's run, and report the trial as it stands after each epoch (`result_of`).

    Raises:
        TrainingError: validation gave something that is no number, or nothing until the end.
        UserError: whatever else is wrong with the candidate.
    """
    run = search.run_of(trial.candidate)
    torch.set_num_threads(run.config.train.cpus_per_worker)
    device = device_of(run.config.train.use_gpu)
    storage, folder, schedule = search.storage, search.prefixes_uri, run.schedule
    run.prepare()
    world = World.current(device)
    task = run.begin(world, keep=True)
    start = longest_prefix(storage, folder, run)
    trial = trial.model_copy(update={"reused": epochs_of(start.progress.records) if start else 0})

    def tell(record: Record, now: Snapshot) -> None:
        if not record:
            return
        if now.progress.epoch == 0:
            keep_prefix(storage, folder, run, now)
        tell_place(now.progress)

    def tell_place(progress: Progress) -> None:
        now = standing(trial, schedule, search.metric, progress)
        report(result_of(now, schedule, search.metric))

    if start is not None and start.progress.phase == len(schedule.phases):
        tell_place(start.progress)
    else:
        fit(task, schedule, loop_settings(run, device), world, tell, start)


def standing(trial: Trial, schedule: Schedule, metric: str, progress: Progress) -> Trial:
    """The trial at this place of its run; raises as `train_trial` does."""
    now = trial.after(progress.records, schedule, metric)
    if now.score is not None and not math.isfinite(now.score):
        raise TrainingError(f"validation {metric} is {now.score}, which is no number, after {now.epochs} epochs")
    if progress.phase < len(schedule.phases):
        return now
    if now.score is None:
        raise TrainingError(
            f"validation gave no {metric}, so trials cannot be compared: give the validation part more of the data "
            "(data.split, pictures.validation_share)"
        )
    return now.model_copy(update={"state": "finished"})
