"""What Ray costs per epoch: the same run by the plain loop and by Ray Train with one worker, one after the other.

    python benchmarks/ray_overhead.py --data FOLDER [--epochs 8]

FOLDER has interactions.parquet (user_id, position, item_id). An epoch is the time from the end of one to the end of the
next, validation, report and checkpoint included; the first is left out, and the median of the rest is compared.
"""

import argparse
import os
import statistics
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_worker_niceness", "0")  # both runs with the same priority
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ray
import torch

from ray_app.config import Config, load_config
from ray_app.data.prepare import prepare
from ray_app.data.stream import read_tables
from ray_app.storage import Storage
from ray_app.tasks.recommend import build_task
from ray_app.training.loop import fit
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.trainer import build_trainer, loop_settings
from ray_app.training.world import World


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", default="jobs/configs/amazon_beauty.yaml")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"storage.path={folder}",
            f"data.events={args.data / 'interactions.parquet'}",
            f"evaluate.scratch_schedule.phases.0.epochs={args.epochs}",
        ]
        config = load_config(args.config, overrides)
        ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=500_000_000)
        with_ray, plain = measure(config)
    print(
        f"| run | median epoch s |\n|---|---|\n| plain loop | {plain:.3f} |\n| Ray Train, one worker | {with_ray:.3f} |"
    )
    print(f"\nRay over plain: {with_ray / plain - 1:+.1%} ({args.epochs} epochs, the first left out)")


def measure(config: Config) -> tuple[float, float]:
    """Median epoch seconds under Ray and without."""
    dataset = prepare(Storage.from_config(config.storage), config.name, config.data)
    run = Run("scratch", config, config.evaluate.scratch_schedule, dataset)
    result = build_trainer(run).fit()
    with result.checkpoint.as_directory() as folder:
        with_ray = Snapshot.load(Path(folder)).progress.records
    ray.shutdown()  # the plain loop has the machine to itself, as the worker had its core
    world = World.current()
    task = build_task(config, dataset, None, partial(read_tables, dataset.storage))
    plain = fit(task, run.schedule, loop_settings(run, world.device), world, lambda *_: None).records
    return median_epoch(with_ray), median_epoch(plain)


def median_epoch(records: list[dict[str, float | str]]) -> float:
    """Median seconds between the ends of epochs that follow each other."""
    ends = [float(record["finished_at"]) for record in records]
    return statistics.median(later - earlier for earlier, later in pairwise(ends))


if __name__ == "__main__":
    main()
