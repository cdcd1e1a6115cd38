"""Vectors of items' pictures: wherever a picture is, each once, and those that cannot be read told."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from encoders import tiny, tiny_reader
from pictures import COLORS, picture
from safetensors.torch import save_file

from ray_app.checkpoint import CheckpointError
from ray_app.content import picture_vectors
from ray_app.content.encoding import PARTS, VECTORS
from ray_app.content.features import with_content
from ray_app.content.picture_encoder import LoadedPictures
from ray_app.content.picture_vectors import REFUSED
from ray_app.content.pretrained import as_shown, begin_backbone
from ray_app.content.vectors import item_content, item_pictures
from ray_app.content_config import ContentConfig
from ray_app.data.dataset import Dataset
from ray_app.data.pixels import Views
from ray_app.data.prepare import prepare
from ray_app.data_config import DataConfig
from ray_app.errors import ConfigError, DataError
from ray_app.picture_config import ClassifierConfig
from ray_app.storage import Storage, join
from ray_app.train_config import TrainConfig

NETWORK, SIZE = "torchvision:shufflenet_v2_x0_5", 32
RED, GREEN, BLUE = (picture(COLORS[name], 1, side=30) for name in ("red", "green", "blue"))
FILES = {"red.png": RED, "again.png": RED, "green.png": GREEN, "cut.png": BLUE[:200], "text.png": b"no picture"}
IMAGES = ["pictures/red.png", "pictures/again.png", None, "pictures/cut.png", "pictures/gone.png", "pictures/green.png",
          "pictures/text.png", "http://shop/far.png"]  # fmt: skip
TRAIN = TrainConfig()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "network.safetensors"
    network = torchvision.models.get_model(NETWORK.partition(":")[2], weights=None)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return str(path)


@pytest.fixture
def content(weights: str) -> ContentConfig:
    return ContentConfig(image=NETWORK, image_weights=weights, image_size=SIZE)


def put(storage: Storage, name: str, data: bytes) -> str:
    storage.write_bytes(join(storage.path, "in", name), data)
    return join(storage.path, "in", name)


def dataset_of(storage: Storage, catalogue: str, items: int) -> Dataset:
    rows = [f"{user},{item},{item}" for user in range(6) for item in range(items)]
    events = put(storage, "events.csv", "\n".join(["user_id,item_id,timestamp", *rows]).encode())
    split = {"kind": "leave_one_out"}
    data = {"events": events, "items": catalogue, "timestamp_unit": "order", "split": split}
    return prepare(storage, "shop", DataConfig.model_validate(data))


def named(storage: Storage, images: list[str | None], name: str = "items.csv") -> Dataset:
    """A catalogue that names files."""
    for file, data in FILES.items():
        put(storage, f"pictures/{file}", data)
    rows = [f"{item},{image or ''}" for item, image in enumerate(images)]
    return dataset_of(storage, put(storage, name, "\n".join(["item_id,image", *rows]).encode()), len(images))


def holding(storage: Storage, cells: pa.Array, row_group_size: int) -> Dataset:
    """A catalogue that holds pictures, its items in reverse order."""
    sink = io.BytesIO()
    items = np.arange(len(cells))[::-1]
    pq.write_table(pa.table({"item_id": items, "image": cells}), sink, row_group_size=row_group_size)
    return dataset_of(storage, put(storage, "items.parquet", sink.getvalue()), len(cells))


def vector(content: ContentConfig, data: bytes) -> np.ndarray:
    settings = ClassifierConfig(backbone=NETWORK, weights=content.image_weights, size=SIZE)
    backbone = begin_backbone(settings, Storage()).eval()
    shown = as_shown(backbone, Views(SIZE, backbone.shown.middle)[[data], 0], torch.device("cpu"))
    with torch.inference_mode():
        return torch.nn.functional.normalize(backbone(shown), dim=1)[0].numpy()


def test_every_item_has_the_vector_of_its_picture_and_who_has_none_is_told(storage: Storage, content: ContentConfig):
    plain = named(storage, IMAGES)
    assert item_pictures(plain) is None
    dataset = with_content(plain, content, TRAIN)
    assert (item_content(dataset), dataset.encoder) == (None, dataset.picture_features.split("/")[-2])
    vectors = item_pictures(dataset).astype(np.float32)
    for item, data in enumerate([RED, RED, None, None, None, GREEN, None, None]):
        assert vectors[item].any() == (data is not None)
        assert data is None or vectors[item] @ vector(content, data) == pytest.approx(1, abs=2e-3)
    refused = storage.read_table(dataset.picture_features.replace(VECTORS, REFUSED)).to_pylist()
    assert {row["source"].rpartition("/")[2]: row["reason"] for row in refused} == {
        "cut.png": "truncated_picture",
        "far.png": "unreadable_path",
        "gone.png": "unreadable_path",
        "text.png": "not_a_picture",
    }
    [note] = dataset.manifest.notes[len(plain.manifest.notes) :]
    assert note.startswith("5 of 8 items go without a picture: 2 unreadable_path, 1 missing_picture, ")
    assert with_content(plain, content, TRAIN) == dataset  # found, and told again


@pytest.mark.parametrize("row_group_size", [2, 100])
def test_a_table_may_hold_the_pictures(tmp_path: Path, content: ContentConfig, row_group_size: int):
    """Bytes, or a struct of bytes and path; a part reads rows of one row group, whatever the order of the items."""
    storage = Storage(path=str(tmp_path))
    column = pa.array([RED, None, GREEN, BLUE, GREEN, b"x", RED])
    if row_group_size == 2:
        put(storage, "pictures/red.png", RED)
        structs = [{"bytes": data, "path": None} for data in column.to_pylist()]
        column = pa.array([*structs[:-1], {"bytes": None, "path": "pictures/red.png"}])
    dataset = with_content(holding(storage, column, row_group_size), content, TRAIN)
    vectors = item_pictures(dataset).astype(np.float32)[::-1]
    assert vectors.any(1).tolist() == [True, False, True, True, True, False, True]
    assert (vectors[2] == vectors[4]).all()
    assert (vectors[0] == vectors[6]).all()
    assert vectors[3] @ vector(content, BLUE) == pytest.approx(1, abs=2e-3)
    assert dataset.manifest.notes[-1].startswith("2 of 7 items go without a picture: ")


def test_only_what_is_missing_is_encoded(tmp_path: Path, content: ContentConfig, monkeypatch: pytest.MonkeyPatch):
    """Equal pictures once; a run that was killed goes on; tomorrow's catalogue brings its new pictures alone."""
    storage, made, looked = Storage(path=str(tmp_path)), list[int](), list[int]()
    encode, call, lives = LoadedPictures._vectors, LoadedPictures.__call__, [100]

    def counted(self: LoadedPictures, places: list[str]) -> pa.Table:
        if not lives[0]:
            raise KeyboardInterrupt
        lives[0] -= 1
        looked.append(len(places))
        return call(self, places)

    monkeypatch.setattr(LoadedPictures, "_vectors", lambda self, some: made.append(len(some)) or encode(self, some))
    monkeypatch.setattr(LoadedPictures, "__call__", counted)
    monkeypatch.setattr(picture_vectors, "PICTURES_PER_PART", 3)
    first = with_content(named(storage, IMAGES), content, TRAIN)
    assert (sum(made), looked) == (2, [3, 3, 1])

    again = named(Storage(path=str(tmp_path / "again")), IMAGES)
    lives[0] = 1
    with pytest.raises(KeyboardInterrupt):
        with_content(again, content, TRAIN)
    assert len(again.storage.list_files(join(again.uri, "features", "*", PARTS))) == 1
    lives[0] = 100
    second = with_content(again, content, TRAIN)
    assert (sum(made), looked) == (4, [3, 3, 1, 3, 3, 1])
    assert np.array_equal(item_pictures(second), item_pictures(first))
    assert second.manifest.notes[-1].partition(" (")[0] == first.manifest.notes[-1].partition(" (")[0]
    assert not again.storage.list_files(join(again.uri, "features", "*", PARTS))

    put(storage, "pictures/blue.png", BLUE)
    changed = with_content(named(storage, [*IMAGES[:5], "pictures/blue.png"], "tomorrow.csv"), content, TRAIN)
    assert (sum(made), sum(looked[6:])) == (5, 5)
    assert np.array_equal(item_pictures(changed)[:5], item_pictures(first)[:5])


def test_a_catalogue_without_a_picture_that_can_be_read_is_refused(tmp_path: Path, content: ContentConfig):
    storage = Storage(path=str(tmp_path))
    with pytest.raises(DataError, match=r"no item has a picture.* look at data\.items and data\.item_columns\.image"):
        with_content(named(storage, [None] * 3), content, TRAIN)
    with pytest.raises(DataError, match=r"(?s)none of the 2 pictures.* the first is .*gone\.png: .*1  not_a_picture"):
        with_content(bad := named(storage, ["pictures/text.png", "pictures/gone.png", None], "bad.csv"), content, TRAIN)
    put(storage, "pictures/gone.png", GREEN)  # a run that was refused leaves nothing behind
    assert item_pictures(with_content(bad, content, TRAIN)).any(1).tolist() == [False, True, False]


def test_faults_of_the_network_name_the_settings_of_content(tmp_path: Path, content: ContentConfig):
    dataset = named(Storage(path=str(tmp_path)), IMAGES)
    with pytest.raises(ConfigError, match=r"^content\.image: torchvision has no classifier 'resnet19'"):
        with_content(dataset, content.model_copy(update={"image": "torchvision:resnet19"}), TRAIN)
    with pytest.raises(CheckpointError, match=r"does not fit torchvision:resnet18, nothing was loaded"):
        with_content(dataset, content.model_copy(update={"image": "torchvision:resnet18"}), TRAIN)


def test_an_encoder_of_transformers_sees_pictures_and_one_of_texts_does_not(tmp_path: Path):
    dataset = named(Storage(path=str(tmp_path)), IMAGES)
    tiny("vit", tmp_path / "vit")
    content = ContentConfig(image=f"hf:{tmp_path}/vit", image_size=SIZE)
    assert item_pictures(with_content(dataset, content, TRAIN)).any(1).sum() == 3
    with pytest.raises(ConfigError, match=r"^content\.image_size: 48, but hf:.* cannot see such pictures"):
        with_content(dataset, content.model_copy(update={"image_size": 48}), TRAIN)
    tiny_reader("bert", tmp_path / "bert", ["red tea"])
    with pytest.raises(ConfigError, match=r"^content\.image: hf:.*bert is for texts, not for pictures"):
        with_content(dataset, content.model_copy(update={"image": f"hf:{tmp_path}/bert"}), TRAIN)


@pytest.mark.cluster
def test_actors_give_what_one_process_gives(
    ray_cluster: None, tmp_path: Path, content: ContentConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(picture_vectors, "PICTURES_PER_PART", 2)
    by_actors = with_content(named(Storage(path=str(tmp_path / "a")), IMAGES), content, TrainConfig(num_workers=2))
    with monkeypatch.context() as alone:
        alone.setattr("ray.is_initialized", lambda: False)
        here = with_content(named(Storage(path=str(tmp_path / "b")), IMAGES), content, TRAIN)
    assert np.allclose(item_pictures(by_actors), item_pictures(here), atol=2e-3)
    assert by_actors.manifest.notes[-1].partition(" (")[0] == here.manifest.notes[-1].partition(" (")[0]
