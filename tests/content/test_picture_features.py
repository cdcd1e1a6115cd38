"""Kept features of pictures: only such as can be learned from."""

from pathlib import Path

import pytest
import torch
from pictures import picture_set
from safetensors.torch import save_file

from ray_app.config import Config, parse_config
from ray_app.content.picture_features import cached_features, compute, compute_here, probe_features
from ray_app.data.picture_set import PictureSet
from ray_app.errors import DataError
from ray_app.models.backbones import build_backbone
from ray_app.tasks.classification import evaluate_pictures

BACKBONE = "torchvision:resnet18"
SENTENCE = (
    rf"{BACKBONE} gives features that are not finite in 16 bits; .*classifier\.weights \(now .*loud\.safetensors\)"
)


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    return picture_set(tmp_path)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """Finite ones, whose features are more than 16 bits can hold."""
    torch.manual_seed(0)
    tensors = build_backbone(BACKBONE).network.state_dict()
    tensors["layer4.1.bn2.bias"] += 1e6
    save_file(tensors, tmp_path / "loud.safetensors")
    return str(tmp_path / "loud.safetensors")


def config(weights: str, cached_views: int = 1) -> Config:
    classifier = {"backbone": BACKBONE, "weights": weights, "size": 32, "batch_size": 16, "cached_views": cached_views}
    return parse_config({"task": {"kind": "classify"}, "pictures": {}, "classifier": classifier})


@pytest.mark.parametrize("views", [1, 2])
def test_features_that_are_not_finite_are_refused_and_not_kept(
    views: int, pictures: PictureSet, weights: str, tmp_path: Path
) -> None:
    """They were found again, and the fit of a head, or scikit-learn, ended with a traceback."""
    of = config(weights, views)
    features = cached_features(pictures, of)
    assert features is not None
    for start in (compute, compute_here):
        with pytest.raises(DataError, match=SENTENCE):
            start(features, of)
        assert len(features.missing()) == len({file.path for file in pictures.manifest.files})
    save_file(build_backbone(BACKBONE).network.state_dict(), tmp_path / "quiet.safetensors")
    of = config(str(tmp_path / "quiet.safetensors"), views)
    quiet = cached_features(pictures, of)
    assert quiet is not None
    compute(quiet, of)
    assert not quiet.missing()


@pytest.mark.cluster
def test_actors_tell_of_features_that_are_not_finite(ray_cluster: None, pictures: PictureSet, weights: str) -> None:
    with pytest.raises(DataError, match=SENTENCE):
        probe_features(pictures, config(weights))


def test_simple_methods_are_not_compared_on_such_features(pictures: PictureSet, weights: str) -> None:
    """A classifier that keeps none trains well, and its evaluation died in scikit-learn."""
    with pytest.raises(DataError, match=SENTENCE):
        evaluate_pictures(pictures, {}, config(weights, cached_views=0))
