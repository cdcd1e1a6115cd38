"""The hybrid on a small prepared log: fitted, published, loaded, evaluated."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ray_app.baselines import read_log, read_whole_log
from ray_app.checkpoint import MANIFEST_FILE, CheckpointError, fetched
from ray_app.config import Config, apply_overrides, parse_config
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data.sequences import COLUMNS, Histories
from ray_app.errors import DataError
from ray_app.evidence.memory import Memory
from ray_app.metrics import top_k
from ray_app.storage import Storage, join
from ray_app.tasks.hybrid import FACTS_FILE, MEMORY_FILE, RANKER_FILE, TODAY_FILE, HybridScorer, load_hybrid
from ray_app.tasks.hybrid_fit import fit_hybrid, hybrid_uri
from ray_app.tasks.predictions import best_items, predict
from ray_app.tasks.ranking import evaluate
from ray_app.tasks.recommend import questions
from ray_app.tasks.scorer import ModelScorer, load_scorer
from tests.tasks.conftest import write_log


@pytest.fixture(scope="module")
def config(small_config: Config) -> Config:
    return apply_overrides(small_config, ["ranker={max_trees: 20, min_leaf: 5}", "evaluate.exclude_seen=false"])


@pytest.fixture(scope="module")
def hybrid(small_dataset: Dataset, small_models: dict[str, str], config: Config) -> str:
    facts = fit_hybrid(small_dataset, small_models["fine-tuned"], config)
    assert facts["users"] >= 50
    assert sum(facts["importance"].values()) == pytest.approx(1)
    return hybrid_uri(small_dataset, small_models["fine-tuned"], config)


def asked(dataset: Dataset):
    tables = [dataset.storage.read_table(uri, COLUMNS) for uri in dataset.part_uris]
    return questions(Histories.from_tables(tables), "test", False)[1]


def test_candidates_stand_before_all_others(
    small_dataset: Dataset, small_models: dict[str, str], hybrid: str, config: Config
):
    histories = asked(small_dataset)
    storage = small_dataset.storage
    alone = load_scorer(storage, small_dataset, small_models["fine-tuned"], config)
    both = load_scorer(storage, small_dataset, hybrid, config)
    assert isinstance(alone, ModelScorer)
    assert isinstance(both, HybridScorer)
    before, after = alone.scores(histories), both.scores(histories)
    assert after.shape == before.shape
    moved = before[:, 1:] != after[:, 1:]
    assert moved.any()
    highest = before[:, 1:].max(axis=1, keepdims=True)
    assert (after[:, 1:][moved] > np.broadcast_to(highest, moved.shape)[moved]).all()
    assert np.isfinite(after[:, 1:]).all()
    assert not np.array_equal(top_k(before, 5)[0], top_k(after, 5)[0])


def test_the_second_time_it_is_found_and_a_new_setting_is_another(
    small_dataset: Dataset, small_models: dict[str, str], hybrid: str, config: Config
):
    path = Path(hybrid) / RANKER_FILE
    written = path.stat().st_mtime_ns
    fit_hybrid(small_dataset, small_models["fine-tuned"], config)
    assert path.stat().st_mtime_ns == written
    other = apply_overrides(config, ["ranker.max_trees=21"])
    assert hybrid_uri(small_dataset, small_models["fine-tuned"], other) != hybrid
    assert hybrid_uri(small_dataset, small_models["scratch"], config) != hybrid


def test_it_stands_in_the_table(small_dataset: Dataset, small_models: dict[str, str], hybrid: str, config: Config):
    methods = {"hybrid": hybrid, "fine-tuned": small_models["fine-tuned"]}
    metrics = evaluate(small_dataset.storage, small_dataset, methods, config)
    assert list(metrics["methods"])[:2] == ["hybrid", "fine-tuned"]
    assert metrics["methods"]["hybrid"]["fitted_on"].endswith("and taught the ranker")


def test_evaluation_counts_the_train_part_and_answers_the_whole_log(
    small_dataset: Dataset, hybrid: str, config: Config
):
    train, whole = read_log(small_dataset)[0], read_whole_log(small_dataset)
    assert len(whole.items) > len(train.items)
    with fetched(small_dataset.storage, hybrid) as folder:
        for today, log in ((False, train), (True, whole)):
            scorer = load_hybrid(folder, small_dataset, torch.device("cpu"), today=today)
            assert np.array_equal(scorer.memory.counts, log.popularity())
            fitted = Memory.fit(log, small_dataset.items())
            assert (scorer.memory.forward != fitted.forward).nnz == 0
        (folder / TODAY_FILE).unlink()
        load_hybrid(folder, small_dataset, torch.device("cpu"))
        with pytest.raises(CheckpointError, match="counted its train part alone; fit it again"):
            load_hybrid(folder, small_dataset, torch.device("cpu"), today=True)


def test_lists_of_before_the_test_part_know_the_train_part_and_those_of_today_all(
    small_dataset: Dataset, hybrid: str, config: Config, tmp_path: Path
):
    histories = Histories.from_tables(small_dataset.storage.read_table(u, COLUMNS) for u in small_dataset.part_uris)
    for history, known in (("before_test", histories.before("test")), ("all", histories.all_events())):
        asked = apply_overrides(config, [f"predict.history={history}", "predict.k=10"])
        predict(small_dataset.storage, small_dataset, hybrid, asked, str(tmp_path / history))
        scorer = load_scorer(small_dataset.storage, small_dataset, hybrid, config, today=history == "all")
        user, item, *_ = best_items(scorer, known, 10, exclude_seen=True)
        ids = small_dataset.items()["item_id"].to_pylist()
        table = pq.read_table(sorted((tmp_path / history).glob("part-*.parquet")))
        assert table["item_id"].to_pylist() == [ids[index - 1] for index in item]
        assert table["user_id"].to_pylist() == [histories.user_ids[int(row)].as_py() for row in user]


def test_it_is_refused_for_another_catalogue(small_config: Config, hybrid: str, config: Config, tmp_path: Path):
    write_log(tmp_path / "events.csv", seed=5)
    text = (tmp_path / "events.csv").read_text().replace(",100", ",900")
    (tmp_path / "events.csv").write_text(text)
    other = parse_config(
        {
            "storage": {"path": str(tmp_path / "storage")},
            "data": {"events": str(tmp_path / "events.csv"), "timestamp_unit": "s"},
        }
    )
    dataset = prepare(Storage.from_config(other.storage), other.name, other.data)
    with pytest.raises(CheckpointError, match="fitted to another catalogue"):
        load_scorer(dataset.storage, dataset, hybrid, config)


def test_a_damaged_memory_is_refused(small_dataset: Dataset, hybrid: str, config: Config, tmp_path: Path):
    storage = small_dataset.storage
    storage.download_folder(hybrid, str(tmp_path / "copy"))
    path = tmp_path / "copy" / MEMORY_FILE
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="its bytes differ"):
        load_scorer(storage, small_dataset, str(tmp_path / "copy"), config)
    assert storage.exists(join(hybrid, MANIFEST_FILE))


def test_the_limit_is_of_users_of_the_validation_part(
    small_dataset: Dataset, small_models: dict[str, str], hybrid: str, config: Config
):
    """Its share was taken of all users, most of whom have nothing in that part, and then again of those of it."""
    tables = [small_dataset.storage.read_table(uri, COLUMNS) for uri in small_dataset.part_uris]
    asked = len(questions(Histories.from_tables(tables), "validation", False)[0])
    assert asked < small_dataset.manifest.counts.users
    every = json.loads((Path(hybrid) / FACTS_FILE).read_text())
    enough = apply_overrides(config, [f"ranker.max_users={asked}"])
    assert fit_hybrid(small_dataset, small_models["fine-tuned"], enough)["users"] == every["users"]
    some = apply_overrides(config, [f"ranker.max_users={asked - 15}"])
    assert fit_hybrid(small_dataset, small_models["fine-tuned"], some)["users"] < every["users"]


def test_too_few_users_to_learn_from_are_told(small_dataset: Dataset, small_models: dict[str, str], config: Config):
    few = apply_overrides(config, ["ranker.max_users=10"])
    with pytest.raises(DataError, match="the ranker needs 50 users"):
        fit_hybrid(small_dataset, small_models["fine-tuned"], few)
