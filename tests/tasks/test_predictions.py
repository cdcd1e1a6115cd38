from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from ray_app.config import Config, StorageConfig
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data.sequences import Histories, Ragged
from ray_app.errors import DataError
from ray_app.evaluate_config import PredictConfig
from ray_app.schema import predictions_schema
from ray_app.storage import Storage, join
from ray_app.tasks.predictions import best_items, predict, predictions_uri, rounds
from ray_app.tasks.ranking import evaluate
from ray_app.tasks.recommend import questions


def histories() -> Histories:
    """Four users: two with a test event, one with none, one with nothing before it."""
    return Histories(
        user_ids=pa.array(["a", "b", "c", "d"]),
        items=np.array([1, 2, 3, 1, 2, 4, 4], np.int32),
        times=np.arange(7),
        weights=np.ones(7, np.float32),
        orders=np.array([0, 1, 2, 0, 0, 1, 0], np.int32),
        offsets=np.array([0, 3, 4, 6, 7]),
        num_train=np.array([2, 1, 1, 0]),
        num_validation=np.array([0, 0, 0, 0]),
    )


def with_predict(config: Config, **settings: object) -> Config:
    return config.model_copy(update={"predict": PredictConfig.model_validate(settings)})


def test_rounds_cover_everyone_once_and_begin_as_evaluation_does():
    config = with_predict(Config(), history="before_test")
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"batch_users": 2})})
    found = list(rounds(histories(), config))
    assert [users.tolist() for users, _ in found] == [[0, 2], [3], [1]]
    asked, known, _ = questions(histories(), "test", exclude_seen=True)
    assert np.concatenate([users for users, _ in found])[: len(asked)].tolist() == asked.tolist()
    assert found[0][1].values.tolist() == known.slice(0, 2).values.tolist() == [1, 2, 2]
    assert found[1][1].lengths.tolist() == [0]


def test_rounds_over_all_events_know_the_test_part_too():
    found = list(rounds(histories(), with_predict(Config(), history="all")))
    assert [(users.tolist(), known.lengths.tolist()) for users, known in found] == [([0, 1, 2, 3], [3, 1, 2, 1])]


def test_a_list_ends_where_the_catalogue_does():
    class Scorer:
        def scores(self, histories):
            return np.array([[-np.inf, 0.5, 0.9, 0.1]] * 2, np.float32)

    known = Ragged(np.array([2], np.int32), np.array([0, 1, 1]))
    user, item, rank, score = best_items(Scorer(), known, k=10, exclude_seen=True)
    assert user.tolist() == [0, 0, 1, 1, 1]
    assert item.tolist() == [1, 3, 2, 1, 3]
    assert rank.tolist() == [1, 2, 1, 2, 3]
    assert score.tolist() == pytest.approx([0.5, 0.1, 0.9, 0.5, 0.1])


def test_with_diversity_a_list_takes_what_is_unlike_it_from_further_down():
    class Scorer:
        def scores(self, histories):
            return np.array([[-np.inf, 0.9, 0.8, 0.1, 0.0]], np.float32)

    known = Ragged(np.zeros(0, np.int32), np.array([0, 0]))
    vectors = np.array([[0, 0], [1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    plain = best_items(Scorer(), known, k=2, exclude_seen=True)
    diverse = best_items(Scorer(), known, k=2, exclude_seen=True, vectors=vectors, diversity=0.6)
    assert (plain[1].tolist(), diverse[1].tolist()) == ([1, 2], [1, 3])
    assert diverse[2].tolist() == [1, 2]
    assert diverse[3].tolist() == pytest.approx([0.9, 0.1])


class Predicted(NamedTuple):
    """A finished folder, and what it was made from."""

    config: Config
    dataset: Dataset
    model: str
    uri: str
    manifest: dict


@pytest.fixture(scope="module", params=["seen excluded", "seen kept"])
def predicted(
    request: pytest.FixtureRequest, small_dataset: Dataset, small_models: dict[str, str], small_config: Config
) -> Predicted:
    excluded = request.param == "seen excluded"
    config = with_predict(small_config, k=20, history="before_test", exclude_seen=excluded)
    evaluation = config.evaluate.model_copy(update={"exclude_seen": excluded, "baselines": ()})
    config = config.model_copy(update={"evaluate": evaluation})
    model = small_models["fine-tuned"]
    uri = predictions_uri(small_dataset.storage, small_dataset, model, config)
    manifest = predict(small_dataset.storage, small_dataset, model, config, uri)
    return Predicted(config, small_dataset, model, uri, manifest)


def ndcg_at_10(log: pd.DataFrame, listed: pd.DataFrame, cutoff: float, exclude_seen: bool) -> pd.Series:
    """By user, from the raw log and the lists, with nothing of ours."""
    before, test = log[log.timestamp < cutoff], log[log.timestamp >= cutoff]
    test = test[test.timestamp == test.groupby("user_id").timestamp.transform("min")]
    test = test[["user_id", "item_id"]].drop_duplicates()
    if exclude_seen:
        seen = before[["user_id", "item_id"]].drop_duplicates()
        test = test.merge(seen, how="left", indicator=True).query("_merge == 'left_only'")
    hits = test.merge(listed[listed["rank"] <= 10], how="left", on=["user_id", "item_id"])
    gain = (1 / np.log2(hits["rank"] + 1)).fillna(0).groupby(hits.user_id).sum()
    ideal = test.groupby("user_id").size().map(lambda n: sum(1 / np.log2(np.arange(2, min(n, 10) + 2))))
    return gain / ideal


def test_anyone_can_score_the_lists_and_gets_the_numbers_of_the_evaluation(predicted: Predicted):
    config, dataset, model, uri, manifest = predicted
    results = evaluate(dataset.storage, dataset, {"fine-tuned": model}, config)
    log = pd.read_csv(config.data.events[0]).drop_duplicates()
    listed = ds.dataset(uri, exclude_invalid_files=True).to_table().to_pandas()
    assert dataset.manifest.cutoffs.test_start is not None
    cutoff = dataset.manifest.cutoffs.test_start / 1e6
    ndcg = ndcg_at_10(log, listed, cutoff, config.predict.exclude_seen)
    assert len(ndcg) == results["protocol"]["users"]
    assert ndcg.mean() == pytest.approx(results["metrics"]["fine-tuned"]["ndcg@10"]["mean"], abs=1e-12)

    before = log[log.timestamp < cutoff]
    assert set(listed.user_id) == set(log.user_id)  # new users too
    assert manifest["users"] == log.user_id.nunique() > len(ndcg)
    assert manifest["users_without_history"] == log.user_id.nunique() - before.user_id.nunique() > 0
    assert manifest["rows"] == len(listed)
    assert listed.merge(before, on=["user_id", "item_id"]).empty == config.predict.exclude_seen


def test_finished_predictions_are_found_and_never_mixed_with_others(predicted: Predicted, small_models: dict[str, str]):
    config, dataset, model, uri, manifest = predicted
    files = dataset.storage.list_files(uri)
    assert predict(dataset.storage, dataset, model, config, uri) == manifest
    assert dataset.storage.list_files(uri) == files
    schema = dataset.storage.read_table(join(uri, manifest["parts"][0]["path"])).schema
    assert schema.equals(predictions_schema(pa.string(), pa.int64()))
    other = small_models["scratch"]
    assert predictions_uri(dataset.storage, dataset, other, config) != uri
    with pytest.raises(DataError, match="another model"):
        predict(dataset.storage, dataset, other, config, uri)
    with pytest.raises(DataError, match="name another folder"):
        predict(dataset.storage, dataset, model, config, dataset.uri)


@pytest.mark.parametrize("history", ["all", "before_test"])
def test_a_log_of_fewer_users_than_parts(
    small_models: dict[str, str], small_config: Config, tmp_path: Path, history: str
):
    """Parts without users ended in a traceback."""
    rows = [f"u{user},{1000 + user + day},{day * 86_400}" for user in range(3) for day in range(0, 60, 6)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    storage = Storage.from_config(StorageConfig(path=str(tmp_path)))
    data = small_config.data.model_copy(update={"events": (str(tmp_path / "events.csv"),)})
    dataset = prepare(storage, "few", data)
    assert 0 in [part.users for part in dataset.manifest.parts]
    config = with_predict(small_config, k=4, history=history)
    manifest = predict(storage, dataset, small_models["scratch"], config, str(tmp_path / "lists"))
    listed = ds.dataset(tmp_path / "lists", exclude_invalid_files=True).to_table()
    assert (manifest["users"], manifest["rows"], len(listed)) == (3, 12, 12)
