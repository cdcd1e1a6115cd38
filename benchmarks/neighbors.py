"""How long it takes to find the nearest items by texts and by users in common, and in how much memory, as JSON lines.

    python benchmarks/neighbors.py [--items 20000 100000 300000]

Each catalogue is made up: titles of words that are seldom or common as words are (Zipf), brands, and categories in a
tree, so that the commonest terms stand in half of all texts; and a log of two users an item, with histories of 2 to
2,000 items (20 in the mean), in which popular items are very popular. Peak memory is that of a process of its own, what
was made up and the libraries included. `found` is the share of the truly nearest items that were found, over a sample
of the items; ties count as found.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from ray_app.baselines import TrainingLog
from ray_app.baselines.histories import Matrix, matrix
from ray_app.baselines.neighbors import ItemKNN, nearest, text_vectors
from ray_app.evidence.memory import NEIGHBORS

SAMPLE = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[20_000, 100_000, 300_000])
    parser.add_argument("--by", nargs="+", choices=("texts", "users"), default=["texts", "users"])
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    for num_items in args.items:
        for kind in args.by:
            with ProcessPoolExecutor(1, spawn) as process:
                print(json.dumps(process.submit(measured, kind, num_items).result()), flush=True)


def measured(kind: str, num_items: int) -> dict[str, float | str]:
    if kind == "texts":
        vectors = text_vectors(texts(num_items))
    else:
        made_up = log(num_items)
        vectors = matrix(1, made_up.items, made_up.users, (num_items + 1, len(made_up.offsets) - 1))
        vectors.data[:] = 1
    before_mb = peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    found = nearest(vectors, NEIGHBORS) if kind == "texts" else ItemKNN.fit(made_up, NEIGHBORS).similarity
    return {
        "by": kind,
        "items": num_items,
        "entries": int(vectors.nnz),
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.perf_counter() - wall, 1),
        "peak_mb": round(peak_mb()),
        "of_which_before_mb": round(before_mb),
        "kept_mb": round((found.data.nbytes + found.indices.nbytes) / 1e6),
        "found": share_found(vectors, found),
        "load": round(os.getloadavg()[0], 1),
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def share_found(vectors: Matrix, found: Matrix) -> float:
    """Against all cosines of a few items."""
    rows = np.random.default_rng(1).permutation(np.arange(1, vectors.shape[0]))[:SAMPLE]
    lengths = np.maximum(np.sqrt(vectors.multiply(vectors).sum(axis=1)), 1e-9)
    right = wanted = 0
    for row in rows:
        cosines = (vectors @ vectors[[row]].T).toarray().ravel() / lengths / lengths[row]
        cosines[row] = 0
        bar = max(np.partition(cosines, -NEIGHBORS)[-NEIGHBORS], 1e-9)
        wanted += min(NEIGHBORS, int(np.count_nonzero(cosines >= bar)))
        right += int(np.count_nonzero(cosines[found[[row]].indices] >= bar * (1 - 1e-5)))
    return round(right / wanted, 4)


def texts(num_items: int) -> list[str]:
    rng = np.random.default_rng(0)
    vocabulary = int(12_000 * (num_items / 12_000) ** 0.6)
    words = zipf(rng, vocabulary, 8 * num_items, 1.0).reshape(num_items, 8)
    number = rng.integers(3, 9, num_items)
    brands = zipf(rng, vocabulary // 4, num_items, 0.8)
    leaf = zipf(rng, 500, num_items, 0.9)
    return [
        " ".join(f"w{word}" for word in words[n, : number[n]])
        + f" b{brands[n]} c{leaf[n]} d{leaf[n] % 60} e{leaf[n] % 12} f{leaf[n] % 3 % 2}"
        for n in range(num_items)
    ]


def log(num_items: int) -> TrainingLog:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(2.5, 1.0, 2 * num_items), 2, 2000).astype(np.int64)
    items = (zipf(rng, num_items, int(lengths.sum()), 0.8) + 1).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    zeros, ones = np.zeros(len(items), np.int64), np.ones(len(items), np.float32)
    return TrainingLog(items, offsets, zeros, ones, num_items, order_numbers=True)


def zipf(rng: np.random.Generator, kinds: int, number: int, power: float) -> np.ndarray:
    """Numbers from 0, the n-th of which is drawn in proportion to (n + 1) to the minus `power`."""
    shares = np.cumsum(np.arange(1, kinds + 1) ** -power)
    return np.searchsorted(shares / shares[-1], rng.random(number))


if __name__ == "__main__":
    main()
