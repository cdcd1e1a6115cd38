"""A small log, a model that was trained on another one like it, and a search that starts from there."""

import pytest
from plain_loop import plain
from tuning_log import MakeSearch, write_log

from ray_app.config import Config, apply_overrides, parse_config
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.storage import Storage
from ray_app.training.run import Run
from ray_app.tuning.search import Search


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Dataset, str]:
    """The configuration of fine-tuning, the target's dataset and the checkpoint to begin with."""
    folder = tmp_path_factory.mktemp("tuning")
    write_log(folder / "source.parquet", 120, 0)
    write_log(folder / "target.parquet", 60, 1)
    data = {"timestamp_unit": "order", "split": {"kind": "leave_one_out"}}
    config = parse_config(
        {
            "name": "t",
            "storage": {"path": str(folder / "runs")},
            "data": {**data, "events": str(folder / "target.parquet")},
            "model": {"dim": 8, "feedforward_dim": 8, "max_history_len": 8, "num_negatives": 8},
            "train": {"tokens_per_batch": 64},
            "evaluate": {"scratch_schedule": {"phases": [{"name": "scratch", "epochs": 3, "learning_rate": 0.01}]}},
        }
    )
    storage = Storage.from_config(config.storage)
    log = prepare(storage, "source", config.data.model_copy(update={"events": (str(folder / "source.parquet"),)}))
    run = Run("pretrain", config, config.evaluate.scratch_schedule, log)
    run.publish(plain(run))
    phases = [
        {"name": "head", "epochs": 2, "groups": [{"match": "^backbone", "rate": "frozen"}, {"match": "^head"}]},
        {"name": "full", "epochs": 4, "learning_rate": 0.01, "l2_sp": 0.01, "patience": 4,
         "groups": [{"match": "^backbone", "rate": 0.3}, {"match": "^head"}]},
    ]  # fmt: skip
    config = parse_config(config.model_dump() | {"schedule": {"phases": phases}, "tune": {"num_trials": 6}})
    return config, prepare(storage, "t", config.data), run.uri


@pytest.fixture
def make_search(source: tuple[Config, Dataset, str]) -> MakeSearch:
    """A search of its own for each name: `make_search("name", "tune.num_trials=3", ...)`."""
    config, dataset, start = source

    def make(name: str, *overrides: str) -> Search:
        return Search.begin(apply_overrides(config, [f"name={name}", *overrides]), dataset, start)

    return make
