"""Next basket: what a household puts into its next order, by habit, popularity and models; one line each, as JSON.

    python benchmarks/next_basket.py --dataset FOLDER --model fine-tuned=FOLDER [--model NAME=FOLDER ...] [--k 10]

FOLDER are those that the jobs wrote (`.../datasets/...`, `.../finetune/...`); no Ray is needed. Protocol:
- the split is by time: counts and models know what lies before the validation part, histories end where the test part
  begins (2017-12-04 in the demo), and nothing after it is seen;
- the question is each household's first order in the test part, as a set of distinct products; households without a
  history are left out, and products that the catalogue did not know count as missed;
- recall@k is the share of that set among the k best products of the whole catalogue, the mean over households (Li et
  al., 2023, arXiv 2109.14233, who leave out households of fewer than three baskets: `--baskets`);
- the baselines: popular, and personal frequency filled up with what is popular (their GP-TopFreq).
Differences are paired over households, with 95% bootstrap intervals.
"""

import argparse
import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ray_app.baselines import fit_baselines
from ray_app.config import Config, StorageConfig
from ray_app.data.dataset import Dataset, open_dataset
from ray_app.data.sequences import COLUMNS, Histories
from ray_app.metrics import ndcg, paired_difference, recall, target_ranks
from ray_app.storage import Storage
from ray_app.tasks.recommend import questions
from ray_app.tasks.scorer import Scorer, load_scorer

BASELINES = ("personal_frequency", "popular")
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=URI")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--baskets", type=int, default=1, help="least number of orders before the test part")
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    args = parser.parse_args()
    storage, config = Storage.from_config(StorageConfig()), Config()
    dataset = open_dataset(storage, args.dataset)
    scorers: dict[str, Scorer] = dict(fit_baselines(BASELINES, dataset))
    for name, uri in (text.split("=", 1) for text in args.model):
        scorers[name] = load_scorer(storage, dataset, uri, config)
    found = measured(dataset, scorers, args.part, args.k, args.baskets)
    habit = found[BASELINES[0]]["recall"]
    for name, values in found.items():
        line = {"method": name, "households": len(habit)}
        line |= {f"{metric}@{args.k}": round(float(of.mean()), 5) for metric, of in values.items()}
        if name != BASELINES[0]:
            mean, low, high = paired_difference(values["recall"], habit, 1000, seed=0)
            line |= {"minus habit": [round(x, 5) for x in (mean, low, high)], "of it": round(mean / habit.mean(), 4)}
        print(json.dumps(line), flush=True)


def measured(
    dataset: Dataset, scorers: dict[str, Scorer], part: str, k: int, baskets: int
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """By method and metric the value of each household."""
    parts: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {name: [] for name in scorers}
    for histories in read_parts(dataset):
        users, known, targets = questions(histories, part, exclude_seen=False)
        chosen = np.flatnonzero((known.lengths > 0) & (orders_before(histories, part)[users] >= baskets))
        known, targets = known.take(chosen), targets.take(chosen)
        for start in range(0, len(chosen), BATCH):
            stop = min(start + BATCH, len(chosen))
            for name, scorer in scorers.items():
                ranks = target_ranks(scorer.scores(known.slice(start, stop)), targets.slice(start, stop))
                parts[name].append((recall(ranks, k), ndcg(ranks, k)))
    return {
        name: dict(zip(("recall", "ndcg"), map(np.concatenate, zip(*values, strict=True)), strict=True))
        for name, values in parts.items()
    }


def read_parts(dataset: Dataset) -> Iterator[Histories]:
    for uri in dataset.part_uris:
        yield Histories.from_tables([dataset.storage.read_table(uri, COLUMNS)])


def orders_before(histories: Histories, part: str) -> NDArray[np.int64]:
    """Orders of each household before `part` began."""
    length = histories.num_train + (histories.num_validation if part == "test" else 0)
    last = np.maximum(histories.offsets[:-1] + length - 1, 0)
    return np.where(length > 0, histories.orders[np.minimum(last, len(histories.orders) - 1)] + 1, 0)


if __name__ == "__main__":
    main()
