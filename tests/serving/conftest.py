"""A small shop: a prepared dataset, models of random weights, registered as the pipeline registers them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from shops import write_dataset

from ray_app.baselines import read_log, read_whole_log
from ray_app.checkpoint import publish, seal
from ray_app.config import Config, dump, parse_config
from ray_app.data.dataset import Dataset
from ray_app.evidence.features import FEATURES
from ray_app.evidence.item_index import INDEX_FILE, ItemIndex
from ray_app.evidence.memory import Memory
from ray_app.evidence.ranker import Ranker
from ray_app.registry import Registry, Version
from ray_app.serving.predictor import Predictor
from ray_app.storage import Storage, join
from ray_app.tasks.beginning import build_model
from ray_app.tasks.hybrid import FACTS_FILE, MEMORY_FILE, RANKER_FILE, TODAY_FILE
from ray_app.tasks.recommender import ITEMS_FILE, MODEL_FILE
from ray_app.train_config import RankerConfig

NUM_ITEMS, NUM_USERS = 40, 80
METRICS = {
    "main": "fine-tuned",
    "methods": {"fine-tuned": {"kind": "model"}, "popular": {"kind": "baseline"}},
    "metrics": {"fine-tuned": {"ndcg@10": {"mean": 0.2}}, "popular": {"ndcg@10": {"mean": 0.1}}},
}
KINDS = ("tea", "soap", "bread", "cheese")


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return parse_config(
        {
            "name": "shop",
            "storage": {"path": str(tmp_path_factory.mktemp("shop"))},
            "model": {"dim": 8, "feedforward_dim": 16, "max_history_len": 20},
            "predict": {"exclude_seen": False},
        }
    )


@pytest.fixture(scope="session")
def dataset(config: Config) -> Dataset:
    """Users who buy pairs of neighbouring items; ids are numbers, 100 to 139; the last item was never bought."""
    rng = np.random.default_rng(0)
    items = [
        {
            "item_id": 100 + n,
            "title": f"{KINDS[n % 4].title()} number {n}",
            "category": KINDS[n % 4],
            "brand": f"brand{n % 3}",
            "price": float(n) if n % 5 else None,
        }
        for n in range(NUM_ITEMS)
    ]
    users = {}
    for user in range(NUM_USERS):
        events = []
        for order in range(int(rng.integers(0, 8))):
            item = 1 + int((NUM_ITEMS - 2) * rng.random() ** 2)
            events += [(item, order * 10, order), (item + 1, order * 10, order)]
        users[f"u{user}"] = events
    storage = Storage.from_config(config.storage)
    return write_dataset(storage, join(storage.root(config.name), "datasets", "d1"), users, items)


def register(
    config: Config, dataset: Dataset, seed: int, *, hybrid: bool = False, encoder: str | None = None
) -> Version:
    """A model of random weights, published as training and ranking publish one."""
    folder = Path(config.storage.path) / f"build-{seed}-{hybrid}"
    folder.mkdir()
    model, _ = build_model(config.model, dataset.items(), seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    save_file(model.state_dict(), folder / MODEL_FILE)
    pq.write_table(dataset.items(), folder / ITEMS_FILE)
    if hybrid:
        rng = np.random.default_rng(seed)
        memory = Memory.fit(read_log(dataset)[0], dataset.items())
        memory.save(folder / MEMORY_FILE)
        memory.recounted(read_whole_log(dataset)).save_counts(folder / TODAY_FILE)
        features = {name: rng.random(600).astype(np.float32) for name in FEATURES}
        wanted = np.tile(np.arange(10) == 0, 60)
        few = RankerConfig(max_trees=5, min_leaf=5)
        ranker, _ = Ranker.fit(features, wanted, np.full(60, 10), few, seed=seed, threads=1)
        ranker.save(folder / RANKER_FILE)
        (folder / FACTS_FILE).write_text(json.dumps({"exclude_seen": False}))
    seal(folder, dump(config), role="hybrid" if hybrid else "finetune", dataset=dataset.uri, encoder=encoder)
    storage = Storage.from_config(config.storage)
    uri = join(storage.root(config.name), "finetune", folder.name)
    publish(storage, folder, uri)
    index = ItemIndex.fit(dataset)
    metrics = json.dumps(METRICS).encode()
    return Registry(storage, config.name).register(uri, metrics, b"", lambda place: index.save(place / INDEX_FILE))


@pytest.fixture(scope="session")
def versions(config: Config, dataset: Dataset) -> dict[str, Version]:
    hybrid = register(config, dataset, 2, hybrid=True)
    found = {"one": register(config, dataset, 0), "two": register(config, dataset, 1), "hybrid": hybrid}
    return found | {"described": register(config, dataset, 3, encoder="labels")}


@pytest.fixture
def predictor(config: Config, versions: dict[str, Version]) -> Predictor:
    return Predictor.load(Storage.from_config(config.storage), versions["one"])
