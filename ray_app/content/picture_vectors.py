"""Vectors of the pictures of items, made as those of texts; of what cannot be read there is a note."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import torch
from rich.progress import Progress

from ray_app.content.encoding import PARTS, VECTORS, Vectors, by_hash, encode, finish, known_vectors
from ray_app.content.picture_encoder import PictureEncoder, picture_key
from ray_app.content.vectors import HASH, features_table, text_hash
from ray_app.content_config import ContentConfig
from ray_app.data.dataset import FEATURES, Dataset
from ray_app.data.picture_places import together
from ray_app.data.pool import Shared
from ray_app.data.quarantine import Reason, reasons_table, refuse_rows
from ray_app.errors import DataError
from ray_app.schema import Col
from ray_app.storage import Storage, join
from ray_app.train_config import TrainConfig

REFUSED = "refused.parquet"
PICTURES_PER_PART = 256
"""What a killed run loses of each actor, at most, where pictures are in files of their own."""


def with_pictures(dataset: Dataset, content: ContentConfig, train: TrainConfig, progress: Progress | None) -> Dataset:
    """The dataset with the vectors of its items' pictures, and a note on the items that go without.

    Raises:
        ConfigError, CheckpointError: as `begin_backbone`.
        DataError: no item has a picture, or none can be read.
    """
    storage = dataset.storage
    key = picture_key(content, storage)
    uri = join(dataset.uri, FEATURES, key)
    images = dataset.items()[Col.IMAGE].to_pylist()
    if not storage.exists(join(uri, VECTORS)):
        places = sorted({image for image in images if image})
        if not places:
            raise DataError(
                f"{dataset.uri}: no item has a picture, so there is nothing to encode; look at data.items and "
                "data.item_columns.image (a dataset of an earlier version has none: delete it), or leave content.image "
                "out"
            )
        _keep(storage, uri, places, _encoded(dataset, uri, key, places, content, train, progress))
    return _noted(replace(dataset, picture_features=join(uri, VECTORS)), join(uri, REFUSED), images)


@dataclass
class _Found:
    """What is known of pictures so far."""

    vectors: Vectors
    """By the hash of a picture."""
    said: dict[bytes, tuple[bytes | None, str | None, str | None]] = field(default_factory=dict)
    """By the hash of a place: the hash of its picture, or the reason why there is none, and what exactly is wrong."""

    def take(self, table: pa.Table) -> None:
        """Rows of `schema.picture_features_schema`."""
        self.vectors |= by_hash(table, Col.PICTURE_HASH)
        columns = (table[name].to_pylist() for name in (Col.PICTURE_HASH, Col.REASON, Col.RAW))
        self.said |= zip(table[Col.TEXT_HASH].to_pylist(), zip(*columns, strict=True), strict=True)

    def lacks(self, place: str) -> bool:
        """Whether nobody has looked there, or the vector of what was found is gone."""
        picture, reason, _ = self.said.get(text_hash(place), (None, None, None))
        return reason is None and picture not in self.vectors


def _encoded(
    dataset: Dataset,
    uri: str,
    key: str,
    places: Sequence[str],
    content: ContentConfig,
    train: TrainConfig,
    progress: Progress | None,
) -> _Found:
    storage, found = dataset.storage, _Found(known_vectors(dataset, key, Col.PICTURE_HASH))
    for entry in storage.list_files(join(uri, PARTS)):
        found.take(storage.read_table(entry.uri))
    while missing := [place for place in places if found.lacks(place)]:
        encoder = PictureEncoder(storage, content, Shared(frozenset(found.vectors)))
        encoder.load(torch.device("cpu"))  # a sentence here, a dead actor there
        parts = together(storage, missing, PICTURES_PER_PART)
        for table in encode(storage, uri, parts, encoder, train, "pictures", progress):
            found.take(table)
    return found


def _keep(storage: Storage, uri: str, places: Sequence[str], found: _Found) -> None:
    """Write a row for each place with a picture, and the others apart."""
    rows = [(place, digest, *found.said[digest]) for place, digest in zip(places, map(text_hash, places), strict=True)]
    kept = [(digest, picture) for _, digest, picture, reason, _ in rows if picture is not None and reason is None]
    refused = [(place, reason, fault) for place, _, _, reason, fault in rows if reason is not None]
    if not kept:
        storage.delete_tree(uri)  # once the fault is mended, they are looked for again
        reasons = reasons_table(Counter(str(reason) for _, reason, _ in refused))
        raise DataError(
            f"{uri}: none of the {len(places):,} pictures that the catalogue names can be read; the first is "
            f"{refused[0][0]}: {refused[0][2]}; look at data.item_columns.image\n{reasons}"
        )
    if refused:
        columns = [pa.array(column, pa.string()) for column in zip(*refused, strict=True)]
        zeros = pa.array(np.zeros(len(refused)), pa.int64())
        storage.write_table(join(uri, REFUSED), refuse_rows(columns[0], zeros, columns[1], {"fault": columns[2]}))
    table = features_table([digest for digest, _ in kept], np.stack([found.vectors[picture] for _, picture in kept]))
    finish(storage, uri, table.append_column(Col.PICTURE_HASH, pa.array([picture for _, picture in kept], HASH)))


def _noted(dataset: Dataset, refused_uri: str, images: Sequence[str | None]) -> Dataset:
    """Which items have no vector is noted in what the dataset says of itself."""
    storage, reasons = dataset.storage, dict[str, str]()
    if storage.exists(refused_uri):
        table = storage.read_table(refused_uri)
        reasons = dict(zip(table[Col.SOURCE].to_pylist(), table[Col.REASON].to_pylist(), strict=True))
    lost = Counter(reasons.get(image) if image else str(Reason.MISSING_PICTURE) for image in images)
    lost.pop(None, None)
    if not lost:
        return dataset
    told = ", ".join(f"{count:,} {reason}" for reason, count in lost.most_common())
    where = f" (see {refused_uri}, and delete its folder to look again)" if reasons else ""
    note = f"{lost.total():,} of {len(images):,} items go without a picture: {told}{where}."
    return replace(dataset, manifest=dataset.manifest.model_copy(update={"notes": [*dataset.manifest.notes, note]}))
