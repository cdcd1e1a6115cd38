"""Text vectors of a dataset: in the order of the items, each text once, nothing twice."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ray_app.config import StorageConfig
from ray_app.content import features
from ray_app.content.encoder import TextEncoder
from ray_app.content.encoding import VECTORS
from ray_app.content.features import settled, with_content
from ray_app.content.vectors import item_content, text_hash
from ray_app.content_config import ContentConfig
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data_config import DataConfig
from ray_app.errors import DataError
from ray_app.storage import Storage, join
from ray_app.train_config import TrainConfig

TITLES = ["lip balm", "shampoo", None, "lip balm", "nail polish"]


def dataset_of(folder: Path, titles: list[str | None], name: str = "log") -> Dataset:
    log = pd.DataFrame({"user_id": np.repeat(np.arange(6), 5), "item_id": np.tile(np.arange(5), 6)})
    log["timestamp"] = np.tile(np.arange(5), 6)
    log.to_csv(folder / f"{name}.csv", index=False)
    pd.DataFrame({"item_id": np.arange(5), "title": titles}).to_csv(folder / f"{name}_items.csv", index=False)
    split = {"kind": "leave_one_out"}
    paths = {"events": str(folder / f"{name}.csv"), "items": str(folder / f"{name}_items.csv")}
    data = DataConfig.model_validate({**paths, "timestamp_unit": "order", "split": split})
    return prepare(Storage.from_config(StorageConfig(path=str(folder / "storage"))), "shop", data)


def test_every_item_has_the_vector_of_its_text(minilm: Path, tmp_path: Path):
    content, train = ContentConfig(text=f"hf:{minilm}", max_tokens=16), TrainConfig()
    plain = dataset_of(tmp_path, TITLES)
    assert item_content(plain) is None
    dataset = with_content(plain, content, train)
    vectors = item_content(dataset)
    assert vectors is not None
    encoder = TextEncoder(minilm, 16, features.torch.device("cpu"))
    for row, title in enumerate(TITLES):
        expected = encoder.encode([title])[0].astype(np.float32) if title else np.zeros(384)
        assert vectors[row] @ expected == pytest.approx(1 if title else 0, abs=2e-3)
        assert bool(vectors[row].any()) == bool(title)
    assert dataset.features is not None
    assert dataset.storage.read_table(dataset.features).num_rows == 3  # one of two equal texts, and no empty one
    parts = dataset.storage.list_files(join(plain.uri, "features", "*", "*.parquet"))
    assert [Path(part.uri).name for part in parts] == [VECTORS]


def test_only_what_is_missing_is_encoded(minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A second run finds all, one that was killed goes on, and tomorrow's log brings its new texts alone."""
    content, train = ContentConfig(text=f"hf:{minilm}", max_tokens=16), TrainConfig()
    plain = dataset_of(tmp_path, TITLES)
    first = with_content(plain, content, train)
    assert first.features is not None
    asked: list[set[bytes]] = []
    encode = features._encode
    monkeypatch.setattr(
        features, "_encode", lambda *args: asked.append({text_hash(text) for text in args[2]}) or encode(*args)
    )
    assert with_content(plain, content, train) == first
    assert asked == []

    whole = plain.storage.read_table(first.features)
    plain.storage.delete_tree(first.features)
    plain.storage.write_table(first.features.replace(VECTORS, "part-0.parquet"), whole.slice(0, 2))
    with_content(plain, content, train)
    assert asked.pop() == set(whole["text_hash"].to_pylist()[2:])
    assert plain.storage.read_table(first.features)["text_hash"].equals(whole["text_hash"])

    changed = with_content(dataset_of(tmp_path, [*TITLES[:4], "hair spray"], "tomorrow"), content, train)
    assert asked.pop() == {text_hash("hair spray")}
    old, new = item_content(first), item_content(changed)
    assert old is not None
    assert new is not None
    assert np.array_equal(old[:4], new[:4])
    assert not np.array_equal(old[4], new[4])


def test_a_catalogue_without_what_is_to_be_read_is_refused(minilm: Path, tmp_path: Path):
    nothing = dataset_of(tmp_path, [None] * 5)
    with pytest.raises(DataError, match=r"no item has a title.* look at data.items.* leave content.text out"):
        with_content(nothing, ContentConfig(text=f"hf:{minilm}"), TrainConfig())
    with pytest.raises(DataError, match=r"no item has a brand or price; look at data.items"):
        with_content(nothing, ContentConfig(labels=("brand", "price")), TrainConfig())


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "encoder").mkdir()
    monkeypatch.chdir(tmp_path)
    found = settled(ContentConfig(text="hf:encoder", image="timm:any", image_weights="encoder/w.safetensors"))
    assert (found.text, found.image) == (f"hf:{tmp_path}/encoder", "timm:any")
    assert found.image_weights == f"{tmp_path}/encoder/w.safetensors"
    hub = ContentConfig(text="hf:sentence-transformers/all-MiniLM-L6-v2", image="hf:encoder")
    assert settled(hub) == hub.model_copy(update={"image": f"hf:{tmp_path}/encoder"})
