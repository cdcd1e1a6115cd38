"""What pretraining is worth, by how much the target has: NDCG@10 of five strategies on shares of the target's users.

    PYTHONPATH=jobs python benchmarks/sparse_data.py --config jobs/configs/demo.yaml --demo FOLDER [key=value ...]
    PYTHONPATH=jobs python benchmarks/sparse_data.py --config jobs/configs/amazon_scientific.yaml --data SCIENTIFIC \
        --source BEAUTY --source SPORTS --vectors DIR --results DIR [key=value ...]

The options of the logs are told in `target_logs.py`.

Pretrains once and trains with the plain loop, for each share and seed, on a random part of the target's users (a
smaller share lies inside every larger one of the same seed). Counts, training and early stopping see these users alone;
the test asks for all users, of whom the others are new customers: their histories are read, and nothing was learned
from them. An epoch has at least 8 steps, however small the share, so that no strategy fails for want of steps.

Strategies: `scratch` (evaluate.scratch_schedule; ids alone: nothing of it was pretrained), `scratch with texts` (where
there is content: a frozen pretrained encoder's vectors, and all else from random weights), `texts, untrained` (where
likeness is scored outright: that and popularity alone, as they begin), `head` (the first phase of the schedule alone),
`full` (everything at once from the pretrained weights, without L2-SP), `two-phase` (the schedule without L2-SP) and
`two-phase + L2-SP` (the schedule). `pretrained` is what these four begin with. Those that have one phase for
everything, scratch and full, get the best on validation of several learning rates.

One JSON line per model; at the end a table (means over seeds) with the paired difference to scratch and its 95%
bootstrap interval over users. `--picture FILE` draws it as SVG. With `--results` each model's outcome is kept and found
again, so that several processes may share the seeds and a last call makes the table.
"""

import argparse
import json
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cold_start import ids_alone
from numpy.typing import NDArray
from target_logs import Log, log_arguments, part_of, read_logs, trained

from ray_app.config import Config
from ray_app.data.sequences import Histories
from ray_app.metrics import bootstrap_interval, ndcg, paired_difference
from ray_app.models.sequence import SequenceModel
from ray_app.report.curves import Curve, draw
from ray_app.schedule import Phase
from ray_app.schema import Col
from ray_app.tasks.beginning import build_model
from ray_app.tasks.recommend import target_ranks_of
from ray_app.tasks.recommender import TrainedModel

RATES = (1.0, 0.3, 0.1)
"""Factors on the learning rate, of which scratch and plain fine-tuning take the best on validation."""
PLAN = "two-phase + L2-SP"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    log_arguments(parser)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="factors on the rate of scratch and full")
    parser.add_argument("--strategies", nargs="+", help="these alone; the table needs scratch and the whole plan")
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
                if args.strategies and name not in args.strategies:
                    continue
                logs = [folder and folder.name for folder in (args.data, *(args.source or []))]
                key = zlib.crc32(repr((config.to_yaml(), logs, args.rates, share, seed, name)).encode())
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
    if {"scratch", PLAN} <= {name for _, name in means}:
        print(table(means, config))
    if args.picture:
        args.picture.write_text(picture(means, {share: round(share * len(whole.table)) for share, _ in means}))


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

    def untrained() -> SequenceModel:
        model = build_model(config.model, log.items, seed, content=log.content)[0].eval()
        with torch.no_grad():  # the network expects nothing
            model.backbone.norm.weight.zero_()
        return model

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
        **({"texts, untrained": untrained} if log.content is not None and config.model.likeness_dim else {}),
        "head": lambda: tuned(head.model_copy(update={"patience": full.patience}))[0],
        "full": lambda: best(tuned, at_once),
        "two-phase": lambda: tuned(*free)[0],
        PLAN: lambda: tuned(*config.schedule.phases)[0],
    }


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
