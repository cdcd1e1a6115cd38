import json
from pathlib import Path

import numpy as np
import pytest

from ray_app.checkpoint import CheckpointError
from ray_app.config import Config, StorageConfig, apply_overrides
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data.sequences import Ragged
from ray_app.errors import ConfigError, DataError
from ray_app.storage import Storage
from ray_app.tasks.ranking import evaluate, rank_batch


def ragged(*rows):
    return Ragged(np.array([x for row in rows for x in row], np.int32), np.cumsum([0, *map(len, rows)]))


class Counting:
    """Scores items 1, 2, 3 by 3, 2, 1 for everybody."""

    def scores(self, histories):
        return np.tile(np.array([-np.inf, 3, 2, 1], np.float32), (len(histories.lengths), 1))


def test_seen_items_leave_the_ranking_only_where_asked():
    known, targets = ragged([1], []), ragged([3], [1, 2])
    excluded, _ = rank_batch({"a": Counting()}, known, targets, exclude_seen=True)["a"]
    kept, lists = rank_batch({"a": Counting()}, known, targets, exclude_seen=False)["a"]
    assert excluded.tolist() == [2, 1, 2]
    assert kept.tolist() == [3, 1, 2]
    assert lists[:, :4].tolist() == [[1, 2, 3, 0], [1, 2, 3, 0]]


@pytest.mark.cluster
def test_evaluation_states_its_protocol_and_repeats_itself(
    ray_cluster: None, small_dataset: Dataset, small_models: dict[str, str], small_config: Config
):
    one, two = (
        evaluate(small_dataset.storage, small_dataset, small_models, small_config.model_copy(update={"train": train}))
        for train in (small_config.train, small_config.train.model_copy(update={"num_workers": 2}))
    )
    assert json.loads(json.dumps(one)) == two  # whatever the number of actors
    protocol = one["protocol"]
    assert protocol["split"] == "temporal"
    assert protocol["exclude_seen"] is True
    assert 0 < protocol["users"] <= protocol["targets"]
    assert protocol["items"] == small_dataset.num_items
    assert set(small_models) < set(one["methods"])
    assert one["methods"]["scratch"]["checkpoint"] == small_models["scratch"]
    assert one["methods"]["popular"]["fitted_on"] == "train part"
    assert "validation" in one["methods"]["transitions"]["fitted_on"]
    users = [one["slices"]["history"][n]["users"] for n in range(4)]
    assert sum(users) == protocol["users"]
    assert sum(part["targets"] for part in one["slices"]["train_count"][:4]) == protocol["targets"]


def test_a_damaged_checkpoint_is_named(
    small_dataset: Dataset, small_models: dict[str, str], small_config: Config, tmp_path: Path
):
    small_dataset.storage.download_folder(small_models["scratch"], tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/model\.safetensors: its bytes differ"):
        evaluate(small_dataset.storage, small_dataset, {"damaged": str(tmp_path)}, small_config)


def test_no_method_at_all_is_an_error(small_dataset: Dataset, small_config: Config):
    config = apply_overrides(small_config, ["evaluate.baselines=[]"])
    with pytest.raises(ConfigError, match=r"evaluate\.baselines: empty.*nothing to evaluate"):
        evaluate(small_dataset.storage, small_dataset, {}, config)


def test_nothing_to_ask_is_an_error(small_config: Config, tmp_path: Path):
    """Everybody buys the same again, and what was seen is excluded."""
    days = [f"user,item,{day * 86_400}" for day in range(60)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *days]))
    data = small_config.data.model_copy(update={"events": (str(tmp_path / "events.csv"),)})
    dataset = prepare(Storage.from_config(StorageConfig(path=str(tmp_path))), "same", data)
    with pytest.raises(DataError, match="no user has a new item in the test part"):
        evaluate(dataset.storage, dataset, {}, small_config)
