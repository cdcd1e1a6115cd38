"""Suggest a learning rate for each phase of the schedule, after the phases before it: a sweep of a hundred steps each.

python jobs/find_rate.py --config jobs/configs/demo.yaml [key=value ...]

Without Ray Train, in this process; nothing of it is kept. Shorter phases before the last (schedule.phases.0.epochs=2)
make it faster. With `tune`, the configured schedule is what is looked at.
"""

import torch
from door import run
from stages import console, finetune_run, target_dataset

from ray_app.config import Config
from ray_app.models.device import device_of
from ray_app.report import sweep_table
from ray_app.schedule import Schedule
from ray_app.training.loop import fit
from ray_app.training.rate_finder import sweep_rates
from ray_app.training.trainer import loop_settings
from ray_app.training.world import World


def main(config: Config) -> None:
    of = finetune_run(config.model_copy(update={"tune": None}), target_dataset(config))
    world = World.current(device_of(of.config.train.use_gpu))
    torch.set_num_threads(of.config.train.cpus_per_worker)
    task = of.begin(world)
    settings, phases = loop_settings(of, world.device), of.schedule.phases
    for number, phase in enumerate(phases):
        if phase.is_whole:
            console.print(f"{phase.name}: lbfgs finds the length of its steps itself")
        else:
            sweep = sweep_rates(task, phase, settings, world, clip_norm=of.schedule.clip_norm)
            console.print(sweep_table(phase, sweep))
        if number + 1 < len(phases):
            alone = Schedule(**of.schedule.model_dump(exclude={"phases", "wise"}), phases=(phase,))
            progress = fit(task, alone, settings, world, lambda *_: None)
            rate = "" if phase.is_whole else f" at {phase.learning_rate:g}"
            console.print(f"{phase.name}: trained{rate}, best {task.metric} {progress.best}")


if __name__ == "__main__":
    run(__doc__, main)
