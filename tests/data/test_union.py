"""Several source logs as one: nobody's items or users are mixed up, and weights follow the temperature."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ray_app.config import StorageConfig
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data.sequences import Histories
from ray_app.data.union import Shift, shifted, unite
from ray_app.data_config import DataConfig
from ray_app.errors import DataError
from ray_app.schema import items_schema, sequences_schema
from ray_app.storage import Storage, join
from ray_app.train_config import TrainConfig


def test_a_part_is_moved_behind_the_items_before_it():
    columns = [["u"], [[1, 0, 2]], [[5, 6, 7]], [[1.0, 1.0, 2.0]], [[0, 1, 2]], [1], [1]]
    table = pa.table(columns, schema=sequences_schema(pa.string()))
    found = shifted(table, Shift("part", 3, 10, 0.5)).to_pylist()[0]
    assert (found["user_id"], found["items"], found["weights"]) == ("3/u", [11, 0, 12], [0.5, 0.5, 1.0])
    assert found["times"] == [5, 6, 7]


def log(folder: Path, name: str, users: int, kind: str = "leave_one_out") -> Dataset:
    """Items 0 to 5 in every log, users 0, 1, ...; each has an order of its own."""
    rng = np.random.default_rng(users)
    rows = [(user, item, place) for user in range(users) for place, item in enumerate(rng.permutation(6))]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(folder / f"{name}.csv", index=False)
    split = {"kind": kind}
    if kind == "temporal":
        split |= {"validation_start": "1970-01-01T00:00:03", "test_start": "1970-01-01T00:00:05"}
    unit = "order" if kind == "leave_one_out" else "s"
    settings = {"events": str(folder / f"{name}.csv"), "timestamp_unit": unit, "split": split}
    storage = Storage.from_config(StorageConfig(path=str(folder / "storage")))
    return prepare(storage, "shop", DataConfig.model_validate(settings))


def readable(dataset: Dataset) -> dict[str, list[str]]:
    """By user the ids of all items."""
    ids = [None, *dataset.items()["item_id"].to_pylist()]
    tables = [dataset.storage.read_table(uri).to_pylist() for uri in dataset.part_uris]
    return {str(row["user_id"]): [str(ids[item]) for item in row["items"]] for table in tables for row in table}


def test_users_keep_their_histories_and_small_sources_are_heard(tmp_path: Path):
    small, large = log(tmp_path, "small", 5), log(tmp_path, "large", 20)
    both = unite("shop", [small, large], 2.0, TrainConfig())
    expected = {f"0/{user}": [f"0/{item}" for item in items] for user, items in readable(small).items()}
    expected |= {f"1/{user}": [f"1/{item}" for item in items] for user, items in readable(large).items()}
    assert readable(both) == expected
    items = both.items()
    assert items["item_index"].to_pylist() == list(range(1, 13))
    histories = Histories.from_tables([both.storage.read_table(uri) for uri in both.part_uris])
    assert np.bincount(histories.train().values, minlength=13)[1:].tolist() == items["train_count"].to_pylist()
    of_small = np.array([str(user).startswith("0/") for user in histories.user_ids.to_pylist()])
    weights = histories.weights.reshape(25, 6).sum(1)
    assert weights[~of_small].sum() / weights[of_small].sum() == pytest.approx(2)  # 4 at temperature 1
    assert weights.sum() == pytest.approx(150)
    assert both.manifest.counts.train_events == small.manifest.counts.train_events * 5
    assert unite("shop", [small, large], 2.0, TrainConfig()) == both
    assert unite("shop", [small], 2.0, TrainConfig()) is small
    with pytest.raises(DataError, match="split in different ways"):
        unite("shop", [small, log(tmp_path, "other", 5, "temporal")], 2.0, TrainConfig())


def test_a_source_of_an_earlier_version_has_no_pictures(tmp_path: Path):
    """Its items had no such column, and could not stand beside others."""
    old, new = log(tmp_path, "old", 5), log(tmp_path, "new", 6)
    old.storage.write_table(join(old.uri, "items.parquet"), old.items().drop_columns(["image"]))
    assert old.items().schema.names == new.items().schema.names == items_schema(pa.int64()).names
    assert unite("shop", [old, new], 1.0, TrainConfig()).items()["image"].null_count == 12
