"""A small log and searches on it, for the tests of the search."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ray_app.data.stream import read_tables
from ray_app.tasks.recommend import build_task
from ray_app.tasks.recommender import load_trained
from ray_app.training.loop import fit
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.trainer import loop_settings
from ray_app.training.world import World
from ray_app.tuning.search import Search

MakeSearch = Callable[..., Search]


def write_log(path: Path, users: int, seed: int) -> None:
    """Each item is followed by the next one, four times out of five."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int]] = []
    for user in range(users):
        item = int(rng.integers(40))
        for _ in range(int(rng.integers(3, 10))):
            rows.append((user, item))
            item = (item + 1) % 40 if rng.random() < 0.8 else int(rng.integers(40))
    users_column, items = zip(*rows, strict=True)
    pq.write_table(pa.table({"user_id": users_column, "item_id": items, "timestamp": range(len(rows))}), path)


def plain(run: Run) -> Snapshot:
    """The run's last snapshot, trained in this process without Ray."""
    last: list[Snapshot] = []
    pretrained = load_trained(run.storage, run.start_from) if run.start_from else None
    task = build_task(run.config, run.dataset, pretrained, partial(read_tables, run.storage))
    torch.set_num_threads(1)
    world = World.current()
    fit(task, run.schedule, loop_settings(run, world.device), world, lambda _, now: last.append(now))
    return last[-1]
