"""Ray Train around the loop: the numbers of the plain loop, with one worker or two, after a loss, and on S3."""

import os
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from processes import kill_descendants, run_two_workers
from torch import Tensor

from ray_app import checkpoint
from ray_app.config import Config, apply_overrides, parse_config
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data.stream import read_tables
from ray_app.errors import TrainingError
from ray_app.storage import Storage
from ray_app.tasks.recommend import build_task
from ray_app.tasks.recommender import load_trained
from ray_app.training.loop import fit
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.trainer import build_trainer, loop_settings
from ray_app.training.world import World

pytestmark = pytest.mark.cluster


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
    return [float(record["train/loss"]) for record in snapshot.progress.records]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def plain(run: Run) -> Snapshot:
    """The same run without Ray."""
    last: list[Snapshot] = []
    task = build_task(run.config, run.dataset, None, partial(read_tables, run.storage))
    torch.set_num_threads(1)
    world = World.current()
    progress = fit(task, run.schedule, loop_settings(run, world.device), world, lambda _, now: last.append(now))
    return Snapshot.take(task.model, None, {}, progress)


def _one_of_two(rank: int, folder: Path, run: Run) -> None:
    """One of two processes of the plain loop."""
    last: list[Snapshot] = []
    task = build_task(run.config, run.dataset, None, partial(read_tables, run.storage), rank, 2)
    world = World.current()
    fit(task, run.schedule, loop_settings(run, world.device), world, lambda _, now: last.append(now))
    if rank == 0:
        (found := folder / "two").mkdir()
        Snapshot.take(task.model, None, {}, last[-1].progress).save(found)


@pytest.mark.s3
def test_two_ray_workers_on_s3_equal_two_of_the_plain_loop(
    ray_cluster: None, log: Path, s3: object, tmp_path: Path
) -> None:
    storage = Storage.from_config(s3)  # type: ignore[arg-type]
    config = settings(log, storage, num_workers=2)
    run = make_run(config, prepare(storage, config.name, config.data))
    with_ray = fit_run(run)
    run.publish(with_ray)
    assert run.is_published()
    assert load_trained(storage, run.uri).model.num_items == run.dataset.num_items
    run_two_workers(_one_of_two, tmp_path, run)
    without = Snapshot.load(tmp_path / "two")
    assert_same(with_ray.model, without.model)
    assert losses(with_ray) == losses(without)


def test_a_killed_worker_costs_time_and_nothing_else(ray_cluster: None, log: Path, dataset: Dataset) -> None:
    config = apply_overrides(
        settings(log, dataset.storage), ["schedule.phases.0.epochs=10", "train.checkpoint_every_steps=5"]
    )
    whole = plain(make_run(config, dataset))
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
    resumed = fit_run(make_run(config, dataset))
    assert killed.is_set()
    assert_same(resumed.model, whole.model)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-9)
    assert losses(resumed)[-1] < 0.8 * losses(resumed)[0]
    assert resumed.progress.best is not None
    assert resumed.progress.best > 0.5  # four in five are foreseeable


def test_a_fault_of_the_user_is_told_once_and_not_retried(ray_cluster: None, log: Path, dataset: Dataset) -> None:
    config = apply_overrides(settings(log, dataset.storage), ["schedule.phases.0.groups=[{match: ^nothing}]"])
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"no group covers parameter"):
        fit_run(make_run(config, dataset))
    assert time.monotonic() - began < 180


def test_fine_tuning_starts_from_a_published_model(ray_cluster: None, log: Path, dataset: Dataset) -> None:
    source = make_run(settings(log, dataset.storage), dataset, role="pretrain")
    source.publish(plain(source))
    config = apply_overrides(
        settings(log, dataset.storage),
        [
            "schedule.phases=[{name: head, epochs: 1, groups: [{match: ^backbone, rate: frozen}, {match: ^head}]}]",
            f"model.start_from={source.uri}",
        ],
    )
    target = make_run(config, dataset, start_from=source.uri)
    assert target.key != make_run(config, dataset).key
    tuned = fit_run(target)
    start = load_trained(dataset.storage, source.uri).model.state_dict()
    assert torch.equal(
        tuned.model["backbone.blocks.0.query_key_value.weight"], start["backbone.blocks.0.query_key_value.weight"]
    )
    assert not torch.equal(tuned.model["head.bias"], start["head.bias"])
    records = tuned.progress.records
    assert records[0]["phase"] == "start"
    assert float(records[0]["val/ndcg@10"]) > 0.5  # what was learned is there before the first step


def test_a_run_is_known_by_what_it_is_made_of(log: Path, dataset: Dataset) -> None:
    config = settings(log, dataset.storage)
    same, other = make_run(config, dataset), make_run(apply_overrides(config, ["train.seed=1"]), dataset)
    assert make_run(config, dataset).key == same.key != other.key
    assert make_run(apply_overrides(config, ["train.max_failures=7"]), dataset).key == same.key
