"""A recommender at its start: for a catalogue, from random weights or from what another training has learned."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_app.checkpoint import CheckpointError
from ray_app.content.labels import label_names, label_rows, rows_by_name
from ray_app.models.items import LabelRows
from ray_app.models.likeness import likeness_vectors
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape
from ray_app.schema import Col
from ray_app.tasks.recommender import TrainedModel, made_for, new_model, shape_of, width_of
from ray_app.train_config import ModelConfig


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
        model = new_model(config, torch.arange(len(items)), 0, vectors_of, seen, rows, alike)
        if config.bias_init == "popularity":
            model.head.bias.data.copy_(_log_share(_counts(items)))
        model.fit_content()
        if model.is_described:
            model.head.items.weight.data[_counts(items) == 0] = 0
        return model, {}
    source = pretrained.model
    _check_shape(source.shape, shape_of(config, width_of(vectors_of), width_of(seen), labels=bool(labels)))
    rows, in_labels = _labels_known_to(pretrained, items, labels)
    index_in_source = _match(items, pretrained.items)
    known = index_in_source >= 0
    row_of_item = np.empty(len(items), np.int64)
    row_of_item[known] = np.arange(known.sum())
    row_of_item[~known] = np.arange(known.sum(), len(items))
    model = new_model(config, torch.from_numpy(row_of_item), int(known.sum()), vectors_of, seen, rows, alike)
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


def complete(tensors: dict[str, Tensor], config: ModelConfig, items: pa.Table) -> dict[str, Tensor]:
    """The weights of a trained model; where it reads content, items that no training saw are introduced by theirs."""
    if tensors.keys().isdisjoint(("content", "content_image", "labels")):
        return tensors
    model = made_for(tensors, config)
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
