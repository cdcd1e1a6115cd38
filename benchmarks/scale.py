"""Time and memory of training at two sizes, by the plain loop on a made-up log, as JSON lines.

    python benchmarks/scale.py --shape ml-1m [--threads 1] [key=value ...]
    python benchmarks/scale.py --shape million-items [key=value ...]

ml-1m is as MovieLens-1M is: 6,040 users, 3,416 items, 1,000,000 events, read 200 at a time. million-items is a
catalogue of 1,000,000 items at 64 dimensions, trained by sampled softmax for 300 steps and validated on 2,000 users.
Items are drawn by popularity (Zipf), so there is nothing to learn but that: only time and memory say something.

One line per epoch: seconds of training alone (CPU and by the clock), those of validation, and the peak memory of the
process so far, with what it was before the model was built.
"""

import argparse
import json
import os
import resource
import time
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from train_plain import timed_task

from ray_app.config import Config, apply_overrides
from ray_app.schema import Col, sequences_schema
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.snapshot import Snapshot
from ray_app.training.world import World


class Shape(NamedTuple):
    """Of a log, and the settings that suit it."""

    users: int
    items: int
    events: int
    validated: int
    """Users with a validation part."""
    settings: tuple[str, ...]


SHAPES = {
    "ml-1m": Shape(6040, 3416, 1_000_000, 6040, (
        "model.dim=64", "model.num_layers=2", "model.num_heads=2", "model.max_history_len=200",
        "model.num_negatives=256", "evaluate.scratch_schedule.phases.0.epochs=2",
    )),
    "million-items": Shape(40_000, 1_000_000, 390_000, 2000, (
        "model.dim=64", "model.num_negatives=512", "evaluate.scratch_schedule.phases.0.epochs=1",
    )),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = SHAPES[args.shape]
    config = apply_overrides(Config(), [*shape.settings, *args.overrides])
    table = made_up(shape)
    in_train = np.bincount(np.concatenate(train_parts(table)), minlength=shape.items + 1)[1:]
    items = pa.table({Col.ITEM: np.arange(shape.items), Col.TRAIN_COUNT: in_train})
    before_mb = peak_mb()
    task, targets = timed_task(table, items, config)
    last = [time.process_time(), time.perf_counter()]

    def report(record: dict[str, float | str], snapshot: Snapshot) -> None:
        now = [time.process_time(), time.perf_counter()]
        (cpu_s, wall_s), last[:] = (np.array(now) - last).tolist(), now
        print(json.dumps({
            "shape": args.shape, "epoch": record["epoch"], "targets": targets, "steps": task.steps_per_epoch,
            "train_cpu_s": round(cpu_s - task.validation_s, 1), "validation_cpu_s": round(task.validation_s, 1),
            "train_wall_s": round(wall_s - float(record["val/time_s"]), 1), "val/ndcg@10": record["val/ndcg@10"],
            "peak_mb": round(peak_mb()), "of_which_before_mb": round(before_mb),
            "threads": args.threads, "load": round(os.getloadavg()[0], 1),
        }), flush=True)  # fmt: skip
        task.validation_s = 0.0

    fit(task, config.evaluate.scratch_schedule, LoopSettings(seed=config.train.seed), World.current(), report)


def made_up(shape: Shape) -> pa.Table:
    """Sequences as `prepare` writes them; lengths are log-normal, at least 5, at most 20 times the mean."""
    rng = np.random.default_rng(0)
    mean = shape.events / shape.users
    lengths = np.clip(rng.lognormal(np.log(mean) - 0.4, 0.9, shape.users), 5, 20 * mean)
    lengths = np.maximum(5, lengths * shape.events / lengths.sum()).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shares = np.cumsum((np.arange(shape.items) + 10.0) ** -0.8)
    items = np.searchsorted(shares / shares[-1], rng.random(offsets[-1])) + 1
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)

    def lists(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, kind))

    held_out = (np.arange(shape.users) < shape.validated).astype(np.int32)
    columns = {
        Col.USER: pa.array(np.arange(shape.users)),
        Col.ITEMS: lists(items, pa.int32()),
        Col.TIMES: lists(position, pa.int64()),
        Col.WEIGHTS: lists(np.ones(len(items)), pa.float32()),
        Col.ORDERS: lists(position, pa.int32()),
        Col.NUM_TRAIN: pa.array(lengths - held_out, pa.int32()),
        Col.NUM_VALIDATION: pa.array(held_out),
    }
    return pa.table(columns, schema=sequences_schema(pa.int64()))


def train_parts(table: pa.Table) -> list[np.ndarray]:
    lists = zip(table[Col.ITEMS], table[Col.NUM_TRAIN].to_pylist(), strict=True)
    return [items.values.to_numpy()[:train] for items, train in lists]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
