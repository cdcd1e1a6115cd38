import numpy as np
import pyarrow as pa
import pytest

from ray_app.config import Config
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import Histories
from ray_app.schema import items_schema
from ray_app.tasks.examples import UNKNOWN_ITEM, item_names, pick_examples
from ray_app.tasks.recommend import questions


def test_items_are_called_by_their_title_or_what_else_is_known():
    rows = [
        {"item_index": 1, "item_id": 7, "train_count": 0, "title": "Milk", "brand": "Alp"},
        {"item_index": 2, "item_id": 8, "train_count": 0, "brand": "Alp", "category": "Dairy"},
        {"item_index": 3, "item_id": 9, "train_count": 0},
    ]
    items = pa.Table.from_pylist(rows, schema=items_schema(pa.int64()))
    assert item_names(items) == [UNKNOWN_ITEM, "Milk", "Dairy · Alp · 8", "9"]


@pytest.mark.parametrize(
    ("title", "name"), [("ab " * 33, "ab " * 33), ("ab " * 34, "ab " * 32 + "ab…"), ("洗" * 200, "洗" * 99 + "…")]
)
def test_a_title_of_a_page_is_cut(title: str, name: str):
    items = pa.Table.from_pylist(
        [{"item_index": 1, "item_id": 7, "train_count": 0, "title": title}], schema=items_schema(pa.int64())
    )
    assert item_names(items) == [UNKNOWN_ITEM, name]


@pytest.mark.parametrize("count", [5, 1000])
def test_examples_are_users_with_something_to_find(
    small_dataset: Dataset, small_models: dict[str, str], small_config: Config, count: int
):
    """More than there are gives those that there are, of all parts: it was those of the last part alone."""
    one, two = (
        pick_examples(small_dataset.storage, small_dataset, small_models["scratch"], small_config, count)
        for _ in range(2)
    )
    assert one == two
    parts = [Histories.from_tables([small_dataset.storage.read_table(uri)]) for uri in small_dataset.part_uris]
    lengths = [questions(part, "test", small_config.evaluate.exclude_seen)[1].lengths for part in parts]
    assert all(of_part.max() >= 3 for of_part in lengths)
    assert len(one) == min(count, sum(int(np.count_nonzero(of_part >= 3)) for of_part in lengths))
    assert len({example.user for example in one}) == len(one)
    for example in one:
        assert example.bought_next
        assert 3 <= len(example.bought) <= 8
        assert len(example.recommended) == len(example.found) == 5
        assert not set(example.bought) & set(example.recommended)
        hits = [name in example.bought_next for name in example.recommended]
        assert example.found == hits
