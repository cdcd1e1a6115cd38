"""A prepared dataset: a folder that counts as complete once its manifest is there."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from ray_app.config import fingerprint
from ray_app.data_config import DataConfig, SplitConfig
from ray_app.errors import DataError
from ray_app.schema import SCHEMA_VERSION, Col, items_schema
from ray_app.storage import FileEntry, Storage, join

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MANIFEST = "manifest.json"
ITEMS = "items.parquet"
FEATURES = "features"
AnyManifest = TypeVar("AnyManifest", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class SourceRecord(_Record):
    """A raw file that was read."""

    uri: str
    size: int
    etag: str
    rows: int | None
    """None if the file could not be read."""


class Counts(_Record):
    """Where every row went. `rows_in` = `rows_kept` + `rows_quarantined`, always."""

    rows_in: int
    rows_kept: int
    rows_quarantined: int
    quarantined: dict[str, int]
    users: int
    items: int
    train_events: int
    validation_events: int
    test_events: int
    unknown_item_events: int
    """Held-out events whose item is not in the vocabulary."""


class CatalogCounts(_Record):
    """Where every row of the catalogue went."""

    rows_in: int
    rows_kept: int
    quarantined: dict[str, int]


class IdTypes(_Record):
    """Arrow types of the retailer's ids."""

    user_id: Literal["int64", "string"]
    item_id: Literal["int64", "string"]

    @property
    def user_type(self) -> pa.DataType:
        """Of user ids."""
        return pa.type_for_alias(self.user_id)

    @property
    def item_type(self) -> pa.DataType:
        """Of item ids."""
        return pa.type_for_alias(self.item_id)


class Cutoffs(_Record):
    """Microseconds since 1970 UTC; None under leave-one-out."""

    validation_start: int | None
    test_start: int | None

    def split(self) -> SplitConfig:
        """Settings that divide another log here too."""
        starts = (self.validation_start, self.test_start)
        validation, test = (None if start is None else EPOCH + timedelta(microseconds=start) for start in starts)
        kind: Literal["temporal", "leave_one_out"] = "leave_one_out" if test is None else "temporal"
        return SplitConfig(kind=kind, validation_start=validation, test_start=test)


class Part(_Record):
    """One file of sequences."""

    path: str
    users: int
    train_events: int
    train_targets: int
    """Events of the train part that have one before them."""


class Manifest(_Record):
    """What a dataset holds and what it was made from."""

    schema_version: int
    fingerprint: str
    data: dict[str, Any]
    """The resolved data section of the configuration."""
    sources: list[SourceRecord]
    counts: Counts
    catalog: CatalogCounts | None
    id_types: IdTypes
    cutoffs: Cutoffs
    notes: list[str]
    """Sentences for the person: what was decided about the data on the way."""
    parts: list[Part]


@dataclass(frozen=True)
class Dataset:
    """A complete dataset."""

    storage: Storage
    uri: str
    manifest: Manifest
    features: str | None = None
    """The file with the vectors of the items' texts (`content.features`), where texts are read."""
    picture_features: str | None = None
    """That with the vectors of their pictures."""
    labels: tuple[str, ...] = ()
    """Columns of items whose labels are read."""

    @property
    def encoder(self) -> str | None:
        """What is read of items: hashes of encoders and their settings, which name the folders, and labels."""
        keys = [uri.split("/")[-2] for uri in (self.features, self.picture_features) if uri]
        return "+".join([*keys, *self.labels]) or None

    @property
    def num_items(self) -> int:
        """Items of the vocabulary; their indices are 1 to `num_items`."""
        return self.manifest.counts.items

    @property
    def part_uris(self) -> list[str]:
        """The files of sequences, in order."""
        return [join(self.uri, part.path) for part in self.manifest.parts]

    @property
    def user_type(self) -> pa.DataType:
        """int64 or string."""
        return self.manifest.id_types.user_type

    @property
    def item_type(self) -> pa.DataType:
        """int64 or string."""
        return self.manifest.id_types.item_type

    def items(self) -> pa.Table:
        """The vocabulary: row i is the item of index i + 1 (`schema.items_schema`)."""
        table = self.storage.read_table(join(self.uri, ITEMS))
        if Col.IMAGE in table.column_names:
            return table
        # Earlier versions left pictures out.
        table = table.append_column(Col.IMAGE, pa.nulls(len(table), pa.string()))
        return table.select(items_schema(self.item_type).names)


def thinned(dataset: Dataset, share: float) -> Dataset:
    """The same log with so many of its users, in whole files, of which each has the users of some hashes of ids.

    Items and their counts stay those of the whole log.
    """
    parts = dataset.manifest.parts
    kept = parts[: max(1, round(share * len(parts)))]
    if len(kept) == len(parts):
        return dataset
    changes = {"parts": kept, "fingerprint": fingerprint(dataset.manifest.fingerprint, [part.path for part in kept])}
    return replace(dataset, manifest=dataset.manifest.model_copy(update=changes))


def dataset_uri(storage: Storage, name: str, data: DataConfig, entries: list[FileEntry]) -> str:
    """Where the dataset made of these files by this configuration is, or would be."""
    return join(storage.root(name), "datasets", dataset_fingerprint(data, entries))


def dataset_fingerprint(data: DataConfig, entries: list[FileEntry]) -> str:
    """The same for the same files, the same configuration and the same meaning of what is written."""
    return fingerprint(SCHEMA_VERSION, data, [list(entry) for entry in entries])


def open_dataset(storage: Storage, uri: str) -> Dataset:
    """A dataset that was prepared before.

    Raises:
        DataError: it is not complete, or was written by another version.
        StorageError: it cannot be read.
    """
    return Dataset(storage, uri, open_manifest(storage, uri, Manifest))


def open_manifest(storage: Storage, uri: str, kind: type[AnyManifest]) -> AnyManifest:
    """The manifest of what was prepared at `uri`; raises as `open_dataset`."""
    path = join(uri, MANIFEST)
    if not storage.exists(path):
        raise DataError(f"{uri}: no complete dataset there (no {MANIFEST}); run jobs/prepare.py first")
    try:
        manifest = kind.model_validate_json(storage.read_bytes(path))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise DataError(f"{path}: not a manifest of this version ({faults})") from None
    version = getattr(manifest, "schema_version", None)
    if version != SCHEMA_VERSION:
        raise DataError(f"{path}: has schema version {version}, this program reads {SCHEMA_VERSION}")
    return manifest
