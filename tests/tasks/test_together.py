from itertools import permutations

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest

from ray_app.config import Config, StorageConfig
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.errors import DataError
from ray_app.evaluate_config import PredictConfig
from ray_app.schema import together_schema
from ray_app.storage import Storage
from ray_app.tasks import together
from ray_app.tasks.together import together_uri, write_together


@pytest.fixture(scope="module")
def baskets(small_config: Config, tmp_path_factory: pytest.TempPathFactory):
    """A log of 400 orders, in which item 3 of ten goes with item 4; the same as a prepared dataset."""
    rng = np.random.default_rng(0)
    lines = []
    for order in range(400):
        items = set(rng.integers(0, 10, rng.integers(1, 5)).tolist())
        items |= {4} if 3 in items else set()
        lines += [(f"u{order % 40}", f"i{item}", 1_600_000_000 + order * 43_200, f"o{order}") for item in sorted(items)]
    log = pd.DataFrame(lines, columns=["user_id", "item_id", "timestamp", "order_id"])
    folder = tmp_path_factory.mktemp("baskets")
    log.to_csv(folder / "events.csv", index=False)
    data = small_config.data.model_copy(update={"events": (str(folder / "events.csv"),)})
    return log, prepare(Storage.from_config(StorageConfig(path=str(folder))), "baskets", data)


def asked(config: Config, **settings: object) -> Config:
    return config.model_copy(update={"predict": PredictConfig.model_validate(settings)})


@pytest.mark.cluster
def test_pairs_counted_by_hand_from_the_raw_log_in_one_block_or_many(
    ray_cluster: None, baskets: tuple[pd.DataFrame, Dataset], small_config: Config, monkeypatch: pytest.MonkeyPatch
):
    log, dataset = baskets
    monkeypatch.setattr(together, "PAIRS_AT_ONCE", 300)
    config = asked(small_config, k=3)
    manifest = write_together(dataset, config)
    assert len(manifest["parts"]) > 3
    found = ds.dataset(together_uri(dataset, config), exclude_invalid_files=True).to_table()
    assert found.schema.equals(together_schema(dataset.item_type))
    orders = [set(items) for _, items in log.groupby("order_id").item_id]
    assert (manifest["orders"], manifest["rows"]) == (len(orders), len(found))
    held = log.drop_duplicates(["order_id", "item_id"]).item_id.value_counts()
    pairs = pd.Series([pair for items in orders for pair in permutations(sorted(items), 2)]).value_counts()
    for row in found.to_pylist():
        item, partner = row["item_id"], row["partner_id"]
        assert row["orders"] == pairs[item, partner] >= 5
        assert row["lift"] == pytest.approx((pairs[item, partner] + 0.5) / (held[item] * held[partner] / 400 + 0.5))
    best = {row["item_id"]: row["partner_id"] for row in found.to_pylist() if row["rank"] == 1}
    assert (best["i3"], best["i4"], len(best)) == ("i4", "i3", 10)
    files = dataset.storage.list_files(together_uri(dataset, config))
    assert write_together(dataset, config) == manifest
    assert dataset.storage.list_files(together_uri(dataset, config)) == files


def test_a_log_of_single_items_says_so(small_dataset: Dataset, small_config: Config):
    with pytest.raises(DataError, match=r"data\.columns\.order_id.*predict\.together_orders"):
        write_together(small_dataset, asked(small_config, together_orders=1000))
