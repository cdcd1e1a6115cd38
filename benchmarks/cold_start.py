"""Items and users that training hardly knows, or not at all, on a public log without Ray, as JSON lines.

    python benchmarks/cold_start.py --data FOLDER --config jobs/configs/amazon_beauty_content.yaml --vectors FILE.npy \
        [content.text=hf:FOLDER] [key=value ...]

Protocol: 10% of the items, drawn with seed 0, are taken out of the train part of every user (and out of validation) and
so have no train events. Asked is the usual leave-one-out question, full catalogue, seen items excluded, from the whole
history before the test event: of all users whose test item is one of the 10% ("cold"), and of a sample of the others
("warm"); of these again with the last 0, 1, 2, 3 events of their history alone. Popularity is counted over the whole
train part, so it knows of cold items what no model here does. The same model of ids alone stands beside, and the model
with content where cold items may not be recommended, which shows what their company costs the warm ones.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from leave_one_out import load_sequences, read_content
from train_plain import train_on

from ray_app.config import Config, load_config
from ray_app.data.sequences import Histories, Ragged
from ray_app.metrics import Scores, bootstrap_interval, hit_rate, ndcg, target_ranks
from ray_app.models.sequence import SequenceModel
from ray_app.schema import PAD, Col
from ray_app.tasks.recommend import questions, score

SHARE, SEED, BATCH = 0.1, 0, 256
LAST_WEIGHTS = (1.0, 0.4, 0.15)
"""Of the last, second-last and third-last item in content-kNN, as in the untrained graph with text."""
Score = Callable[[Ragged], Scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--warm-users", type=int, default=5000)
    parser.add_argument("--lent-length", type=float, action="append", help="values of model.lent_length to compare")
    parser.add_argument("--ids", action="store_true", help="also train the model of ids alone")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(args.config, args.overrides)
    content = read_content(args.data, config, args.vectors)
    table, num_items, counts = load_sequences(args.data)
    cold = np.zeros(num_items + 1, np.bool_)
    cold[np.random.default_rng(SEED).permutation(num_items)[: int(SHARE * num_items)] + 1] = True
    lines = asked(Histories.from_tables([table]), cold, args.warm_users)
    popularity = np.concatenate([[0], counts]).astype(np.float32)
    scorers: dict[str, Score] = {
        "popular": lambda known: np.tile(popularity, (len(known.lengths), 1)),
        "content-kNN": content_knn(content, popularity),
    }
    seen = without_cold(table, cold)
    items = pa.table({Col.ITEM: np.arange(num_items), Col.TRAIN_COUNT: np.where(cold[1:], 0, counts)})
    if args.ids:
        scorers["ids alone"] = scorer(train_on(seen, items, ids_alone(config)).model)
    model = train_on(seen, items, config, content=content).model
    scorers["content, nothing lent"] = scorer(model)
    report(scorers, lines)
    for length in args.lent_length or (1.0, 1.25):
        model.lent_length = length
        model.introduce(torch.from_numpy(np.flatnonzero(cold)))
        complete = scorer(model)
        report({f"content, lent length {length}": complete}, lines)
    report({"content, cold items not ranked": barred(complete, cold)}, lines)


def ids_alone(config: Config) -> Config:
    """The same without content; its schedule has no groups for what is not there."""
    schedule = config.evaluate.scratch_schedule
    phases = tuple(phase.model_copy(update={"groups": phase.groups[-1:]}) for phase in schedule.phases)
    schedule = schedule.model_copy(update={"phases": phases})
    evaluate = config.evaluate.model_copy(update={"scratch_schedule": schedule})
    return config.model_copy(update={"content": None, "evaluate": evaluate})


def without_cold(table: pa.Table, cold: np.ndarray, unknown: np.ndarray | None = None) -> pa.Table:
    """The train part without events of cold items.

    What comes later of `unknown` items, or of all that are cold, is no item: histories do not hold it, and where
    validation asks for one nobody knows the answer.
    """
    histories = Histories.from_tables([table])
    user = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
    place = np.arange(len(user)) - histories.offsets[user]
    gone = cold[histories.items] & (place < histories.num_train[user])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user[~gone], minlength=len(histories)))]).astype(np.int32)
    columns = {
        Col.ITEMS: np.where((cold if unknown is None else unknown)[histories.items], PAD, histories.items),
        Col.TIMES: histories.times,
        Col.WEIGHTS: histories.weights,
        Col.ORDERS: histories.orders,
    }
    for name, values in columns.items():
        kind = table.schema.field(name).type.value_type
        lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[~gone], kind))
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), lists)
    left = histories.num_train - np.bincount(user[gone], minlength=len(histories))
    return table.set_column(
        table.schema.get_field_index(Col.NUM_TRAIN), table.schema.field(Col.NUM_TRAIN), pa.array(left, pa.int32())
    )


def asked(histories: Histories, cold: np.ndarray, warm_users: int) -> dict[str, tuple[Ragged, Ragged]]:
    """Histories and targets by name of the slice."""
    _, known, targets = questions(histories, "test", exclude_seen=True)
    is_cold = cold[targets.values]  # one target per user
    warm = np.sort(np.random.default_rng(SEED).permutation(np.flatnonzero(~is_cold))[:warm_users])
    slices = {"cold items": np.flatnonzero(is_cold), "warm items": warm}
    found = {name: (known.take(users), targets.take(users)) for name, users in slices.items()}
    some, wanted = found["warm items"]
    to_the_end = np.repeat(some.offsets[1:], some.lengths) - np.arange(len(some.values))
    return found | {f"warm items, last {n} events": (some.keep(to_the_end <= n), wanted) for n in range(4)}


def scorer(model: SequenceModel) -> Score:
    table = model.table().detach().clone()
    return lambda known: score(model, known, table)


def barred(of: Score, cold: np.ndarray) -> Score:
    return lambda known: np.where(cold, np.float32(-np.inf), of(known))


def content_knn(content: np.ndarray, popularity: np.ndarray) -> Score:
    """Cosine of texts to the last three items; what has none is ordered by popularity."""
    vectors = np.concatenate([np.zeros((1, content.shape[1]), np.float32), content.astype(np.float32)])

    def scores(known: Ragged) -> Scores:
        asking = np.zeros((len(known.lengths), vectors.shape[1]), np.float32)
        for distance, weight in enumerate(LAST_WEIGHTS, start=1):
            has = known.lengths >= distance
            asking[has] += weight * vectors[known.values[known.offsets[1:][has] - distance]]
        found: Scores = asking @ vectors.T + 1e-9 * popularity
        return found

    return scores


def report(scorers: dict[str, Score], lines: dict[str, tuple[Ragged, Ragged]]) -> None:
    for method, of in scorers.items():
        for name, (known, targets) in lines.items():
            ranks = []
            for start in range(0, len(known.lengths), BATCH):
                stop = min(start + BATCH, len(known.lengths))
                some = known.slice(start, stop)
                ranks.append(target_ranks(of(some), targets.slice(start, stop), some)[0])
            flat = np.concatenate(ranks)
            line: dict[str, object] = {"method": method, "slice": name, "users": len(flat)}
            for metric, function in (("hit_rate@10", hit_rate), ("ndcg@10", ndcg)):
                values = function((flat, np.arange(len(flat) + 1)), 10)
                low, high = bootstrap_interval(values, 1000, SEED)
                line[metric] = [round(float(value), 4) for value in (values.mean(), low, high)]
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
