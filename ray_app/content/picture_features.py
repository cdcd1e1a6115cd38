"""Outputs of a frozen backbone for pictures or texts: computed once by Ray Data actors, kept beside their set.

What is kept is known by the backbone, its weights and what it was shown; killed in the middle, it goes on with the
files that are missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import Dataset

from ray_app.config import Config, fingerprint
from ray_app.content.pretrained import (
    as_shown,
    begin_backbone,
    evaluation_side,
    evaluation_views,
    training_views,
    weights_key,
)
from ray_app.data.dataset import FEATURES
from ray_app.data.picture_set import PartName, PictureSet
from ray_app.data.picture_shard import Range, Rows, contents_of, cut, joined, share_of, whole
from ray_app.data.pool import map_parts
from ray_app.errors import ConfigError, DataError
from ray_app.models.device import device_of
from ray_app.picture_config import ClassifierConfig, HeadConfig
from ray_app.storage import join

_VERSION = 1
"""Raise it when the same backbone gives other features."""
_IS_FINITE = "is_finite"


@dataclass(frozen=True)
class Features:
    """What a backbone made of every picture of a set: row for row beside its files."""

    pictures: PictureSet
    key: str
    num_views: int
    """Of training pictures: the first as it is, others augmented. Other parts have the first alone."""

    @cached_property
    def train_paths(self) -> frozenset[str]:
        """Of files that have all views. Folds share them, also for what they hold out."""
        return frozenset(file.path for file in self.pictures.files("train"))

    def uri(self, path: str) -> str:
        """The file beside the set's file at `path`."""
        return join(self.pictures.uri, FEATURES, self.key, path)

    def missing(self) -> list[str]:
        """Paths of the set's files whose features are not computed yet."""
        storage, paths = self.pictures.storage, dict.fromkeys(file.path for file in self.pictures.manifest.files)
        return [path for path in paths if not storage.exists(self.uri(path))]

    def read(self, rows: Range) -> Rows:
        """Values `[n, views, dim]` float16."""
        table = self.pictures.storage.read_table(self.uri(rows.path))
        views = self.num_views if rows.path in self.train_paths else 1
        return cut(table, rows, partial(_views, num_views=views), "vector")

    def rows(self, part: PartName) -> Rows:
        """All of a part, values `[n, views, dim]` float16."""
        return joined([self.read(one) for one in share_of(self.pictures, part, 0, 1)])

    def part(self, part: PartName) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors of a part's pictures as they are, `[n, dim]`, and their labels `[n]`."""
        rows = self.rows(part)
        return rows.values[:, 0].astype(np.float32), rows.labels


def _views(column: "pa.ChunkedArray[Any]", num_views: int) -> NDArray[np.float16]:
    flat: NDArray[np.float16] = pa.concat_arrays(column.chunks).flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), num_views, -1)


def cached_features(pictures: PictureSet, config: Config) -> Features | None:
    """What training reads while the backbone is frozen, whether it is computed yet or not; None where it reads none.

    There is none without pretrained weights, without `classifier.cached_views`, and for the conv head, whose maps would
    take more room than the pictures.
    """
    classifier = config.classifier
    assert classifier is not None
    if classifier.weights is None or not classifier.cached_views or classifier.head.kind == "conv":
        return None
    views = classifier.cached_views
    shown = [classifier.size, classifier.augment] if views > 1 else []
    weights = weights_key(classifier, pictures.storage)
    size = evaluation_side(classifier) if pictures.kind == "pictures" else ["tokens", classifier.max_tokens]
    key = fingerprint(_VERSION, weights, size, config.train.precision, views, *shown)
    return Features(pictures, key, views)


def compute(features: Features, config: Config, progress: Progress | None = None) -> None:
    """Compute what is missing, on `train.num_workers` actors.

    Raises:
        ConfigError, CheckpointError: as `begin_backbone`.
        DataError: what the backbone gives is not finite; of that nothing is kept.
    """
    pictures, missing = features.pictures, features.missing()
    if not missing:
        return
    assert config.classifier is not None
    begin_backbone(config.classifier, pictures.storage, pictures.kind)  # a sentence here, a dead actor there
    bar = (
        progress.add_task(f"features of {pictures.kind}", total=pictures.manifest.counts.pictures_in)
        if progress
        else None
    )
    for table in map_parts(missing, Encoding, {"features": features, "config": config}, config.train):
        _refuse(table, config.classifier)
        if progress and bar is not None:
            progress.advance(bar, table["pictures"][0].as_py())


def compute_here(features: Features, config: Config) -> None:
    """Compute what is missing in this process, which holds CPUs that a pool would wait for; raises as `compute`."""
    if missing := features.missing():
        assert config.classifier is not None
        encoding = Encoding(features, config)
        for path in missing:
            for table in encoding(path):
                _refuse(table, config.classifier)


def _refuse(table: pa.Table, classifier: ClassifierConfig) -> None:
    if not table[_IS_FINITE][0].as_py():
        raise DataError(
            f"{classifier.backbone} gives features that are not finite in 16 bits; are these the weights of a trained "
            f"network? Name others in classifier.weights (now {classifier.weights}), or another classifier.backbone"
        )


def probe_features(pictures: PictureSet, config: Config, progress: Progress | None = None) -> Features:
    """Features of the pictures as they are, for methods that know nothing else; raises as `compute`."""
    assert config.classifier is not None
    plain = config.classifier.model_copy(update={"cached_views": 1, "head": HeadConfig()})
    config = config.model_copy(update={"classifier": plain})
    found = cached_features(pictures, config)
    if found is None:
        raise ConfigError(["classifier.weights: unset, and what a random network sees is not worth comparing with"])
    compute(found, config, progress)
    return found


class Encoding:
    """An actor: loads the backbone once, then computes and writes the features of one file after another."""

    def __init__(self, features: Features, config: Config) -> None:
        assert config.classifier is not None
        torch.set_num_threads(config.train.cpus_per_worker)
        self._features, self._config = features, config.classifier
        self._device = device_of(config.train.use_gpu)
        self._bf16 = config.train.precision == "bf16"
        pictures = features.pictures
        self._backbone = begin_backbone(config.classifier, pictures.storage, pictures.kind).to(self._device).eval()

    def __call__(self, path: str) -> Iterator[pa.Table]:
        """How many pictures the file has, and whether their features are finite and were written therefore."""
        pictures = self._features.pictures
        rows = contents_of(pictures, whole(path))
        views = [evaluation_views(self._backbone, self._config)]
        if path in self._features.train_paths:
            views += [training_views(self._backbone, self._config)] * (self._features.num_views - 1)
        vectors = np.stack([self._vectors(rows, one, seed) for seed, one in enumerate(views)], axis=1)
        is_finite = bool(np.isfinite(vectors).all())
        if is_finite:
            lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1] * vectors.shape[2])
            table = pa.table({"vector": lists, "label": pa.array(rows.labels)})
            pictures.storage.write_table(self._features.uri(path), table)
        yield pa.table({"pictures": [len(rows.labels)], _IS_FINITE: [is_finite]})

    @torch.inference_mode()
    def _vectors(self, rows: Rows, views: Dataset[Tensor], seed: int) -> NDArray[np.float16]:
        found = []
        for start in range(0, len(rows.labels), self._config.batch_size):
            batch = rows.values[start : start + self._config.batch_size].tolist()
            shown = as_shown(self._backbone, views[batch, seed * len(rows.labels) + start], self._device)
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16):
                found.append(self._backbone(shown).half().cpu())
        return torch.cat(found).numpy()
