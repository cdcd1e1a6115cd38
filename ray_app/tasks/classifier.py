"""A trained classifier: begun from a pretrained backbone, written to a checkpoint, and read from one."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from ray_app.checkpoint import CheckpointError, fetched, read_config, verify
from ray_app.content.model_folder import described_in
from ray_app.content.pretrained import (
    OURS,
    as_shown,
    begin_backbone,
    evaluation_views,
    hf_folder,
    new_backbone,
    to_channels_last,
)
from ray_app.data.picture_set import Content, Kind
from ray_app.models.adapters import adapt, merge
from ray_app.models.classifier import Classifier, Head
from ray_app.models.encoders import POOLER
from ray_app.picture_config import ClassifierConfig
from ray_app.storage import Storage

MODEL_FILE, CLASSES_FILE = "model.safetensors", "classes.json"
ENCODER_FOLDER = "encoder"
"""What describes an `hf:` backbone, whose own folder may be gone when the checkpoint is read."""


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and the names of its classes."""

    model: Classifier
    classes: list[str]
    config: ClassifierConfig

    def probabilities(self, inputs: Sequence[Content], device: torch.device | None = None) -> NDArray[np.float32]:
        """Of each picture or text for each class, `[inputs, classes]`; they sum to 1."""
        return torch.from_numpy(self.logits(inputs, device)).softmax(1).numpy()

    @torch.inference_mode()
    def logits(self, inputs: Sequence[Content], device: torch.device | None = None) -> NDArray[np.float32]:
        """Of each picture or text for each class, `[inputs, classes]`.

        Of a picture and its mirror image (`test_mirrored`) it is the mean of logits, not of probabilities: so one
        factor makes all answers surer, and none another (`calibration`).
        """
        device = device or torch.device("cpu")
        model = self.model.to(device).eval()
        views, size = evaluation_views(model.backbone, self.config), self.config.batch_size
        found = [torch.empty(0, len(self.classes))]
        for start in range(0, len(inputs), size):
            shown = as_shown(model.backbone, views[inputs[start : start + size], 0], device)
            said = model(shown)
            if self.config.test_mirrored:
                said = (said + model(shown.flip(-1))) / 2
            found.append(said.cpu())
        return torch.cat(found).numpy()


def begin_classifier(
    config: ClassifierConfig, num_classes: int, seed: int, storage: Storage, kind: Kind = "pictures"
) -> Classifier:
    """The pretrained backbone, or a random one, under a new head; raises as `begin_backbone` and `adapt`."""
    torch.manual_seed(seed)
    backbone = begin_backbone(config, storage, kind)
    if config.lora is not None:
        adapt(backbone, config.lora)
    return Classifier(backbone, _head(config, backbone.dim, num_classes))


def without_adapters(
    tensors: dict[str, Tensor], config: ClassifierConfig, num_classes: int, storage: Storage, kind: Kind
) -> dict[str, Tensor]:
    """Trained weights as they are published: those of the network itself, with what its adapters have learned."""
    if config.lora is None:
        return tensors
    model = begin_classifier(config, num_classes, 0, storage, kind)
    model.load_state_dict(tensors)
    merge(model.backbone)
    return model.state_dict()


def write_classes(folder: Path, classes: Sequence[str]) -> None:
    """What the outputs of the model stand for."""
    (folder / CLASSES_FILE).write_text(json.dumps(list(classes), ensure_ascii=False), encoding="utf-8")


def write_encoder(folder: Path, config: ClassifierConfig, storage: Storage) -> None:
    """What an `hf:` backbone is built from, its weights apart; raises as `begin_classifier`."""
    with hf_folder(config, storage) as source:
        if source is None:
            return
        for path in described_in(source):
            (folder / ENCODER_FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, folder / ENCODER_FOLDER / path)


def load_classifier(storage: Storage, uri: str) -> TrainedClassifier:
    """A published checkpoint, its hashes checked, on the CPU.

    Raises:
        CheckpointError: it is incomplete, damaged, or does not fit its configuration.
    """
    with fetched(storage, uri) as folder:
        verify(folder)
        try:
            config = ClassifierConfig.model_validate(read_config(folder)["classifier"])
        except (KeyError, ValidationError) as error:
            raise CheckpointError(f"{folder}: not a classifier of this version: {error}") from error
        return read_classifier(folder, config)


def read_classifier(folder: Path, config: ClassifierConfig) -> TrainedClassifier:
    """What was written to a local folder: model, classes and what describes an encoder.

    Raises:
        CheckpointError: the tensors do not fit.
    """
    classes: list[str] = json.loads((folder / CLASSES_FILE).read_text(encoding="utf-8"))
    tensors = load_file(folder / MODEL_FILE)
    described = folder / ENCODER_FOLDER
    pooler = any(name.startswith(f"{OURS}encoder.{POOLER}") for name in tensors)
    backbone = new_backbone(config, folder=described if described.is_dir() else None, pooler=pooler)
    model = Classifier(backbone, _head(config, backbone.dim, len(classes)))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: its tensors do not fit its configuration: {error}") from error
    return TrainedClassifier(to_channels_last(model).eval(), classes, config)


def _head(config: ClassifierConfig, dim: int, num_classes: int) -> Head:
    return Head(config.head.kind, dim, num_classes, config.head.hidden, config.head.dropout)
