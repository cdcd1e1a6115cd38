"""A fold trained in one process: published, told, and by features that all folds share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import picture_set
from safetensors.torch import save_file

from ray_app.config import Config, parse_config
from ray_app.content.picture_features import cached_features, compute_here
from ray_app.data.folds import folds_of, without_test
from ray_app.data.picture_set import PictureSet
from ray_app.models.backbones import build_backbone
from ray_app.storage import join
from ray_app.tasks.answers import answers_of
from ray_app.training.run import Run
from ray_app.tuning.side_by_side import train_alone

BACKBONE = "torchvision:resnet18"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_file(build_backbone(BACKBONE).network.state_dict(), folder / "weights.safetensors")
    frozen = [{"match": "^backbone", "rate": "frozen"}, {"match": "^head"}]
    network = {"backbone": BACKBONE, "weights": str(folder / "weights.safetensors"), "size": 32, "batch_size": 8}
    return parse_config(
        {
            "task": {"kind": "classify"},
            "pictures": {},
            "classifier": {**network, "cached_views": 2},
            "schedule": {"phases": [{"name": "head", "epochs": 4, "learning_rate": 0.03, "groups": frozen}]},
            "cross_validation": {"folds": 3},
            "storage": {"path": str(folder / "runs")},
        }
    )


def feature_files(pictures: PictureSet, config: Config) -> dict[str, np.ndarray]:
    features = cached_features(pictures, config)
    assert features is not None
    paths = [file.path for file in pictures.manifest.files]
    tables = {path: pictures.storage.read_table(features.uri(path)) for path in paths}
    return {path: np.array(table["vector"].to_pylist()) for path, table in tables.items()}


def test_a_fold_is_published_and_told(tmp_path: Path, config: Config) -> None:
    pictures = picture_set(tmp_path, train=36)
    assert config.cross_validation is not None
    folds = folds_of(pictures, config.cross_validation)
    run = Run("finetune", config, config.schedule, folds[1])
    train_alone(run)
    answers = answers_of(folds[1], run.uri, config)
    assert len(answers.keys) == folds[1].size("test") == 12
    assert (answers.probabilities.argmax(axis=1) == answers.labels).mean() > 0.8
    # What this fold computed is of whole files with all views, as any other fold and the set itself want it.
    found = feature_files(without_test(pictures), config)
    assert all(not (features := cached_features(fold, config)) or not features.missing() for fold in folds)
    pictures.storage.delete_tree(join(pictures.uri, "features"))
    features = cached_features(without_test(pictures), config)
    assert features is not None
    compute_here(features, config)
    again = feature_files(without_test(pictures), config)
    assert sum(len(values) for values in again.values()) == 36 + 9
    assert found.keys() == again.keys()
    assert all(np.array_equal(found[path], again[path]) for path in again)
