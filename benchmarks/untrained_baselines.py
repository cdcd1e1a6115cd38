"""Baselines that learn nothing, on one log, leave-one-out: last event test, second to last validation.

    python benchmarks/untrained_baselines.py --data FOLDER

FOLDER has interactions.parquet (user_id, position, item_id from 1) and items.parquet (item_id, and any of title,
keywords, attributes). Prints a table of HR@10/NDCG@10 on test over the full catalogue: seen items kept, excluded, and
excluded with the counts refitted on train and validation. Plain numpy, no cluster; one core.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch

from ray_app.baselines import BASELINES, TrainingLog
from ray_app.data.sequences import Ragged
from ray_app.metrics import Scores, hit_rate, ndcg, target_ranks

BATCH_USERS = 256


class Task(NamedTuple):
    """Who is asked about, and with what evidence."""

    train: TrainingLog
    refit: TrainingLog
    histories: Ragged
    targets: Ragged
    texts: list[str]


def read_task(folder: Path) -> Task:
    table = pq.read_table(folder / "interactions.parquet").sort_by(
        [("user_id", "ascending"), ("position", "ascending")]
    )
    users, items = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    lengths = np.unique(users, return_counts=True)[1]
    assert lengths.min() >= 3, "leave-one-out needs three events of each user"
    to_the_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(items))
    texts = item_texts(folder / "items.parquet")
    positions = table["position"].to_numpy().astype(np.int64)

    def without_last(count: int) -> TrainingLog:
        kept = to_the_end > count
        offsets = np.concatenate([[0], np.cumsum(lengths - count)])
        weights = np.ones(kept.sum(), np.float32)
        return TrainingLog(items[kept], offsets, positions[kept], weights, len(texts), order_numbers=True)

    refit = without_last(1)
    targets = Ragged(items[to_the_end == 1], np.arange(len(lengths) + 1))
    return Task(without_last(2), refit, Ragged(refit.items, refit.offsets), targets, texts)


def item_texts(path: Path) -> list[str]:
    table = pq.read_table(path).sort_by("item_id")
    assert table["item_id"].to_pylist() == list(range(1, table.num_rows + 1)), "item ids must be 1, 2, 3, ..."
    columns = [table[name].to_pylist() for name in ("title", "keywords", "attributes") if name in table.column_names]
    return [
        " ".join(part if isinstance(part, str) else " ".join(part) for part in parts if part)
        for parts in zip(*columns, strict=True)
    ]


def evaluate(score: Callable[[Ragged], Scores], task: Task, exclude_seen: bool) -> str:
    found = []
    for start in range(0, len(task.targets.lengths), BATCH_USERS):
        stop = min(start + BATCH_USERS, len(task.targets.lengths))
        histories, targets = task.histories.slice(start, stop), task.targets.slice(start, stop)
        found.append(target_ranks(score(histories), targets, histories if exclude_seen else None)[0])
    ranks = np.concatenate(found), task.targets.offsets
    return f"{hit_rate(ranks, 10).mean():.4f}/{ndcg(ranks, 10).mean():.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=BASELINES, default=list(BASELINES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = read_task(arguments.data)
    print("| method | kept | excluded | excluded, refit | cpu-s to fit | cpu-s to score and rank |")
    print("|---|---|---|---|---|---|")
    for name in arguments.methods:
        start = time.process_time()
        fitted = BASELINES[name](task.train, task.texts)
        fitting = time.process_time() - start
        kept = evaluate(fitted.scores, task, exclude_seen=False)
        scoring = time.process_time() - start - fitting
        excluded = evaluate(fitted.scores, task, exclude_seen=True)
        refit = evaluate(BASELINES[name](task.refit, task.texts).scores, task, exclude_seen=True)
        print(f"| {name} | {kept} | {excluded} | {refit} | {fitting:.1f} | {scoring:.1f} |", flush=True)


if __name__ == "__main__":
    main()
