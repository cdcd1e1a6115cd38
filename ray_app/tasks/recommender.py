"""A trained recommender: the model and its catalogue, as a checkpoint keeps them."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from ray_app.checkpoint import MANIFEST_FILE, CheckpointError, fetched, read_config, verify
from ray_app.data.dataset import Dataset
from ray_app.models.items import LabelRows
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape
from ray_app.storage import Storage
from ray_app.train_config import ModelConfig

MODEL_FILE = "model.safetensors"
ITEMS_FILE = "items.parquet"


@dataclass(frozen=True)
class TrainedModel:
    """A model and the catalogue it was trained for: row i of `items` is item index i + 1."""

    model: SequenceModel
    items: pa.Table
    encoder: str | None = None
    """What is read of items (`Dataset.encoder`)."""


def shape_of(config: ModelConfig, content_dim: int = 0, picture_dim: int = 0, *, labels: bool = False) -> SequenceShape:
    """The sizes that fix the model's parameters."""
    return SequenceShape(
        config.dim,
        config.num_layers,
        config.num_heads,
        config.feedforward_dim,
        config.max_history_len,
        config.repeats,
        content_dim,
        config.delta_norm if content_dim or picture_dim or labels else None,
        picture_dim,
        labels,
        config.likeness_dim if content_dim or picture_dim else 0,
        config.mark_clicks,
        config.temperature,
    )


def load_model(folder: Path) -> TrainedModel:
    """Rebuild a model from `model.safetensors`, `config.json` and `items.parquet`.

    Raises:
        CheckpointError: a file is missing, or the tensors do not fit the configuration: names and shapes that differ.
    """
    config = _model_config(folder)
    for name in (MODEL_FILE, ITEMS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: has no {name}, so it is not the published result of a run")
    tensors = load_file(folder / MODEL_FILE)
    model = made_for(tensors, config)
    _check_same(model.state_dict(), tensors, folder)
    model.load_state_dict(tensors)
    return TrainedModel(model.eval(), pq.read_table(folder / ITEMS_FILE), _encoder(folder))


def made_for(tensors: dict[str, Tensor], config: ModelConfig) -> SequenceModel:
    """A model that has the sizes of these tensors."""
    rows = tensors.get("row_of_item", torch.empty(0, dtype=torch.int64))
    tables = ("backbone.items", "backbone.labels", "head.labels")
    num_known, *num_labels = (len(tensors.get(f"{name}.weight", ())) for name in tables)
    labels = LabelRows(tensors["labels"], *num_labels) if "labels" in tensors else None
    content, pictures, alike = (tensors.get(name) for name in ("content", "content_image", "alike"))
    return new_model(config, rows, num_known, content, pictures, labels, alike)


def new_model(
    config: ModelConfig,
    row_of_item: Tensor,
    num_known: int,
    content: Tensor | None,
    pictures: Tensor | None,
    labels: LabelRows | None,
    alike: Tensor | None,
) -> SequenceModel:
    """A model of random weights, as large as its content asks; arguments as `SequenceModel`."""
    shape = shape_of(config, width_of(content), width_of(pictures), labels=labels is not None)
    settings = (config.dropout, content, config.id_dropout, config.lent_length, pictures, labels, alike)
    return SequenceModel(shape, row_of_item, num_known, *settings)


def width_of(vectors: Tensor | None) -> int:
    """How long vectors of content are, 0 where there are none."""
    return 0 if vectors is None else vectors.shape[1]


def _encoder(folder: Path) -> str | None:
    path = folder / MANIFEST_FILE
    encoder: str | None = json.loads(path.read_text()).get("encoder") if path.exists() else None
    return encoder


def _model_config(folder: Path) -> ModelConfig:
    try:
        return ModelConfig.model_validate(read_config(folder)["model"])
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"{folder}: its configuration is that of another version: {error}") from error


def load_trained(storage: Storage, uri: str) -> TrainedModel:
    """Fetch a published checkpoint, check its hashes and rebuild the model on the CPU."""
    with fetched(storage, uri) as folder:
        verify(folder)
        return load_model(folder)


def check_encoder(trained: TrainedModel | None, dataset: Dataset) -> None:
    """Refuse a model that reads other content than the dataset has.

    Raises:
        CheckpointError: other encoders made the vectors that it was trained on, or other labels were read.
    """
    if trained is not None and trained.encoder != dataset.encoder:
        there, here = trained.encoder or "no content", dataset.encoder or "none"
        raise CheckpointError(
            f"the pretrained model reads {there}, and {dataset.uri} has {here}: content must be the section that the "
            "model was trained with, the same encoders, max_tokens, image_size and labels"
        )


def _check_same(expected: dict[str, Tensor], given: dict[str, Tensor], folder: Path) -> None:
    def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    want, have = shapes(expected), shapes(given)
    faults = [
        f"  {name}: model {want.get(name, 'has none')}, file {have.get(name, 'has none')}"
        for name in sorted(want | have)
        if want.get(name) != have.get(name)
    ]
    if faults:
        raise CheckpointError("\n".join([f"{folder}: does not fit the model; nothing was loaded", *faults]))
