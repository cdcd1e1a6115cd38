"""A vision encoder of the transformers library from its folder to a published classifier."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders import tiny, tiny_reader
from pictures import COLORS, picture, picture_set

from ray_app.checkpoint import CheckpointError, read_manifest
from ray_app.config import Config, parse_config
from ray_app.content.pretrained import settled, weights_key
from ray_app.errors import ConfigError
from ray_app.storage import Storage, join
from ray_app.tasks.classifier import begin_classifier, load_classifier
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress, Snapshot
from ray_app.training.world import World


def config(backbone: Path | str, weights: str | None = "pretrained", **classifier: object) -> Config:
    given = {"backbone": f"hf:{backbone}", "weights": weights, "size": 32, "batch_size": 10, **classifier}
    settings = {"name": "colors", "task": {"kind": "classify"}, "pictures": {}, "classifier": given}
    return parse_config({**settings, "train": {"seed": 1}})


@pytest.mark.parametrize(("family", "with_pooler"), [("vit", True), ("vit", False), ("convnext", False)])
def test_a_published_classifier_is_read_when_the_folder_is_gone(family: str, with_pooler: bool, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    model = tiny(family, folder)
    if family == "vit" and not with_pooler:
        model.pooler = None
        model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}')
    pictures = picture_set(tmp_path / "pictures")
    run = Run("finetune", config(folder), config(folder).schedule, pictures)
    trained = run.begin(World.current()).model.eval()
    torch.nn.init.normal_(trained.head.out.weight)  # a new head says the same of every picture
    assert any("pooler" in name for name in trained.state_dict()) == with_pooler
    run.publish(Snapshot(trained.state_dict(), trained.state_dict(), {}, Progress()))
    shutil.rmtree(folder)
    loaded = load_classifier(pictures.storage, run.uri)
    images = [picture(color, 7) for color in COLORS.values()]
    assert loaded.model.backbone.shown.mean == (0.5, 0.5, 0.5)
    sharpness = read_manifest(pictures.storage, run.uri)["sharpness"]
    assert sharpness != 1
    for name, value in trained.state_dict().items():
        expected = value * sharpness if name.startswith("head.out.") else value
        assert torch.equal(loaded.model.state_dict()[name], expected)
    found = loaded.probabilities(images)
    assert found.shape == (3, 3)
    assert np.ptp(found, axis=0).max() > 1e-4


def test_weights_that_do_not_fit_name_the_folder(tmp_path: Path) -> None:
    model = tiny("vit", tmp_path)
    torch.nn.init.constant_(model.layernorm.bias, torch.nan)
    model.save_pretrained(tmp_path)
    pictures = picture_set(tmp_path / "pictures")
    with pytest.raises(CheckpointError, match=rf"(?s)does not fit hf:{tmp_path}, nothing.*layernorm\.bias: holds"):
        begin_classifier(config(tmp_path).classifier, 3, 0, pictures.storage)


def test_what_cannot_serve_is_a_sentence(tmp_path: Path) -> None:
    pictures = picture_set(tmp_path / "pictures")
    tiny("vit", tmp_path / "encoder")
    for given, sentence in (
        (config(tmp_path / "pictures"), r"classifier\.backbone: hf:.*pictures: cannot be read as an encoder"),
        (config(tmp_path / "encoder", size=48), r"classifier\.size: 48, but hf:.* cannot see such pictures"),
        (config(tmp_path / "encoder", head={"kind": "conv"}), r"no feature map that it pools"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            begin_classifier(given.classifier, 3, 0, pictures.storage)
    with pytest.raises(ConfigError, match=r"weights of an hf: backbone are those in its folder"):
        config(tmp_path / "encoder", weights="other.safetensors")


def test_the_key_goes_by_the_files_and_not_by_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny("vit", tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    storage = picture_set(tmp_path / "pictures").storage
    one, two, unset = (
        weights_key(config(tmp_path / name, weights).classifier, storage)
        for name, weights in (("one", "pretrained"), ("two", "pretrained"), ("one", None))
    )
    assert one == two != unset
    (tmp_path / "two" / "preprocessor_config.json").write_text("{}")
    assert weights_key(config(tmp_path / "two").classifier, storage) != one
    monkeypatch.chdir(tmp_path)
    assert settled(config("one")).classifier.backbone == f"hf:{tmp_path}/one"


def test_an_encoder_is_fetched_from_where_it_is_stored(storage: Storage, tmp_path: Path) -> None:
    tiny("vit", tmp_path / "encoder")
    uri = join(storage.path, "encoder")
    storage.upload_folder(tmp_path / "encoder", uri)
    here, there = config(tmp_path / "encoder").classifier, config(uri).classifier
    assert weights_key(here, storage) == weights_key(there, storage)
    one, other = (begin_classifier(of, 3, 0, storage).state_dict() for of in (here, there))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_text_encoder_sees_no_pictures(tmp_path: Path) -> None:
    tiny_reader("bert", tmp_path / "encoder", ["red wine"])
    with pytest.raises(ConfigError, match=r"hf:.*encoder is for texts, not for pictures; name a ViT"):
        begin_classifier(config(tmp_path / "encoder").classifier, 3, 0, Storage())
