"""Networks of keras.applications: what Keras says of a picture, from weights that are torch's own."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import picture_set
from plain_loop import plain
from safetensors.torch import save_file

from ray_app.checkpoint import CheckpointError, read_manifest
from ray_app.config import Config, StorageConfig, parse_config
from ray_app.content.pretrained import as_shown, begin_backbone
from ray_app.errors import ConfigError
from ray_app.models.applications import build_application
from ray_app.models.backbones import Backbone, UnknownBackboneError
from ray_app.models.blocks import blocks_of
from ray_app.picture_config import ClassifierConfig
from ray_app.storage import Storage
from ray_app.tasks.classifier import load_classifier
from ray_app.training.optimizer import freeze
from ray_app.training.run import Run

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("keras") is None, reason="needs Keras: pip install 'ray-retail-finetune[keras]'"
    ),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # by Keras, as it writes a file
]
SMALL, LARGE = "MobileNetV3Small", "ResNet50"


def theirs(name: str) -> Any:
    """A network as Keras makes it, with statistics that say something."""
    build_application(SMALL)  # which sees to it that Keras runs on torch
    import keras

    keras.utils.set_random_seed(3)
    with keras.device("cpu"):
        model = getattr(keras.applications, name)(include_top=False, weights=None, pooling="avg")
    rng = np.random.default_rng(0)
    for variable in model.non_trainable_variables:
        if "moving" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def begun(name: str, weights: Path | None) -> Backbone:
    given = {"backbone": f"keras:{name}", "weights": None if weights is None else str(weights), "size": 64}
    return begin_backbone(ClassifierConfig.model_validate(given), Storage.from_config(StorageConfig()))


@pytest.mark.parametrize(("name", "module"), [(SMALL, "mobilenet_v3"), (LARGE, "resnet")])
def test_a_backbone_says_what_keras_says(tmp_path: Path, name: str, module: str) -> None:
    """From both forms of Keras's files and from ours; pictures as the library's own preprocessing has them."""
    model = theirs(name)
    import keras

    model.save_weights(tmp_path / "new.weights.h5")
    model.save(tmp_path / "old.h5")
    pixels = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = getattr(keras.applications, module).preprocess_input(pixels.permute(0, 2, 3, 1).float().numpy().copy())
    with torch.no_grad(), keras.device("cpu"):
        expected = model(shown, training=False)
    for file in ("new.weights.h5", "old.h5", "ours.safetensors"):
        backbone = begun(name, tmp_path / file).eval()
        with torch.no_grad():
            found = backbone(as_shown(backbone, pixels, torch.device("cpu")))
        assert found.shape == (3, backbone.dim)
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        save_file(
            {key: value.contiguous() for key, value in backbone.network.state_dict().items()},
            tmp_path / "ours.safetensors",
        )


def test_parameters_are_ordered_by_block() -> None:
    blocks = blocks_of(build_application(LARGE))
    assert len(blocks) == 17
    assert blocks[0][0] == "network.layers.conv1_conv.conv1_conv.kernel"
    assert all(name.startswith("network.layers.conv5_block3.") for name in blocks[-1])


def test_statistics_are_learned_where_the_schedule_says_so() -> None:
    backbone = build_application(SMALL)
    frozen = lambda name: "expanded_conv_1." in name  # noqa: E731
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone.train()
    freeze(backbone, {name: None if frozen(name) else 1.0 for name, _ in backbone.named_parameters()})
    backbone(torch.rand(4, 3, 64, 64)).sum().backward()
    assert len(before) == 68
    assert {name for name, value in backbone.named_buffers() if torch.equal(value, before[name])} == set(
        filter(frozen, before)
    )
    assert {name for name, one in backbone.named_parameters() if one.grad is None} == {
        name for name, _ in backbone.named_parameters() if frozen(name)
    }
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone.eval()(torch.rand(4, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())


def test_maps_are_what_is_pooled() -> None:
    weights = build_application(SMALL).network.state_dict()
    vectors, maps = (build_application(SMALL, weights, maps=maps).eval() for maps in (False, True))
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = maps(pictures)
        assert found.shape == (2, maps.dim, 2, 2)
        assert torch.allclose(found.mean((2, 3)), vectors(pictures), atol=1e-5)


def test_chance_of_dropped_layers_is_part_of_the_state(tmp_path: Path) -> None:
    backbone = build_application("EfficientNetB0").train()
    save_file(backbone.network.state_dict(), tmp_path / "state.safetensors")
    pictures = torch.rand(2, 3, 32, 32)
    first, second = backbone(pictures), backbone(pictures)
    assert not torch.allclose(first, second)
    again = begun("EfficientNetB0", tmp_path / "state.safetensors").train()
    assert torch.equal(again(pictures), first)


def test_weights_that_do_not_fit_are_told_by_name_and_shape(tmp_path: Path) -> None:
    theirs("MobileNetV2").save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(CheckpointError, match=r"does not fit keras:MobileNetV3Small, nothing was loaded") as caught:
        begun(SMALL, tmp_path / "other.weights.h5")
    assert "\n  conv: missing\n" in str(caught.value)
    weights = build_application(SMALL).network.state_dict()
    kernel = "layers.conv.conv.kernel"
    save_file(weights | {kernel: torch.zeros(3, 3, 3, 8)}, tmp_path / "shape.safetensors")
    with pytest.raises(CheckpointError, match=r"conv\.kernel: \[3, 3, 3, 8\] where the network has \[3, 3, 3, 16\]"):
        begun(SMALL, tmp_path / "shape.safetensors")
    save_file(weights | {kernel: torch.full_like(weights[kernel], torch.nan)}, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match="holds numbers that are not finite"):
        begun(SMALL, tmp_path / "nan.safetensors")
    (tmp_path / "text.h5").write_text("no numbers")
    with pytest.raises(CheckpointError, match="not an h5 file of weights as Keras writes them"):
        begun(SMALL, tmp_path / "text.h5")


def test_what_there_is_not_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"keras:ResNet51: keras\.applications has no network 'ResNet51'; it has .*R"):
        begun("ResNet51", None)
    with pytest.raises(
        ConfigError, match=r"classifier\.size: 64, but keras:InceptionV3 cannot see such pictures: Calc"
    ):
        begun("InceptionV3", None)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(UnknownBackboneError, match=r"pip install 'ray-retail-finetune\[keras\]'"):
        build_application(SMALL)


def test_two_phases_from_a_file_to_a_published_classifier(tmp_path: Path) -> None:
    theirs(LARGE).save_weights(tmp_path / "resnet50.weights.h5")
    frozen = [{"match": "^backbone", "rate": "frozen"}, {"match": "^head"}]
    groups = [{"match": r"conv[1-4]_", "rate": "frozen"}, {"match": "^backbone", "rate": 0.1}, {"match": "^head"}]
    phases = [
        {"name": "head", "epochs": 2, "learning_rate": 0.03, "groups": frozen},
        {"name": "full", "epochs": 1, "learning_rate": 1e-3, "l2_sp": 0.1, "groups": groups},
    ]
    network = {"backbone": f"keras:{LARGE}", "weights": str(tmp_path / "resnet50.weights.h5")}
    config: Config = parse_config(
        {
            "task": {"kind": "classify"},
            "pictures": {},
            "classifier": {**network, "size": 64, "batch_size": 6},
            "schedule": {"phases": phases},
            "storage": {"path": str(tmp_path / "runs")},
        }
    )
    run = Run("finetune", config, config.schedule, picture_set(tmp_path, train=12, held_out=6))
    before = {
        f"backbone.{name}": value.clone() for name, value in begun(LARGE, Path(network["weights"])).state_dict().items()
    }
    run.prepare()
    trained = plain(run)
    assert [record["phase"] for record in trained.progress.records] == ["start", "head", "head", "full"]
    moved = {name for name in before if not torch.equal(before[name], trained.model[name])}
    assert moved
    assert all(".conv5_block" in name for name in moved)
    assert any(name.endswith("moving_mean") for name in moved)
    run.publish(trained)
    classifier = load_classifier(run.storage, run.uri)
    table = run.storage.read_table(run.dataset.uris("test")[0])
    found = classifier.probabilities(table["image"].to_pylist())
    assert np.allclose(found.sum(1), 1, atol=1e-5)
    sharpness = read_manifest(run.storage, run.uri)["sharpness"]
    for name, value in classifier.model.state_dict().items():
        assert torch.equal(value, trained.model[name] * (sharpness if name.startswith("head.out.") else 1)), name
