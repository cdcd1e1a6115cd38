"""Train the sequence model on one public log with the plain loop, no Ray: quality and CPU time, as JSON lines.

    python benchmarks/train_plain.py --data FOLDER --config jobs/configs/amazon_beauty.yaml [key=value ...]

Each epoch gives its record and the CPU seconds spent in training so far (validation apart); the last line the test
metrics under both protocols (seen items kept, seen items excluded), of which it was trained for one
(`evaluate.exclude_seen`).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from leave_one_out import load_sequences, read_content, read_items

from ray_app.config import Config, load_config
from ray_app.data.batches import num_steps
from ray_app.data.sequences import Histories
from ray_app.data.shard import Shard
from ray_app.metrics import hit_rate, ndcg
from ray_app.models.sequence import SequenceModel
from ray_app.tasks.beginning import build_model
from ray_app.tasks.recommend import RecommendTask, target_ranks_of
from ray_app.tasks.recommender import TrainedModel
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.snapshot import Snapshot
from ray_app.training.world import World


class TimedTask(RecommendTask):
    """Counts the CPU seconds of validation, so that they can be left out."""

    validation_s = 0.0

    def validate(self) -> dict[str, tuple[float, float]]:
        """See `Task.validate`."""
        began = time.process_time()
        try:
            return super().validate()
        finally:
            self.validation_s += time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vectors", type=Path, help="text vectors of the items, where the configuration has content")
    parser.add_argument("--until", type=float, help="stop at this validation ndcg@10")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = load_config(args.config, args.overrides)
    content = read_content(args.data, config, args.vectors) if config.content and args.vectors else None
    model, histories = train(args.data, config, content, args.until)
    result: dict[str, object] = {"seed": config.train.seed}
    for name, exclude in (("kept", False), ("excluded", True)):
        ranks = list(target_ranks_of(model.eval(), histories, "test", exclude))
        for metric, function in (("hit_rate@10", hit_rate), ("ndcg@10", ndcg)):
            result[f"test/{metric} {name}"] = round(float(np.concatenate([function(r, 10) for r in ranks]).mean()), 5)
    print(json.dumps(result))


def train(
    folder: Path, config: Config, content: np.ndarray | None = None, until: float | None = None
) -> tuple[SequenceModel, Histories]:
    """Fit `evaluate.scratch_schedule` to the log in `folder`, printing a line per epoch and the best at the end."""
    table, num_items, counts = load_sequences(folder)
    items = pa.table({"item_id": np.arange(num_items), "train_count": counts})
    if config.content is not None and config.content.labels:
        items = (
            read_items(folder, config).set_column(0, items.field(0), items[0]).append_column(items.field(1), items[1])
        )
    return train_on(table, items, config, content=content, until=until).model, Histories.from_tables([table])


def train_on(
    table: pa.Table,
    items: pa.Table,
    config: Config,
    content: np.ndarray | None = None,
    until: float | None = None,
) -> TrainedModel:
    """Fit `evaluate.scratch_schedule` to sequences of `items`: their ids and train counts."""
    task, targets = timed_task(table, items, config, content)
    began = time.process_time()

    def report(record: dict[str, float | str], snapshot: Snapshot) -> None:
        spent = time.process_time() - began - task.validation_s
        print(json.dumps({**record, "train_cpu_s": round(spent, 2), "targets": targets}), flush=True)
        if until and float(record.get("val/ndcg@10", 0)) >= until:
            raise SystemExit

    settings = LoopSettings(seed=config.train.seed)
    progress = fit(task, config.evaluate.scratch_schedule, settings, World.current(), report)
    spent = time.process_time() - began - task.validation_s
    print(json.dumps({"best": progress.best, "train_cpu_s": round(spent, 2)}), flush=True)
    return TrainedModel(task.model.eval(), items)


def timed_task(
    table: pa.Table,
    items: pa.Table,
    config: Config,
    content: np.ndarray | None = None,
) -> tuple[TimedTask, int]:
    """What the loop trains on sequences of `items`, and how many targets an epoch has."""
    targets = int(np.maximum(table["num_train"].to_numpy() - 1, 0).sum())
    labels = config.content.labels if config.content else ()
    model, reference = build_model(config.model, items, config.train.seed, content=content, labels=labels)
    task = TimedTask(
        model, reference, Shard([], targets, lambda _: iter([table]), config.train.window_users),
        num_steps(targets, config.train.tokens_per_batch), config.model,
        train_counts=torch.from_numpy(items["train_count"].to_numpy().copy()),
        exclude_seen=config.evaluate.exclude_seen,
    )  # fmt: skip
    return task, targets


if __name__ == "__main__":
    main()
