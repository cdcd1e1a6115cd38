"""Items without any train event in the hybrid: how often they are found, and what that costs the others, as JSON lines.

    python benchmarks/cold_hybrid.py --data FOLDER --config jobs/configs/amazon_beauty_hybrid.yaml [key=value ...]

Protocol, as in `cold_start.py`: a tenth of the items, drawn with seed 0, is taken out of the train part of every user,
so that neither the sequence model nor any count knows it. The ranker, which knows no item by name, is fitted on the
validation part as it is, where these items are sold first, as new items of a shop are: so it learns what a lack of
sales means. Asked is the usual leave-one-out question, full catalogue, seen items excluded, from the whole history: of
all users whose test item is held out, and of all others. Popularity is counted over the whole train part, so it knows
sales of the held-out items, which no model here does. Beside the hybrid stand one whose ranker never sees a new item
and may not recommend one, which shows what their company costs the others, and the hybrid with a number added to the
scores of new items (`--offset`), which makes them compete less or more.

With `--apart` the ranker has a tenth of its own to learn from, validation does not ask for the tenth that test asks
for, and histories are read without what was taken out: a fifth of the catalogue is new at once, and nobody has bought
any of it before.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from cold_start import SEED, SHARE, without_cold
from hybrid import BATCH, CPU, described, fitted, training_log
from leave_one_out import load_sequences, read_items
from numpy.typing import NDArray
from train_plain import train_on

from ray_app.config import apply_overrides, load_config
from ray_app.data.sequences import Histories
from ray_app.evidence.memory import Memory
from ray_app.evidence.pairs import Pairs
from ray_app.evidence.ranker import Ranker
from ray_app.metrics import Scores, bootstrap_interval, hit_rate, ndcg, paired_difference, target_ranks
from ray_app.schema import Col
from ray_app.tasks.hybrid import Evidences, HybridScorer
from ray_app.tasks.hybrid_fit import FIRST, WANTED

OFFSETS = (-0.5, -0.25, 0.25, 0.5)
BARRED, HYBRID, POPULAR = "hybrid, new items not ranked", "hybrid", "popular"
METRICS = {"hit_rate@10": hit_rate, "ndcg@10": ndcg}


class Leaning:
    """A ranker that adds a number to the scores of new items."""

    def __init__(self, ranker: Ranker, offset: float) -> None:
        self._ranker, self._offset = ranker, offset

    def scores(self, features: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        """See `Ranker.scores`."""
        found: NDArray[np.float64] = self._ranker.scores(features) + self._offset * (features["popularity"] == 0)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--offset", type=float, action="append", help="added to the scores of new items")
    parser.add_argument("--apart", action="store_true", help="the ranker learns from a tenth of its own")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = apply_overrides(load_config(args.config, args.overrides), ["evaluate.exclude_seen=true"])
    table, num_items, counts = load_sequences(args.data)
    drawn = np.random.default_rng(SEED).permutation(num_items) + 1
    tenth, new, held_out = int(SHARE * num_items), np.zeros(num_items + 1, np.bool_), np.zeros(num_items + 1, np.bool_)
    new[drawn[: 2 * tenth if args.apart else tenth]] = held_out[drawn[:tenth]] = True

    train = without_cold(table, new)
    items = pa.table({Col.ITEM: np.arange(num_items), Col.TRAIN_COUNT: np.where(new[1:], 0, counts)})
    model = train_on(train, items, config).model
    memory = Memory.fit(training_log(Histories.from_tables([train]).train(), num_items), read_items(args.data, config))
    evidences = Evidences(model, memory, CPU, exclude_seen=True)

    as_asked = Histories.from_tables([without_cold(table, new, held_out) if args.apart else table])
    examples = described(evidences, as_asked, exclude=True)
    ranker = fitted(examples, (), config, 1)[0]
    without = fitted(of_known_items(examples), (), config, 1)[0]
    rankers = {HYBRID: Leaning(ranker, 0.0)}
    rankers |= {f"hybrid, {offset:+g}": Leaning(ranker, offset) for offset in args.offset or OFFSETS}

    popularity = np.concatenate([[0], counts]).astype(np.float32)
    ranks: dict[str, list[NDArray[np.int64]]] = {}
    histories, wanted = as_asked.before("test"), Histories.from_tables([table]).targets("test")
    for start in range(0, len(wanted.lengths), BATCH):
        stop = min(start + BATCH, len(wanted.lengths))
        known, targets = histories.slice(start, stop), wanted.slice(start, stop)
        of_model, pairs, features = evidences.describe(known)
        of_model[:, new] = of_model.min(axis=1, keepdims=True) - 1  # of them the model of ids knows nothing
        given = {POPULAR: np.tile(popularity, (len(known.lengths), 1))}
        given |= {name: scored(evidences, one, of_model, pairs, features) for name, one in rankers.items()}
        kept = ~new[pairs.items]
        some = Pairs(pairs.users[kept], pairs.items[kept])
        of_some = {name: column[kept] for name, column in features.items()}
        given[BARRED] = np.where(new, -np.inf, scored(evidences, without, of_model, some, of_some))
        for name, scores in given.items():
            ranks.setdefault(name, []).append(target_ranks(scores, targets, known)[0])
    slices = {"held-out items": held_out[wanted.values], "other items": ~new[wanted.values]}  # one target per user
    report({name: np.concatenate(found) for name, found in ranks.items()}, slices)


def of_known_items(examples: pa.Table) -> pa.Table:
    """Without candidates that have no train events, and without users who took one."""
    known = examples.filter(pc.greater(examples["popularity"], 0))
    user = np.cumsum(examples[FIRST].to_numpy())[examples["popularity"].to_numpy() > 0]
    taught = np.bincount(user, known[WANTED].to_numpy())[user] > 0
    known, user = known.filter(pa.array(taught)), user[taught]
    first = np.append(True, user[1:] != user[:-1])
    return known.set_column(known.schema.get_field_index(FIRST), FIRST, pa.array(first))


def scored(
    evidences: Evidences,
    ranker: Ranker | Leaning,
    of_model: Scores,
    pairs: Pairs,
    features: dict[str, NDArray[np.float32]],
) -> Scores:
    return HybridScorer(evidences, ranker).ordered(of_model.copy(), pairs, features)  # type: ignore[arg-type]


def report(ranks: dict[str, NDArray[np.int64]], slices: dict[str, NDArray[np.bool_]]) -> None:
    """A line for each method and slice: means with intervals, and the difference to new items not ranked."""
    for method, found in ranks.items():
        for name, users in slices.items():
            line: dict[str, object] = {"method": method, "slice": name, "users": int(users.sum())}
            for metric, function in METRICS.items():
                values, reference = (of(one[users], function) for one in (found, ranks[BARRED]))
                low, high = bootstrap_interval(values, 1000, SEED)
                line[metric] = [round(float(value), 4) for value in (values.mean(), low, high)]
                if name == "other items":
                    difference = paired_difference(values, reference, 1000, SEED)
                    line[f"{metric}, of {BARRED}"] = [round(value / reference.mean(), 4) for value in difference]
            print(json.dumps(line), flush=True)


def of(ranks: NDArray[np.int64], function: object) -> NDArray[np.float64]:
    """A number per user, who has one target."""
    assert callable(function)
    found: NDArray[np.float64] = function((ranks, np.arange(len(ranks) + 1)), 10)
    return found


if __name__ == "__main__":
    main()
