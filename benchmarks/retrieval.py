"""Latency, recall and memory of one predictor over a very large catalogue: every item looked at, and an index.

    python benchmarks/retrieval.py [--items 1000000] [--dim 64] [--threads 1] [--requests 1000]

No HTTP and no Ray: single requests to `Predictor.recommend`, whole answers with titles and reasons, each way in a
process of its own. The shop is made up, as like a trained one as can be told without one: items lie in 5,000 clusters
of unequal size (a unit centre plus .7 of a unit of noise), the share of an item of popularity rank r is (r + 10)^-.9,
biases are logs of shares, vectors are longer the more popular an item is (.6, a tenth more or less for each standard
deviation of the log share), and a query is of length 20, halfway between the last item and the mean of a history of
20 items from three clusters. So the best ten are partly what sells and partly what is like the history: their median
popularity rank is printed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import sparse

from ray_app.data.sequences import Histories
from ray_app.evidence.item_index import ItemIndex
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape
from ray_app.serving.catalog import Catalog
from ray_app.serving.customers import Customers
from ray_app.serving.predictor import Predictor
from ray_app.serving.schemas import RecommendRequest
from ray_app.tasks.scorer import ModelScorer

CLUSTERS, USERS, EVENTS = 5000, 20_000, 20
FILTERS = {
    "no filter": {},
    "half of the items": {"price_min": 0.5},
    "3 of 500 categories": {"category": ["c7", "c77", "c177"]},
    "500 items by id": {"allow": [*range(0, 500_000, 1000)]},
}


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def network(dim: int, vectors: np.ndarray, bias: np.ndarray) -> SequenceModel:
    """One block that adds the mean of the history to the last item."""
    torch.manual_seed(0)
    model = SequenceModel(SequenceShape(dim, 1, 1, 2 * dim, 50), torch.arange(len(bias)), 0)
    with torch.no_grad():
        model.head.items.weight = torch.nn.Parameter(torch.from_numpy(vectors))
        model.head.bias.copy_(torch.from_numpy(bias))
        block = model.backbone.blocks[0]
        block.query_key_value.weight[2 * dim :] = torch.eye(dim)
        block.attention_out.weight.copy_(torch.eye(dim))
        block.attention_gate.bias.fill_(5.0)
        model.backbone.norm.weight.fill_(20 / dim**0.5)
    return model


def shop(num_items: int, dim: int, retrieval: str) -> tuple[Predictor, np.ndarray]:
    """The predictor, and each item's popularity rank."""
    rng = np.random.default_rng(0)
    share = (rng.permutation(num_items) + 10.0) ** -0.9
    share /= share.sum()
    log_share = np.log(share)
    spread = (log_share - log_share.mean()) / log_share.std()
    sizes = (np.arange(CLUSTERS) + 20.0) ** -0.7
    cluster = rng.choice(CLUSTERS, num_items, p=sizes / sizes.sum())
    vectors = unit(rng.standard_normal((CLUSTERS, dim), np.float32))[cluster]
    vectors = unit(vectors + np.float32(0.7) * unit(rng.standard_normal((num_items, dim), np.float32)))
    vectors *= (0.6 * (1 + 0.1 * spread))[:, None].astype(np.float32)
    model = network(dim, vectors, log_share.astype(np.float32))
    del vectors
    scorer = ModelScorer(model, torch.device("cpu"))
    del model
    number, of_cluster, of_category = (
        pa.array(n).cast(pa.string()) for n in (np.arange(num_items), cluster, cluster % 500)
    )
    items = pa.table(
        {
            "item_id": np.arange(num_items),
            "title": pc.binary_join_element_wise("Item", number, "of cluster", of_cluster, " "),
            "description": pa.nulls(num_items, pa.string()),
            "brand": pc.binary_join_element_wise("b", of_cluster, ""),
            "category": pc.binary_join_element_wise("c", of_category, ""),
            "price": rng.random(num_items),
        }
    )
    by_cluster = np.argsort(cluster, kind="stable")
    starts = np.searchsorted(cluster[by_cluster], np.arange(CLUSTERS + 1))
    had = np.empty((USERS, EVENTS), np.int32)
    for user, of_user in enumerate(rng.choice(cluster, (USERS, 3), p=share)):
        mine = np.concatenate([by_cluster[starts[c] : starts[c + 1]] for c in of_user])
        had[user] = rng.choice(mine, EVENTS, p=share[mine] / share[mine].sum()) + 1
    count, none = had.size, np.zeros(USERS, np.int64)
    events = (had.ravel(), np.arange(count), np.ones(count, np.float32), np.arange(count, dtype=np.int32))
    users = pa.array([f"u{n}" for n in range(USERS)])
    histories = Histories(users, *events, np.arange(USERS + 1) * EVENTS, none, none)
    counts = np.concatenate([[0.0], share])
    together = sparse.csr_array((num_items + 1, num_items + 1), dtype=np.float32)
    index = ItemIndex(counts, counts, np.zeros(num_items + 1, np.int64), 0, together)
    catalog, customers = Catalog(items), Customers(histories, clock=True)
    del items
    pa.default_memory_pool().release_unused()  # as `Predictor.load` does
    start = time.perf_counter()
    predictor = Predictor("v", scorer, catalog, customers, index, exclude_seen=True, retrieval=retrieval)
    print(f"# {retrieval}: {time.perf_counter() - start:.0f} s from the loaded model to the first answer", flush=True)
    return predictor, np.argsort(np.argsort(-share))


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(arguments: argparse.Namespace) -> None:
    """One way, whose answers go to a file."""
    torch.set_num_threads(arguments.threads)
    predictor, rank = shop(arguments.items, arguments.dim, arguments.only)
    users = np.random.default_rng(1).integers(0, USERS, arguments.requests)
    found = {}
    for name, filters in FILTERS.items():
        requests = [RecommendRequest(user_id=f"u{user}", k=10, filters=filters) for user in users.tolist()]
        for request in requests[:20]:
            predictor.recommend([request], [[]])
        times, answers = [], []
        for request in requests:
            start = time.perf_counter()
            [answer] = predictor.recommend([request], [[]])
            times.append((time.perf_counter() - start) * 1000)
            answers.append([item.item_id for item in answer.items])
        p50, p99 = np.quantile(times, [0.5, 0.99])
        ranks = np.median(rank[np.concatenate(answers)])
        found[name] = {"p50": p50, "p99": p99, "answers": answers, "rank": float(ranks)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(arguments.out).write_text(json.dumps({"ways": found, "rss": rss_mb(), "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--only", choices=("exact", "ann"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        measure(arguments)
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ("exact", "ann"):
            out = str(Path(folder) / way)
            command = [sys.executable, __file__, *sys.argv[1:], "--only", way, "--out", out]
            environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
            subprocess.run(command, env=environment, check=True)
            results[way] = json.loads(Path(out).read_text())
    print(f"{'':<22} {'exact p50':>10} {'p99 ms':>8} {'ann p50':>10} {'p99 ms':>8} {'recall@10':>10} {'rank':>8}")
    for name in FILTERS:
        exact, ann = (results[way]["ways"][name] for way in ("exact", "ann"))
        assert list(map(len, ann["answers"])) == list(map(len, exact["answers"])), "an answer is short"
        pairs = zip(exact["answers"], ann["answers"], strict=True)
        recall = np.mean([len(set(some) & set(all_)) / max(len(all_), 1) for all_, some in pairs])
        times = f"{exact['p50']:10.1f} {exact['p99']:8.1f} {ann['p50']:10.1f} {ann['p99']:8.1f}"
        print(f"{name:<22} {times} {recall:10.4f} {exact['rank']:8.0f}")
    memory = ", ".join(f"{way} {found['rss']:.0f} MB (peak {found['peak']:.0f})" for way, found in results.items())
    print(f"{arguments.requests} requests each; memory {memory}; load average at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
