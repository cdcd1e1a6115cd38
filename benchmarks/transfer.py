"""From two shops to a third that shares no item with them, on public logs without Ray, as JSON lines.

    python benchmarks/transfer.py --data FOLDER --source FOLDER --source FOLDER --vectors DIR \
        --config jobs/configs/amazon_scientific.yaml [--share 0.1 --share 1] [--seeds 3] [key=value ...]

Pretrains on the sources (read as `pretrain.data` and `pretrain.more` say) once, or reads the weights from --model where
they are, and then for each share of the target's users and each seed trains twice on their train parts alone: from
scratch, and in two phases from the pretrained weights. Both have the same sizes, content and seeds; the epoch is chosen
by the validation events of the same users. Asked is the test event of all users of the target, from their whole history
before it, full catalogue, seen items excluded; test numbers of seen and unseen users are one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from leave_one_out import load_sequences, read_content
from safetensors.torch import load_file, save_file
from train_plain import train_on

from ray_app.config import Config, load_config
from ray_app.data.sequences import Histories
from ray_app.data.union import Shift, shifted, source_weights
from ray_app.metrics import hit_rate, ndcg, paired_difference
from ray_app.models.sequence import SequenceModel
from ray_app.schema import Col
from ray_app.tasks.recommend import target_ranks_of
from ray_app.tasks.recommender import TrainedModel, build_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--source", type=Path, action="append", required=True)
    parser.add_argument("--vectors", type=Path, required=True, help="folder of text vectors, NAME.npy of each log")
    parser.add_argument("--config", required=True)
    parser.add_argument("--model", type=Path, help="safetensors file of the pretrained weights")
    parser.add_argument("--share", type=float, action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(args.config, args.overrides)
    pretrained = pretrain(args.source, args.vectors, config, args.model)
    table, num_items, _ = load_sequences(args.data)
    content = read_content(args.data, config, args.vectors / f"{args.data.name}.npy")
    for share in args.share or (0.1, 1.0):
        for seed in range(args.seeds):
            compare(table, num_items, content, pretrained, share, seeded(config, seed))


def compare(
    table: pa.Table, num_items: int, content: np.ndarray, pretrained: TrainedModel, share: float, config: Config
) -> None:
    """One line: both trainings on a share of the users, and the paired difference over all users of the test part."""
    seed = config.train.seed
    chosen = np.sort(np.random.default_rng(seed).permutation(len(table))[: round(share * len(table))])
    part = table.take(chosen)
    counts = np.bincount(Histories.from_tables([part]).train().values, minlength=num_items + 1)[1:]
    items = catalogue("target", counts)
    begun = build_model(config.model, items, seed, pretrained, content)[0].eval()
    gained = {"pretrained alone": gains(begun, items, table)}
    scratch = train_on(part, items, config, config.evaluate.scratch_schedule, content)
    gained["scratch"] = gains(scratch.model, items, table)
    tuned = train_on(part, items, config, config.schedule, content, pretrained)
    gained["two-phase"] = gains(tuned.model, items, table)
    difference = paired_difference(gained["two-phase"][1], gained["scratch"][1], 1000, seed)
    line: dict[str, object] = {"share": share, "users": len(part), "seed": seed}
    line |= {name: [round(float(values.mean()), 5) for values in both] for name, both in gained.items()}
    line["two-phase - scratch, NDCG@10"] = [round(value, 5) for value in difference]
    print(json.dumps(line), flush=True)


def pretrain(folders: list[Path], vectors: Path, config: Config, file: Path | None) -> TrainedModel:
    """The model of all sources together."""
    assert config.pretrain is not None
    logs = [load_sequences(folder) for folder in folders]
    events = [int(counts.sum()) for _, _, counts in logs]
    first = np.cumsum([0] + [num_items for _, num_items, _ in logs])
    weights = source_weights(events, config.pretrain.temperature)
    table = pa.concat_tables(
        shifted(log[0], Shift("", number, int(first[number]), weights[number])) for number, log in enumerate(logs)
    )
    settings = (config.pretrain.data, *config.pretrain.more)
    content = np.concatenate(
        [
            read_content(folder, config.model_copy(update={"data": data}), vectors / f"{folder.name}.npy")
            for folder, data in zip(folders, settings, strict=True)
        ]
    )
    items = catalogue("source", np.concatenate([counts for _, _, counts in logs]))
    if file is None or not file.exists():
        trained = train_on(table, items, config, config.pretrain.schedule, content)
        if file is not None:
            save_file(trained.model.state_dict(), file)
        return trained
    model = build_model(config.model, items, 0, None, content)[0]
    model.load_state_dict(load_file(file))
    return TrainedModel(model.eval(), items)


def catalogue(prefix: str, counts: np.ndarray) -> pa.Table:
    return pa.table({Col.ITEM: [f"{prefix}{number}" for number in range(len(counts))], Col.TRAIN_COUNT: counts})


def seeded(config: Config, seed: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


def gains(model: SequenceModel, items: pa.Table, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """HR@10 and NDCG@10 of every user's test event, items without train events introduced by their content."""
    model.introduce(torch.from_numpy(np.flatnonzero(items[Col.TRAIN_COUNT].to_numpy() == 0) + 1))
    ranks = list(target_ranks_of(model, Histories.from_tables([table]), "test", exclude_seen=True))
    return np.concatenate([hit_rate(r, 10) for r in ranks]), np.concatenate([ndcg(r, 10) for r in ranks])


if __name__ == "__main__":
    main()
