"""A small prepared log and a model of random weights, published as training publishes them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ray_app.config import Config, parse_config
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.storage import Storage
from ray_app.tasks.beginning import build_model
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress, Snapshot

NUM_USERS, NUM_ITEMS, NUM_EVENTS = 150, 60, 3000
DAY_S = 86_400


def write_log(path: Path, seed: int = 0) -> None:
    """Users of very different activity, some of them in the last days alone; ids are text."""
    rng = np.random.default_rng(seed)
    user = (NUM_USERS * rng.random(NUM_EVENTS) ** 2).astype(int)
    joined = rng.integers(0, 100, NUM_USERS)
    day = joined[user] + (100 - joined[user]) * rng.random(NUM_EVENTS)
    frame = pd.DataFrame(
        {
            "user_id": [f"u{number}é" for number in user],
            "item_id": 1000 + (NUM_ITEMS * rng.random(NUM_EVENTS) ** 2).astype(int),
            "timestamp": 1_600_000_000 + (day * DAY_S).astype(int),
        }
    )
    frame.to_csv(path, index=False)


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("small")
    write_log(folder / "events.csv")
    return parse_config(
        {
            "name": "small",
            "storage": {"path": str(folder / "storage")},
            "data": {"events": str(folder / "events.csv"), "timestamp_unit": "s"},
            "model": {"dim": 8, "feedforward_dim": 16, "max_history_len": 10},
            "evaluate": {"bootstrap_samples": 100, "batch_users": 16},
        }
    )


@pytest.fixture(scope="session")
def small_dataset(small_config: Config) -> Dataset:
    return prepare(Storage.from_config(small_config.storage), small_config.name, small_config.data)


@pytest.fixture(scope="session")
def small_models(small_dataset: Dataset, small_config: Config) -> dict[str, str]:
    """Two models that differ in their random weights, by name."""
    published = {}
    for name, seed in (("fine-tuned", 0), ("scratch", 1)):
        config = small_config.model_copy(update={"train": small_config.train.model_copy(update={"seed": seed})})
        run = Run("scratch", config, config.evaluate.scratch_schedule, small_dataset)
        model, _ = build_model(config.model, small_dataset.items(), seed)
        with torch.no_grad():
            model.head.bias.normal_(std=0.1)
        run.publish(Snapshot.take(model, None, {}, Progress()))
        published[name] = run.uri
    return published
