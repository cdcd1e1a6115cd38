"""Next item by all evidence at once, on a public log without Ray: the hybrid and its parts, by protocol, as JSON.

    python benchmarks/hybrid.py --data FOLDER --config jobs/configs/amazon_beauty_hybrid.yaml \
        [--seeds 5] [--refit] [--ablate] [key=value ...]

For each seed and protocol (seen items kept, seen items excluded) it trains the sequence model with the plain loop, fits
memory and ranker around it, and prints a line: HR@10 and NDCG@10 on the test part of the hybrid, of the sequence model
alone and of the untrained graph with text, the paired difference to the graph with its 95% bootstrap interval, and the
same for the hybrid without one kind of evidence (`--ablate`). With `--refit` there is a third: seen items excluded,
memory and graph counted over train and validation, while sequence model and ranker stay as they were fitted.

The last lines, one per protocol, are over all seeds: means, the hybrid's lowest and highest NDCG@10, and paired
differences of users' means over the seeds, so that the intervals are over users. With `--results DIR` what came of a
seed is kept and found again, so that several processes may share the seeds and a last call has them all.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from leave_one_out import load_sequences, read_items
from train_plain import train

from ray_app.baselines import CANDIDATES, TrainingLog, choose, item_texts
from ray_app.baselines.transitions import Transitions
from ray_app.config import Config, apply_overrides, dump, fingerprint, load_config
from ray_app.data.sequences import Histories, Ragged
from ray_app.evidence.memory import Memory
from ray_app.evidence.ranker import Ranker
from ray_app.metrics import hit_rate, ndcg, paired_difference, target_ranks
from ray_app.tasks.hybrid import Evidences, HybridScorer
from ray_app.tasks.hybrid_fit import FIRST, WANTED, described_examples
from ray_app.tasks.recommend import questions
from ray_app.train_config import RankerConfig

KINDS = {
    "sequence": ("logit", "log_share", "place", "vector"),
    "graph": ("forward", "backward", "around", "graph"),
    "content": ("words", "labels", "alike", "graph_text"),
    "users in common": ("together",),
}
"""Feature names begin with these; `graph_text` is both graph and content, and goes with either."""
HYBRID, GRAPH = "hybrid", "graph + text, untrained"
REFIT = "excluded, refit"
BATCH, SAMPLES = 256, 1000
CPU = torch.device("cpu")


class Counted(NamedTuple):
    """What counting alone makes of a log, whatever the seed."""

    memory: Memory
    graph: Transitions

    def again(self, log: TrainingLog) -> "Counted":
        """The same texts and weights, and counts over another log."""
        return Counted(self.memory.recounted(log), Transitions.fit(log, self.graph.weights, self.graph.similarity))


class Outcome(NamedTuple):
    """Of one method and seed, a number per user."""

    hits: np.ndarray
    gains: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="so many, from train.seed on")
    parser.add_argument("--protocol", choices=("kept", "excluded"), action="append")
    parser.add_argument("--refit", action="store_true", help="also with counts of train and validation")
    parser.add_argument("--ablate", action="store_true", help="also fit rankers without each kind of evidence")
    parser.add_argument("--results", type=Path, help="folder in which outcomes of seeds are kept and found again")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = load_config(args.config, args.overrides)
    items, histories = read_items(args.data, config), Histories.from_tables([load_sequences(args.data)[0]])
    left_out = {
        HYBRID: (),
        **({f"hybrid without {kind}": names for kind, names in KINDS.items()} if args.ablate else {}),
    }
    counted = {name: count(histories, items, name == "excluded") for name in args.protocol or ("kept", "excluded")}
    protocols = [*counted, *([REFIT] if args.refit and "excluded" in counted else [])]
    found: dict[str, list[dict[str, Outcome]]] = {}
    for seed in range(config.train.seed, config.train.seed + args.seeds):
        of_seed = apply_overrides(config, [f"train.seed={seed}"])
        kept = args.results / fingerprint(dump(of_seed), protocols, list(left_out)) if args.results else None
        if kept and all((kept / f"{protocol}.npz").exists() for protocol in protocols):
            for protocol in protocols:
                found.setdefault(protocol, []).append(read(kept / f"{protocol}.npz"))
            continue
        for name, known in counted.items():
            exclude = name == "excluded"
            model = train(args.data, apply_overrides(of_seed, [f"evaluate.exclude_seen={json.dumps(exclude)}"]))[0]
            began = time.process_time()
            examples = described(Evidences(model, known.memory, CPU, exclude_seen=exclude), histories, exclude)
            fits = {method: fitted(examples, names, of_seed, args.threads) for method, names in left_out.items()}
            spent = round(time.process_time() - began, 1)
            asked = {name: known}
            if exclude and args.refit:
                asked[REFIT] = known.again(training_log(histories.before("test"), len(items)))
            for protocol, (memory, graph) in asked.items():
                evidences = Evidences(model, memory, CPU, exclude_seen=exclude)
                hybrids = {method: HybridScorer(evidences, ranker) for method, (ranker, _) in fits.items()}
                outcomes = outcomes_of(evidences, hybrids, graph, histories, exclude)
                found.setdefault(protocol, []).append(outcomes)
                line = {"protocol": protocol, "seed": seed, **summary([outcomes])}
                print(json.dumps({**line, "fit_cpu_s": spent, **fits[HYBRID][1]}), flush=True)
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
            for protocol in protocols:
                write(kept / f"{protocol}.npz", found[protocol][-1])
    for protocol, of_seeds in found.items():
        reached = [float(outcomes[HYBRID].gains.mean()) for outcomes in of_seeds]
        spread = [round(min(reached), 5), round(max(reached), 5)]
        print(json.dumps({"protocol": protocol, "seeds": len(of_seeds), "spread": spread, **summary(of_seeds)}))


def write(path: Path, outcomes: dict[str, Outcome]) -> None:
    """As `read` reads it."""
    np.savez(path, **{f"{name}/{method}": v for method, one in outcomes.items() for name, v in one._asdict().items()})


def read(path: Path) -> dict[str, Outcome]:
    """What `write` wrote."""
    with np.load(path) as file:
        methods = dict.fromkeys(name.partition("/")[2] for name in file)
        return {method: Outcome(file[f"hits/{method}"], file[f"gains/{method}"]) for method in methods}


def count(histories: Histories, items: pa.Table, exclude: bool) -> Counted:
    """Over the train part; validation chooses the weights of the graph."""
    known = histories.train()
    log = training_log(known, len(items))
    candidates = CANDIDATES["transitions_text"](log, item_texts(items))
    graph = choose(candidates, known, histories.targets("validation"), exclude)
    assert isinstance(graph, Transitions)
    return Counted(Memory.fit(log, items), graph)


def training_log(known: Ragged, num_items: int) -> TrainingLog:
    zeros, ones = np.zeros(len(known.values), np.int64), np.ones(len(known.values), np.float32)
    return TrainingLog(known.values, known.offsets, zeros, ones, num_items, order_numbers=True)


def described(evidences: Evidences, histories: Histories, exclude: bool) -> pa.Table:
    return pa.concat_tables(
        described_examples(evidences, known, targets) for known, targets in batches(histories, "validation", exclude)
    )


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


def outcomes_of(
    evidences: Evidences, hybrids: dict[str, HybridScorer], graph: Transitions, histories: Histories, exclude: bool
) -> dict[str, Outcome]:
    """By method; what takes longest, to find and describe candidates, is done once for all hybrids."""
    found: dict[str, list[np.ndarray]] = {}
    for known, targets in batches(histories, "test", exclude):
        of_model, *candidates = evidences.describe(known)
        scores = {method: hybrid.ordered(of_model.copy(), *candidates) for method, hybrid in hybrids.items()}
        scores |= {"sequence model": of_model, GRAPH: graph.scores(known)}
        for method, given in scores.items():
            ranks = target_ranks(given, targets, known if exclude else None)[0]
            found.setdefault(method, []).append(ranks)
    flat = {method: np.concatenate(ranks) for method, ranks in found.items()}
    ragged = {method: (ranks, np.arange(len(ranks) + 1)) for method, ranks in flat.items()}  # one target per user
    return {method: Outcome(hit_rate(ranks, 10), ndcg(ranks, 10)) for method, ranks in ragged.items()}


def batches(histories: Histories, part: str, exclude: bool) -> Iterator[tuple[Ragged, Ragged]]:
    users, known, targets = questions(histories, part, exclude)
    for start in range(0, len(users), BATCH):
        stop = min(start + BATCH, len(users))
        yield known.slice(start, stop), targets.slice(start, stop)


def summary(of_seeds: list[dict[str, Outcome]]) -> dict[str, list[float]]:
    """HR@10 and NDCG@10 of each method, and what the hybrid gains on the graph and by each kind of evidence."""
    means = {
        method: Outcome(*(np.mean(values, axis=0) for values in zip(*(seed[method] for seed in of_seeds), strict=True)))
        for method in of_seeds[0]
    }
    line = {method: [float(hits.mean()), float(gains.mean())] for method, (hits, gains) in means.items()}
    for method, found in means.items():
        if method == GRAPH or method.startswith("hybrid without"):
            difference = paired_difference(means[HYBRID].gains, found.gains, SAMPLES, 0)
            line[f"hybrid - {method.removeprefix('hybrid ')}"] = list(difference)
    return {name: [round(value, 5) for value in values] for name, values in line.items()}


if __name__ == "__main__":
    main()
