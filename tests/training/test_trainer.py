"""Ray Train around the loop: the numbers of the plain loop, after a loss too. Of two workers: test_distributed.py."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from plain_loop import plain
from processes import kill_descendants
from torch import Tensor

from ray_app import checkpoint
from ray_app.config import Config, apply_overrides, parse_config
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.errors import TrainingError
from ray_app.schedule import START
from ray_app.storage import Storage
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.trainer import build_trainer


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which each item is followed by the next one, four times out of five."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("log")
    users, items = [], []
    for user in range(300):
        item = int(rng.integers(40))
        for _ in range(int(rng.integers(3, 14))):
            users.append(user)
            items.append(item)
            item = (item + 1) % 40 if rng.random() < 0.8 else int(rng.integers(40))
    table = pa.table({"user_id": users, "item_id": items, "timestamp": list(range(len(users)))})
    pq.write_table(table, folder / "events.parquet")
    return folder


def settings(log: Path, storage: Storage, **train: object) -> Config:
    return parse_config(
        {
            "name": "t",
            "storage": {"path": storage.path},
            "data": {
                "events": str(log),
                "timestamp_unit": "order",
                "split": {"kind": "leave_one_out"},
            },
            "model": {"dim": 16, "feedforward_dim": 32, "max_history_len": 10, "num_negatives": 16},
            "schedule": {"phases": [{"name": "full", "epochs": 4, "learning_rate": 0.01, "patience": 4}]},
            "train": {"tokens_per_batch": 128, **train},
        }
    )


@pytest.fixture(scope="module")
def dataset(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    storage = Storage(path=str(tmp_path_factory.mktemp("dataset")))
    return prepare(storage, "t", settings(log, storage).data)


def make_run(config: Config, dataset: Dataset, **changes: object) -> Run:
    return Run(**{"role": "finetune", "config": config, "schedule": config.schedule, "dataset": dataset} | changes)


def fit_run(run: Run) -> Snapshot:
    result = build_trainer(run).fit()
    if isinstance(result.return_value, Exception):
        raise result.return_value
    with result.checkpoint.as_directory() as folder:
        checkpoint.verify(Path(folder))
        return Snapshot.load(Path(folder))


def losses(snapshot: Snapshot) -> list[float]:
    return [float(record["train/loss"]) for record in snapshot.progress.records if record["phase"] != START]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.cluster
def test_a_worker_killed_in_fine_tuning_costs_time_and_nothing_else(
    ray_cluster: None, log: Path, dataset: Dataset
) -> None:
    source = make_run(settings(log, dataset.storage), dataset, role="pretrain")
    source.publish(plain(source))
    phases = """[
        {name: head, epochs: 1, groups: [{match: ^backbone, rate: frozen}, {match: ^head}]},
        {name: full, epochs: 9, learning_rate: 0.01, l2_sp: 0.01, patience: 9}]"""
    config = apply_overrides(
        settings(log, dataset.storage),
        [f"schedule.phases={phases}", "train.checkpoint_every_steps=5", f"model.start_from={source.uri}"],
    )
    run = make_run(config, dataset, start_from=source.uri)
    assert run.key != make_run(config, dataset).key
    whole = plain(run)
    killed = threading.Event()

    def found() -> set[Path]:
        return set(Path(dataset.storage.root(config.name)).glob("runs/*/checkpoint_*/manifest.json"))

    before = found()

    def kill_a_worker() -> None:
        """SIGKILL, once checkpoints are there to go on from."""
        while not found() - before:
            time.sleep(0.2)
        time.sleep(2)
        if kill_descendants(os.getpid(), b"ray::RayTrainWorker"):
            killed.set()

    thread = threading.Thread(target=kill_a_worker, daemon=True)
    thread.start()
    resumed = fit_run(run)
    assert killed.is_set()
    assert_same(resumed.model, whole.model)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-9)
    records = resumed.progress.records
    assert [record["phase"] for record in records] == ["start", "head", *["full"] * 9]
    assert float(records[0]["val/ndcg@10"]) > 0.5  # what was learned is there before the first step
    assert resumed.progress.best is not None
    assert resumed.progress.best >= float(records[0]["val/ndcg@10"])


@pytest.mark.cluster
def test_a_fault_of_the_user_is_told_once_and_not_retried(ray_cluster: None, log: Path, dataset: Dataset) -> None:
    config = apply_overrides(settings(log, dataset.storage), ["schedule.phases.0.groups=[{match: ^nothing}]"])
    with pytest.raises(TrainingError, match=r"no group covers parameter"):
        fit_run(make_run(config, dataset))


def test_a_run_is_known_by_what_it_is_made_of(log: Path, dataset: Dataset) -> None:
    config = settings(log, dataset.storage)
    same, other = make_run(config, dataset), make_run(apply_overrides(config, ["train.seed=1"]), dataset)
    assert make_run(config, dataset).key == same.key != other.key
    assert make_run(apply_overrides(config, ["train.max_failures=7"]), dataset).key == same.key
