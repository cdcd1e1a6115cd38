"""What pretraining is worth, by how much the target has: NDCG@10 of five strategies on shares of the target's users.

    PYTHONPATH=jobs python benchmarks/sparse_data.py --config jobs/configs/demo.yaml --demo FOLDER [key=value ...]
    PYTHONPATH=jobs python benchmarks/sparse_data.py --config jobs/configs/amazon_scientific.yaml --data SCIENTIFIC \
        --source BEAUTY --source SPORTS --vectors DIR --results DIR [key=value ...]

`--demo` prepares the logs of `make demo`, which share their items. `--data` and `--source` read public logs, which
share none: the sources are pretrained on together, and what they know moves over by the texts of items, whose vectors
lie in `--vectors` as NAME.npy of each log (made there where they are missing).

Pretrains once and trains with the plain loop, for each share and seed, on a random part of the target's users (a
smaller share lies inside every larger one of the same seed). Counts, training and early stopping see these users alone;
the test asks for all users, of whom the others are new customers: their histories are read, and nothing was learned
from them. An epoch has at least 8 steps, however small the share, so that no strategy fails for want of steps.

Strategies: `scratch` (evaluate.scratch_schedule; ids alone: nothing of it was pretrained), `scratch with texts` (where
there is content: a frozen pretrained encoder's vectors, and all else from random weights), `head` (the first phase of
the schedule alone), `full` (everything at once from the pretrained weights, without L2-SP), `two-phase` (the schedule
without L2-SP) and `two-phase + L2-SP` (the schedule). `pretrained` is what all but the first two begin with. Those that
have one phase for everything, scratch and full, get the best on validation of several learning rates.

One JSON line per model; at the end a table (means over seeds) with the paired difference to scratch and its 95%
bootstrap interval over users. `--picture FILE` draws it as SVG. With `--results` each model's outcome is kept and found
again, so that several processes may share the seeds and a last call makes the table.
"""

import argparse
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import pyarrow as pa
import ray
import torch
from cold_start import ids_alone
from curves import Curve, draw
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
from ray_app.metrics import bootstrap_interval, ndcg, paired_difference
from ray_app.models.sequence import SequenceModel
from ray_app.schedule import Phase, Schedule
from ray_app.schema import Col
from ray_app.storage import Storage
from ray_app.tasks.beginning import build_model
from ray_app.tasks.recommend import RecommendTask, target_ranks_of
from ray_app.tasks.recommender import TrainedModel, load_trained
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.world import World

RATES = (1.0, 0.3, 0.1)
"""Factors on the learning rate, of which scratch and plain fine-tuning take the best on validation."""
MIN_STEPS = 8
PLAN = "two-phase + L2-SP"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    log_arguments(parser)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="factors on the rate of scratch and full")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config, whole, pretrained = read_logs(args)
    found: dict[tuple[float, str], list[NDArray[np.float64]]] = defaultdict(list)
    for seed in args.seeds:
        for share in sorted(args.shares):
            log = part_of(whole, share, seed)
            for name, fitted in strategies(log, config, pretrained, seed, args.rates).items():
                key = zlib.crc32(repr((config.to_yaml(), args.rates, share, seed, name)).encode())
                kept = args.results / f"{key:08x}.npy" if args.results else None
                if kept and kept.exists():
                    outcome = np.load(kept)
                else:
                    outcome = gains(fitted(), log, whole, config)
                    if kept:
                        np.save(kept, outcome)
                found[share, name].append(outcome)
                line = {"share": share, "seed": seed, "users": len(log.table), "strategy": name}
                print(json.dumps({**line, "ndcg@10": round(float(found[share, name][-1].mean()), 5)}), flush=True)
    means = {key: np.mean(per_seed, axis=0) for key, per_seed in found.items()}
    print(table(means, config))
    if args.picture:
        args.picture.write_text(picture(means, {share: round(share * len(whole.table)) for share, _ in means}))


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
    content = [
        read_content(folder, config.model_copy(update={"data": data}), args.vectors / f"{folder.name}.npy")
        for folder, data in zip(args.source, settings, strict=True)
    ]
    source = Log(table, catalogue("source", np.concatenate([log[2] for log in logs])), np.concatenate(content))
    model = build_model(config.model, source.items, config.train.seed, content=source.content)[0]
    file = args.results / "pretrained.safetensors" if args.results else None
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
    source = prepare(storage, config.name, config.pretrain.data)
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


def strategies(
    log: Log, config: Config, pretrained: TrainedModel, seed: int, factors: list[float]
) -> dict[str, Callable[[], SequenceModel]]:
    """How each strategy's model is made, by name."""
    head, *_, full = config.schedule.phases

    def tuned(*phases: Phase) -> tuple[SequenceModel, float]:
        model, reference = build_model(config.model, log.items, seed, pretrained, log.content)
        schedule = config.schedule.model_copy(update={"phases": phases})
        return model, trained(model, reference, log, schedule, config, seed)[1]

    def begun(phase: Phase, content: NDArray[np.float16] | None) -> tuple[SequenceModel, float]:
        model, _ = build_model(config.model, log.items, seed, content=content)
        schedule = config.evaluate.scratch_schedule.model_copy(update={"phases": (phase,)})
        return model, trained(model, {}, log, schedule, config, seed)[1]

    def best(fitted: Callable[[Phase], tuple[SequenceModel, float]], phase: Phase) -> SequenceModel:
        rates = [phase.learning_rate * factor for factor in factors]
        outcomes = [fitted(phase.model_copy(update={"learning_rate": rate})) for rate in rates]
        return max(outcomes, key=lambda outcome: outcome[1])[0]

    def start() -> SequenceModel:
        return build_model(config.model, log.items, seed, pretrained, log.content)[0].eval()

    [scratch] = config.evaluate.scratch_schedule.phases
    [of_ids] = (ids_alone(config) if log.content is not None else config).evaluate.scratch_schedule.phases
    epochs = sum(phase.epochs for phase in config.schedule.phases)
    at_once = full.model_copy(update={"epochs": epochs, "l2_sp": 0.0})
    free = [phase.model_copy(update={"l2_sp": 0.0}) for phase in config.schedule.phases]
    described = {"scratch with texts": lambda: best(lambda phase: begun(phase, log.content), scratch)}
    return {
        "pretrained": start,
        "scratch": lambda: best(lambda phase: begun(phase, None), of_ids),
        **(described if log.content is not None else {}),
        "head": lambda: tuned(head.model_copy(update={"patience": full.patience}))[0],
        "full": lambda: best(tuned, at_once),
        "two-phase": lambda: tuned(*free)[0],
        PLAN: lambda: tuned(*config.schedule.phases)[0],
    }


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


def gains(model: SequenceModel, log: Log, whole: Log, config: Config) -> NDArray[np.float64]:
    """NDCG@10 of every user with a target in the test part; items that `log` has no events of are lent vectors."""
    if model.is_described:
        model.introduce(torch.from_numpy(np.flatnonzero(log.items[Col.TRAIN_COUNT].to_numpy() == 0) + 1))
    histories = Histories.from_tables([whole.table])
    ranks = target_ranks_of(model, histories, "test", config.evaluate.exclude_seen)
    return np.concatenate([ndcg(batch, 10) for batch in ranks])


def table(means: dict[tuple[float, str], NDArray[np.float64]], config: Config) -> str:
    """Markdown: a row per share, a column per strategy, the difference of the whole plan to scratch."""
    names = list(dict.fromkeys(name for _, name in means))
    lines = [f"| users | {' | '.join(names)} | {PLAN} - scratch |", "|---" * (len(names) + 2) + "|"]
    for share in sorted({share for share, _ in means}):
        cells = [f"{means[share, name].mean():.4f}" for name in names]
        scratch = means[share, "scratch"]
        difference = paired_difference(
            means[share, PLAN], scratch, config.evaluate.bootstrap_samples, config.train.seed
        )
        gained, low, high = (f"{value / scratch.mean():+.0%}" for value in difference)
        lines.append(f"| {share:.0%} | {' | '.join(cells)} | {gained} ({low} to {high}) |")
    return "\n".join(lines)


def picture(means: dict[tuple[float, str], NDArray[np.float64]], users: dict[float, int]) -> str:
    """NDCG@10 against the number of users, a line per strategy."""
    curves: dict[str, Curve] = defaultdict(list)
    for (share, name), values in means.items():
        low, high = bootstrap_interval(values, 1000, 0)
        curves[name].append((users[share], low, float(values.mean()), high))
    return draw(curves, "users of the target to learn from", "NDCG@10 on test")


if __name__ == "__main__":
    main()
