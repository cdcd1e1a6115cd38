"""The logs of `sparse_data.py` and `search.py`: a target to learn from, and a model pretrained on sources.

`--demo` prepares the logs of `make demo`, which share their items. `--data` and `--source` read public logs, which
share none: the sources are pretrained on together, and what they know moves over by the texts of items, whose vectors
lie in `--vectors` as NAME.npy of each log (made there where they are missing).
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import pyarrow as pa
import ray
import torch
from demo import write_logs
from leave_one_out import load_sequences, read_content
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file, save_file

from ray_app.config import Config, StorageConfig, load_config
from ray_app.data.batches import num_steps
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data.sequences import Histories
from ray_app.data.shard import Shard
from ray_app.data.stream import read_tables
from ray_app.data.union import Shift, shifted, source_weights
from ray_app.models.sequence import SequenceModel
from ray_app.schedule import Schedule
from ray_app.schema import Col
from ray_app.storage import Storage
from ray_app.tasks.beginning import build_model
from ray_app.tasks.recommend import RecommendTask
from ray_app.tasks.recommender import TrainedModel, load_trained
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.world import World

MIN_STEPS = 8
"""Of an epoch, however few users there are, so that no strategy fails for want of steps."""


@dataclass(frozen=True)
class Log:
    """Users to learn from, and the catalogue as they know it."""

    table: pa.Table
    items: pa.Table
    content: NDArray[np.float16] | None = None
    """Vectors of the items' texts, where these are read."""

    @property
    def num_targets(self) -> int:
        """Events that have one before them."""
        return int(np.maximum(self.table[Col.NUM_TRAIN].to_numpy() - 1, 0).sum())


def log_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name the logs, what is read of them, and where outcomes go."""
    parser.add_argument("--config", required=True)
    parser.add_argument("--demo", type=Path, help="folder for the logs of make demo and all that is made of them")
    parser.add_argument("--data", type=Path, help="folder of a public log instead")
    parser.add_argument("--source", type=Path, action="append", help="public logs to pretrain on")
    parser.add_argument("--vectors", type=Path, help="folder of text vectors, NAME.npy of each public log")
    parser.add_argument("--results", type=Path, help="folder in which outcomes are kept and found again")
    parser.add_argument("overrides", nargs="*")


def read_logs(args: argparse.Namespace, section: str | None = None) -> tuple[Config, Log, TrainedModel]:
    """The configuration, the whole target log and the pretrained model that the options name."""
    paths = demo_paths(args.demo) if args.demo else ()
    config = load_config(args.config, [*paths, *args.overrides], section)
    return config, *(public(args, config) if args.data else shop(config))


def demo_paths(folder: Path) -> list[str]:
    """Lay out the demo's logs in `folder`, and say so to its configuration."""
    raw = str(folder / "raw")
    if not (folder / "raw" / "items_region").exists():
        write_logs(Storage.from_config(StorageConfig()), raw, Console(stderr=True))
    places = {"data": "region", "pretrain.data": "other_stores"}
    paths = [f"{section}.events={raw}/{name}" for section, name in places.items()]
    return [f"storage.path={folder / 'runs'}", *paths, *(f"{s}.items={raw}/items_{n}" for s, n in places.items())]


def shop(config: Config) -> tuple[Log, TrainedModel]:
    """The target's log and the pretrained model of `prepared`."""
    target, pretrained = prepared(config)
    return Log(pa.concat_tables(read_tables(target.storage, target.part_uris)), target.items()), pretrained


def public(args: argparse.Namespace, config: Config) -> tuple[Log, TrainedModel]:
    """A public log, and the model of all sources together; its weights are kept among the results."""
    assert config.pretrain is not None
    logs = [load_sequences(folder) for folder in args.source]
    weights = source_weights([int(counts.sum()) for _, _, counts in logs], config.pretrain.temperature)
    first = np.cumsum([0] + [num_items for _, num_items, _ in logs])
    table = pa.concat_tables(
        shifted(log[0], Shift("", number, int(first[number]), weights[number])) for number, log in enumerate(logs)
    )
    settings = (config.pretrain.data, *config.pretrain.more)
    as_data = [config.model_copy(update={"data": data.divided_by(config.data.split)}) for data in settings]
    content = [
        read_content(folder, of_source, args.vectors / f"{folder.name}.npy")
        for folder, of_source in zip(args.source, as_data, strict=True)
    ]
    source = Log(table, catalogue("source", np.concatenate([log[2] for log in logs])), np.concatenate(content))
    model = build_model(config.model, source.items, config.train.seed, content=source.content)[0]
    # One folder of results has room for the models of all sources.
    names = "-".join(folder.name for folder in args.source)
    file = args.results / f"pretrained-{names}.safetensors" if args.results else None
    if file and file.exists():
        model.load_state_dict(load_file(file))
    else:
        trained(model, {}, source, config.pretrain.schedule, config)
        if file:
            args.results.mkdir(parents=True, exist_ok=True)
            save_file(model.state_dict(), file)
    table, _, counts = load_sequences(args.data)
    texts = read_content(args.data, config, args.vectors / f"{args.data.name}.npy")
    return Log(table, catalogue("target", counts), texts), TrainedModel(model.eval(), source.items)


def catalogue(prefix: str, counts: NDArray[np.int64]) -> pa.Table:
    """Items by number, with the counts of their train events."""
    return pa.table({Col.ITEM: [f"{prefix}{number}" for number in range(len(counts))], Col.TRAIN_COUNT: counts})


def prepared(config: Config) -> tuple[Dataset, TrainedModel]:
    """The target's dataset and the pretrained model, as the pipeline would make them."""
    assert config.pretrain is not None, "this benchmark needs a source to pretrain on"
    storage = Storage.from_config(config.storage)
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=500_000_000)
    target = prepare(storage, config.name, config.data)
    source = prepare(storage, config.name, config.pretrain.data.divided_by(target.manifest.cutoffs.split()))
    ray.shutdown()
    run = Run("pretrain", config, config.pretrain.schedule, source)
    if not run.is_published():
        log = Log(pa.concat_tables(read_tables(storage, source.part_uris)), source.items())
        run.publish(
            trained(build_model(config.model, log.items, config.train.seed)[0], {}, log, run.schedule, config)[0]
        )
    return target, load_trained(storage, run.uri)


def part_of(whole: Log, share: float, seed: int) -> Log:
    """A random share of the users, with item counts that know of no other."""
    order = np.random.default_rng(seed).permutation(len(whole.table))
    table = whole.table.take(np.sort(order[: max(round(share * len(order)), 1)]))
    counts = np.bincount(Histories.from_tables([table]).train().values, minlength=len(whole.items) + 1)[1:]
    place = whole.items.column_names.index(Col.TRAIN_COUNT)
    field = whole.items.schema.field(place)
    return Log(table, whole.items.set_column(place, field, pa.array(counts, field.type)), whole.content)


def trained(
    model: SequenceModel,
    reference: dict[str, torch.Tensor],
    log: Log,
    schedule: Schedule,
    config: Config,
    seed: int = 0,
) -> tuple[Snapshot, float]:
    """Fit in place; the last snapshot, and the best validation metric."""
    task = task_of(model, reference, log, config)
    progress = fit(task, schedule, LoopSettings(seed=seed), World.current(), lambda *_: None)
    return Snapshot.take(model.eval(), None, {}, progress), progress.best or 0.0


def task_of(model: SequenceModel, reference: dict[str, torch.Tensor], log: Log, config: Config) -> RecommendTask:
    """What the loop trains: the model on the log."""
    tokens = min(config.train.tokens_per_batch, max(log.num_targets // MIN_STEPS, 1))
    return RecommendTask(
        model, reference, Shard([], log.num_targets, lambda _: iter([log.table]), config.train.window_users),
        num_steps(log.num_targets, tokens), config.model,
        train_counts=torch.from_numpy(log.items[Col.TRAIN_COUNT].to_numpy().copy()),
        exclude_seen=config.evaluate.exclude_seen,
    )  # fmt: skip
