"""A few users for a person to look at: what they bought, what is recommended, what they bought next."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ray_app.config import Config
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import COLUMNS, Histories, Ragged
from ray_app.metrics import top_k
from ray_app.schema import PAD, Col
from ray_app.storage import Storage
from ray_app.tasks.recommend import questions
from ray_app.tasks.scorer import load_scorer

NUM_BOUGHT, NUM_RECOMMENDED = 8, 5
UNKNOWN_ITEM = "(an item outside the catalogue)"
LONGEST_NAME = 100
"""Characters: catalogues have titles of a page's length, which would bury the rest of a report."""


@dataclass(frozen=True)
class Example:
    """One user at the start of the test part; items by name."""

    user: str
    bought: list[str]
    """The last of the history, latest first."""
    recommended: list[str]
    found: list[bool]
    """Beside `recommended`: whether it is what was bought next."""
    bought_next: list[str]


def pick_examples(storage: Storage, dataset: Dataset, model_uri: str, config: Config, count: int = 5) -> list[Example]:
    """Users with a history and something to find, drawn at random with the seed of the configuration.

    They come from the first parts, as many as have enough of them, and not from those that the model served well.
    """
    exclude_seen = config.evaluate.exclude_seen
    tables: list[pa.Table] = []
    for uri in dataset.part_uris:
        table = storage.read_table(uri, COLUMNS)
        users, known, _ = questions(Histories.from_tables([table]), "test", exclude_seen)
        tables.append(table.take(users[known.lengths >= min(3, int(known.lengths.max(initial=0)))]))
        if sum(map(len, tables)) >= count:
            break
    histories = Histories.from_tables(tables)
    chosen = np.sort(np.random.default_rng(config.train.seed).permutation(len(histories))[:count])
    users, known, targets = questions(histories, "test", exclude_seen)
    known, targets = known.take(chosen), targets.take(chosen)
    scores = load_scorer(storage, dataset, model_uri, config).scores(known)
    lists = top_k(scores, NUM_RECOMMENDED, known if exclude_seen else None)[0]
    names = item_names(dataset.items())
    return [
        _example(str(histories.user_ids[int(user)]), _row(known, n), lists[n], _row(targets, n), names)
        for n, user in enumerate(users[chosen])
    ]


def item_names(items: pa.Table) -> list[str]:
    """By item index: the title, or else category, brand and id, as far as they are known; cut where it is very long."""
    names = [UNKNOWN_ITEM]
    columns = (items[name].to_pylist() for name in (Col.ITEM, Col.TITLE, Col.CATEGORY, Col.BRAND))
    for item, title, category, brand in zip(*columns, strict=True):
        name = title or " · ".join(str(part) for part in (category, brand, item) if part is not None)
        names.append(name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1].rstrip() + "…")
    return names


def _row(lists: Ragged, number: int) -> list[int]:
    values: list[int] = lists.values[lists.offsets[number] : lists.offsets[number + 1]].tolist()
    return values


def _example(user: str, known: list[int], listed: np.ndarray, targets: list[int], names: list[str]) -> Example:
    recommended = [int(item) for item in listed if item != PAD]
    return Example(
        user,
        bought=[names[item] for item in known[: -NUM_BOUGHT - 1 : -1]],
        recommended=[names[item] for item in recommended],
        found=[item in targets for item in recommended],
        bought_next=[names[item] for item in targets],
    )
