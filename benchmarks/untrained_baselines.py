"""Baselines that learn nothing, on one public log, leave-one-out: last event test, second to last validation.

    python benchmarks/untrained_baselines.py --data FOLDER

FOLDER has interactions.parquet (user_id, position, item_id) and items.parquet (item_id, and any of title, keywords,
attributes). Prints a table of HR@10/NDCG@10 on test over the full catalogue: seen items kept, excluded, and excluded
with the counts refitted on train and validation. Where a baseline has several sets of weights, each has its row, and
`*` marks the one that ranks the validation part best. Plain numpy, no cluster; one core.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from leave_one_out import load_sequences

from ray_app.baselines import CANDIDATES, Baseline, TrainingLog, choose
from ray_app.data.sequences import Histories, Ragged
from ray_app.metrics import hit_rate, ndcg, target_ranks

BATCH_USERS = 256


class Question(NamedTuple):
    """Whose next item is asked for."""

    known: Ragged
    targets: Ragged


class Clock:
    """CPU seconds since the last look."""

    def __init__(self) -> None:
        self._last = time.process_time()

    def look(self) -> float:
        """The seconds, and start again."""
        now = time.process_time()
        self._last, spent = now, now - self._last
        return spent


def item_texts(path: Path) -> list[str]:
    """In the order of the item ids, which is that of `load_sequences`."""
    table = pq.read_table(path).sort_by("item_id")
    columns = [table[name].to_pylist() for name in ("title", "keywords", "attributes") if name in table.column_names]
    rows = zip(*columns, strict=True)
    return [" ".join(part if isinstance(part, str) else " ".join(part) for part in row if part) for row in rows]


def training_log(known: Ragged, num_items: int) -> TrainingLog:
    positions = np.arange(len(known.values)) - np.repeat(known.offsets[:-1], known.lengths)
    weights = np.ones(len(known.values), np.float32)
    return TrainingLog(known.values, known.offsets, positions, weights, num_items, order_numbers=True)


def evaluate(baseline: Baseline, question: Question, exclude_seen: bool) -> str:
    found = []
    for start in range(0, len(question.targets.lengths), BATCH_USERS):
        stop = min(start + BATCH_USERS, len(question.targets.lengths))
        known = question.known.slice(start, stop)
        seen = known if exclude_seen else None
        found.append(target_ranks(baseline.scores(known), question.targets.slice(start, stop), seen)[0])
    ranks = np.concatenate(found), question.targets.offsets
    return f"{hit_rate(ranks, 10).mean():.4f}/{ndcg(ranks, 10).mean():.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table, num_items, _ = load_sequences(arguments.data)
    texts = item_texts(arguments.data / "items.parquet")
    assert len(texts) == num_items, "items.parquet does not hold the items of the log"
    histories = Histories.from_tables([table])
    validation = Question(histories.before("validation"), histories.targets("validation"))
    test = Question(histories.before("test"), histories.targets("test"))
    train, refit = training_log(validation.known, num_items), training_log(test.known, num_items)
    print("| method | kept | excluded | excluded, refit | cpu-s to fit | cpu-s to score and rank |")
    print("|---|---|---|---|---|---|")
    for name in arguments.methods:
        clock = Clock()
        candidates = CANDIDATES[name](train, texts)
        fitting = clock.look()
        chosen = choose(candidates, *validation, exclude_seen=False)
        for number, (fitted, fitted_again) in enumerate(zip(candidates, CANDIDATES[name](refit, texts), strict=True)):
            label = name if len(candidates) == 1 else f"{name}, weights {number}{'*' if fitted is chosen else ''}"
            clock.look()
            kept = evaluate(fitted, test, exclude_seen=False)
            scoring = clock.look()
            excluded = evaluate(fitted, test, exclude_seen=True)
            again = evaluate(fitted_again, test, exclude_seen=True)
            print(f"| {label} | {kept} | {excluded} | {again} | {fitting:.1f} | {scoring:.1f} |", flush=True)


if __name__ == "__main__":
    main()
