"""Next item by all evidence at once, on a public log without Ray: the hybrid and its parts, both protocols, as JSON.

    python benchmarks/hybrid.py --data FOLDER --config jobs/configs/amazon_beauty_hybrid.yaml [key=value ...]

Trains the sequence model with the plain loop, fits memory and ranker around it, and prints one line per protocol (seen
items kept, seen items excluded): HR@10 and NDCG@10 on the test part of the hybrid, of the sequence model alone and of
the untrained graph with text, the paired difference to the graph with its 95% bootstrap interval, and the same for the
hybrid without one kind of evidence (`--ablate`).
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from leave_one_out import read_items
from train_plain import train

from ray_app.baselines import CANDIDATES, TrainingLog, choose, item_texts
from ray_app.config import Config, load_config
from ray_app.data.sequences import Histories, Ragged
from ray_app.evidence.memory import Memory
from ray_app.evidence.ranker import Ranker
from ray_app.metrics import Ragged as RaggedRanks
from ray_app.metrics import hit_rate, ndcg, paired_difference, target_ranks
from ray_app.tasks.hybrid import FIRST, WANTED, Evidences, HybridScorer, described_examples
from ray_app.tasks.recommend import questions
from ray_app.tasks.scorer import ModelScorer, Scorer
from ray_app.train_config import RankerConfig

KINDS = {
    "sequence": ("logit", "log_share", "place", "vector"),
    "graph": ("forward", "backward", "around", "graph"),
    "content": ("words", "labels", "alike", "graph_text"),
    "users in common": ("together",),
}
"""Feature names begin with these; `graph_text` is both graph and content, and goes with either."""
GRAPH = "graph + text, untrained"
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--protocol", choices=("kept", "excluded"), action="append")
    parser.add_argument("--ablate", action="store_true", help="also fit rankers without each kind of evidence")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = load_config(args.config, args.overrides)
    model, histories = train(args.data, config)
    items = read_items(args.data, config)
    known = histories.train()
    zeros, ones = np.zeros(len(known.values), np.int64), np.ones(len(known.values), np.float32)
    log = TrainingLog(known.values, known.offsets, zeros, ones, len(items), order_numbers=True)
    memory = Memory.fit(log, items)
    for protocol in args.protocol or ("kept", "excluded"):
        exclude = protocol == "excluded"
        evidences = Evidences(model, memory, torch.device("cpu"), exclude_seen=exclude)
        began = time.process_time()
        examples = pa.concat_tables(described(evidences, histories, exclude))
        ranker, measured = fitted(examples, (), config, args.threads)
        spent = time.process_time() - began
        candidates = CANDIDATES["transitions_text"](log, item_texts(items))
        scorers: dict[str, Scorer] = {
            "hybrid": HybridScorer(evidences, ranker),
            "sequence model": ModelScorer(model, torch.device("cpu")),
            GRAPH: choose(candidates, known, histories.targets("validation"), exclude),
        }
        for kind, names in KINDS.items() if args.ablate else ():
            scorers[f"hybrid without {kind}"] = HybridScorer(
                evidences, fitted(examples, names, config, args.threads)[0]
            )
        ranks = {name: ranks_of(scorer, histories, exclude) for name, scorer in scorers.items()}
        gained = {name: ndcg(found, 10) for name, found in ranks.items()}
        difference = paired_difference(gained["hybrid"], gained[GRAPH], 1000, config.train.seed)
        line = {
            name: [round(float(hit_rate(found, 10).mean()), 5), round(float(gained[name].mean()), 5)]
            for name, found in ranks.items()
        }
        line |= {"hybrid - graph": [round(value, 5) for value in difference], "fit_cpu_s": round(spent, 1), **measured}
        print(json.dumps({"protocol": protocol, "seed": config.train.seed, **line}), flush=True)


def fitted(
    examples: pa.Table, left_out: tuple[str, ...], config: Config, threads: int
) -> tuple[Ranker, dict[str, float]]:
    """A ranker without the features whose names begin with those of `left_out`."""
    columns = {name: examples[name].to_numpy() for name in examples.column_names}
    wanted, starts = columns.pop(WANTED), np.flatnonzero(columns.pop(FIRST))
    sizes = np.diff(np.append(starts, len(wanted)))
    columns = {name: column for name, column in columns.items() if not name.startswith(left_out)}
    settings = config.ranker or RankerConfig()
    return Ranker.fit(columns, wanted, sizes, settings, seed=config.train.seed, threads=threads)


def batches(histories: Histories, part: str, exclude: bool) -> Iterator[tuple[Ragged, Ragged]]:
    users, known, targets = questions(histories, part, exclude)
    for start in range(0, len(users), BATCH):
        stop = min(start + BATCH, len(users))
        yield known.slice(start, stop), targets.slice(start, stop)


def described(evidences: Evidences, histories: Histories, exclude: bool) -> list[pa.Table]:
    return [
        described_examples(evidences, known, targets) for known, targets in batches(histories, "validation", exclude)
    ]


def ranks_of(scorer: Scorer, histories: Histories, exclude: bool) -> RaggedRanks:
    values = [
        target_ranks(scorer.scores(known), targets, known if exclude else None)[0]
        for known, targets in batches(histories, "test", exclude)
    ]
    flat = np.concatenate(values)
    return flat, np.arange(len(flat) + 1)  # one target per user


if __name__ == "__main__":
    main()
