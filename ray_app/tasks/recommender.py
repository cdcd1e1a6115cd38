"""A trained recommender: the model and its catalogue, read from a checkpoint or begun for a new catalogue."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from ray_app.checkpoint import MANIFEST_FILE, CheckpointError, fetched, read_config, verify
from ray_app.content.labels import label_names, label_rows, rows_by_name
from ray_app.data.dataset import Dataset
from ray_app.models.likeness import likeness_vectors
from ray_app.models.sequence import LabelRows, SequenceModel
from ray_app.models.transformer import SequenceShape
from ray_app.schema import Col
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
    model = _made_for(tensors, config)
    _check_same(model.state_dict(), tensors, folder)
    model.load_state_dict(tensors)
    return TrainedModel(model.eval(), pq.read_table(folder / ITEMS_FILE), _encoder(folder))


def _made_for(tensors: dict[str, Tensor], config: ModelConfig) -> SequenceModel:
    """A model that has the sizes of these tensors."""
    rows = tensors.get("row_of_item", torch.empty(0, dtype=torch.int64))
    tables = ("backbone.items", "backbone.labels", "head.labels")
    num_known, *num_labels = (len(tensors.get(f"{name}.weight", ())) for name in tables)
    labels = LabelRows(tensors["labels"], *num_labels) if "labels" in tensors else None
    content, pictures, alike = (tensors.get(name) for name in ("content", "content_image", "alike"))
    return _new_model(config, rows, num_known, content, pictures, labels, alike)


def _new_model(
    config: ModelConfig,
    row_of_item: Tensor,
    num_known: int,
    content: Tensor | None,
    pictures: Tensor | None,
    labels: LabelRows | None,
    alike: Tensor | None,
) -> SequenceModel:
    shape = shape_of(config, _dim(content), _dim(pictures), labels=labels is not None)
    settings = (config.dropout, content, config.id_dropout, config.lent_length, pictures, labels, alike)
    return SequenceModel(shape, row_of_item, num_known, *settings)


def _dim(vectors: Tensor | None) -> int:
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


def fitted_to(
    trained: TrainedModel,
    items: pa.Table,
    seed: int,
    content: NDArray[np.float16] | None = None,
    pictures: NDArray[np.float16] | None = None,
    labels: Sequence[str] = (),
) -> SequenceModel:
    """The model over the catalogue `items`: as it is if that is its own, else as fine-tuning would begin with it."""
    if trained.items[Col.ITEM].equals(items[Col.ITEM]):
        return trained.model
    shape = {name: size for name, size in vars(trained.model.shape).items() if name in ModelConfig.model_fields}
    return build_model(ModelConfig.model_validate(shape), items, seed, trained, content, pictures, labels)[0].eval()


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


def build_model(
    config: ModelConfig,
    items: pa.Table,
    seed: int,
    pretrained: TrainedModel | None = None,
    content: NDArray[np.float16] | None = None,
    pictures: NDArray[np.float16] | None = None,
    labels: Sequence[str] = (),
) -> tuple[SequenceModel, dict[str, Tensor]]:
    """The model at its start, and the pretrained values of its backbone (empty when it starts from random weights).

    Items are matched with the pretrained catalogue by id: those it knows keep their vectors, in the backbone; new ones
    begin, in the head, near the mean of the known ones. Biases begin at the log of the item's share of this catalogue's
    train events, smoothed toward its share in pretraining, plus what pretraining added to that share: the first guess
    is what is popular here, and not what was popular there.

    With `content` `[items, content_dim]` (`vectors.item_content`), `pictures` (`vectors.item_pictures`) or `labels`
    (names of columns) new items begin at what their content says instead, and what has no train events stands there
    until `complete`. Labels that the pretrained model knows by name keep their vectors, in the backbone.

    Raises:
        CheckpointError: the pretrained model has other sizes.
    """
    torch.manual_seed(seed)
    vectors_of, seen = (None if part is None else torch.from_numpy(part) for part in (content, pictures))
    parts = [part for part in (vectors_of, seen) if part is not None]
    alike = likeness_vectors(parts, config.likeness_dim) if parts and config.likeness_dim else None
    if pretrained is None:
        rows = label_rows(label_names(items, labels))[0] if labels else None
        model = _new_model(config, torch.arange(len(items)), 0, vectors_of, seen, rows, alike)
        if config.bias_init == "popularity":
            model.head.bias.data.copy_(_log_share(_counts(items)))
        model.fit_content()
        if model.is_described:
            model.head.items.weight.data[_counts(items) == 0] = 0
        return model, {}
    source = pretrained.model
    _check_shape(source.shape, shape_of(config, _dim(vectors_of), _dim(seen), labels=bool(labels)))
    rows, in_labels = _labels_known_to(pretrained, items, labels)
    index_in_source = _match(items, pretrained.items)
    known = index_in_source >= 0
    row_of_item = np.empty(len(items), np.int64)
    row_of_item[known] = np.arange(known.sum())
    row_of_item[~known] = np.arange(known.sum(), len(items))
    model = _new_model(config, torch.from_numpy(row_of_item), int(known.sum()), vectors_of, seen, rows, alike)
    where_known, in_source = torch.from_numpy(known), torch.from_numpy(index_in_source[known])
    with torch.no_grad():
        vectors = source.own_table()
        tensors = source.backbone.state_dict() | {"items.weight": vectors[in_source]}
        if rows is not None:
            tensors["labels.weight"] = source.label_table()[in_labels]
        model.backbone.load_state_dict(tensors)
        if not known.any():
            model.move_content()
        if model.head.repeats is not None and source.head.repeats is not None:
            model.head.repeats.load_state_dict(source.head.repeats.state_dict())
        if model.head.likeness is not None and source.head.likeness is not None and known.any():
            model.head.likeness.load_state_dict(source.head.likeness.state_dict())
        there = _log_share(_counts(pretrained.items))
        prior = torch.full((len(items),), there.exp().min().item())
        prior[where_known] = there[in_source].exp()
        model.head.bias.copy_(_log_share(_counts(items), prior))
        model.head.bias[where_known] += source.head.bias[in_source] - there[in_source]
        if model.is_described:
            model.head.items.weight.zero_()
        elif len(in_source):
            model.head.items.weight.add_(vectors[in_source].mean(0))
    reference = {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith("backbone.")}
    return model, reference


def complete(tensors: dict[str, Tensor], config: ModelConfig, items: pa.Table) -> dict[str, Tensor]:
    """The weights of a trained model; where it reads content, items that no training saw are introduced by theirs."""
    if tensors.keys().isdisjoint(("content", "content_image", "labels")):
        return tensors
    model = _made_for(tensors, config)
    model.load_state_dict(tensors)
    unseen = (_counts(items) == 0) & (model.row_of_item >= model.num_known)
    model.introduce(unseen.nonzero().flatten() + 1)
    return model.state_dict()


def _labels_known_to(
    pretrained: TrainedModel, items: pa.Table, labels: Sequence[str]
) -> tuple[LabelRows | None, list[int]]:
    """Rows for the labels of `items`, and of those that the pretrained model knows its own."""
    if pretrained.model.labels is None:
        return None, []
    known = rows_by_name(label_names(pretrained.items, labels), pretrained.model.labels)
    return label_rows(label_names(items, labels), known)


def _counts(items: pa.Table) -> Tensor:
    """Train events of each item, float64 `[items]`."""
    return torch.from_numpy(items[Col.TRAIN_COUNT].to_numpy().astype(np.float64))


def _log_share(counts: Tensor, prior: Tensor | None = None) -> Tensor:
    """Log of each item's share of the events, float32 `[items]`, after half an event per item was added.

    These are spread evenly, or as `prior` (up to a factor) has it.
    """
    share = torch.ones_like(counts) if prior is None else prior.double()
    smoothed = counts + 0.5 * len(counts) * share / share.sum()
    return (smoothed / smoothed.sum()).log().float()


def _check_shape(source: SequenceShape, target: SequenceShape) -> None:
    source = replace(source, likeness_dim=target.likeness_dim)  # is of the head
    if source.delta_norm is None:  # what was free may be held afterwards
        source = replace(source, delta_norm=target.delta_norm)
    faults = [
        f"  model.{name}: pretrained {getattr(source, name)}, asked for {getattr(target, name)}"
        for name in vars(source)
        if getattr(source, name) != getattr(target, name)
    ]
    if faults:
        raise CheckpointError("\n".join(["the pretrained model has other sizes; nothing was loaded", *faults]))


def _match(items: pa.Table, source: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Position of each item in the source catalogue, -1 where it has none; ids are compared as text."""
    mine, theirs = items[Col.ITEM].cast(pa.string()), source[Col.ITEM].cast(pa.string())
    found = pa.compute.index_in(mine, value_set=theirs).fill_null(-1)
    return np.asarray(found.to_numpy(), np.int64)
