"""What more diverse lists cost: accuracy and diversity of the test part's lists by `predict.diversity`, as JSON lines.

    python benchmarks/diversity.py --dataset FOLDER --model FOLDER [--keep-seen] [--users 5000]

FOLDER are those that the jobs wrote (`.../datasets/...`, `.../hybrid/...`); no Ray is needed. The lists of 10 are drawn
from pools of 50, likeness is that of the texts where there are any. `diversity@10` is the entropy of the categories on
a list in bits, `alike@10` the mean cosine between the items of a list. Differences in NDCG@10 to the plain list are
paired over users, with 95% bootstrap intervals; `rerank_ms` is what re-ranking takes of the CPU for a user.
"""

import argparse
import json
import time

import numpy as np
import torch

from ray_app.config import Config, StorageConfig
from ray_app.data.categories import category_numbers
from ray_app.data.dataset import open_dataset
from ray_app.data.sequences import COLUMNS, Histories, Ragged
from ray_app.metrics import MISS, coverage, diversity, hit_rate, ndcg, novelty, paired_difference, top_k
from ray_app.schema import PAD, Col
from ray_app.storage import Storage
from ray_app.tasks.diversity import POOL, content_vectors, cosines, diversified
from ray_app.tasks.recommend import questions
from ray_app.tasks.scorer import load_scorer

K, BATCH = 10, 256
SETTINGS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--keep-seen", action="store_true")
    parser.add_argument("--users", type=int, default=5000, help="a sample of so many")
    args = parser.parse_args()
    torch.set_num_threads(1)
    storage = Storage.from_config(StorageConfig())
    dataset = open_dataset(storage, args.dataset)
    scorer = load_scorer(storage, dataset, args.model, Config())
    content = content_vectors(dataset)
    vectors = scorer.vectors if content is None else content
    histories = Histories.from_tables([storage.read_table(uri, COLUMNS) for uri in dataset.part_uris])
    users, known, targets = questions(histories, "test", not args.keep_seen)
    chosen = np.sort(np.random.default_rng(0).permutation(len(users))[: args.users])
    known, targets = known.take(chosen), targets.take(chosen)
    pools = [
        top_k(scorer.scores(batch), K * POOL, None if args.keep_seen else batch)
        for start in range(0, len(chosen), BATCH)
        for batch in [known.slice(start, min(start + BATCH, len(chosen)))]
    ]
    counts = np.concatenate([[0], dataset.items()[Col.TRAIN_COUNT].to_numpy()])
    categories = category_numbers(dataset.items())
    plain = None
    for setting in SETTINGS:
        began = time.process_time()
        found = [diversified(items, scores, vectors, K, setting)[0] for items, scores in pools]
        spent = (time.process_time() - began) / len(chosen)
        lists = np.concatenate(found)
        ranks = ranks_in(lists, targets)
        gained = ndcg(ranks, K)
        plain = gained if plain is None else plain
        alike = np.concatenate([likeness(some, vectors) for some in found])
        line = {
            "diversity": setting,
            "ndcg@10": gained.mean(),
            "hit_rate@10": hit_rate(ranks, K).mean(),
        }
        if categories is not None:
            line["diversity@10"] = diversity(lists, categories).mean()
        line |= {"alike@10": alike.mean(), "coverage@10": coverage(lists, dataset.num_items)}
        line |= {"novelty@10": novelty(lists, counts).mean(), "rerank_ms": spent * 1e3}
        line = {name: round(float(value), 4) for name, value in line.items()}
        cost = [round(value, 5) for value in paired_difference(gained, plain, 1000, seed=0)]
        print(json.dumps({"users": len(chosen), **line, "ndcg@10 minus plain": cost}), flush=True)


def ranks_in(lists: np.ndarray, targets: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Place of each target on its user's list, from 1; `MISS` where it is not there."""
    user = np.repeat(np.arange(len(lists)), targets.lengths)
    hit = (lists[user] == targets.values[:, None]) & (targets.values != PAD)[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, MISS), targets.offsets


def likeness(lists: np.ndarray, vectors: object) -> np.ndarray:
    """Mean cosine between two items of each full list."""
    return (cosines(lists, vectors).sum(axis=(1, 2)) - K) / (K * (K - 1))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
