"""A prepared set of labelled pictures or texts: a folder that counts as complete once its manifest is there."""

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from ray_app.data.dataset import SourceRecord
from ray_app.storage import Storage, join

PartName = Literal["train", "validation", "test"]
Kind = Literal["pictures", "texts"]
Content = bytes | str
"""A picture or a text."""
PICTURES_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # JPEG or PNG, upright, in RGB
        pa.field("label", pa.int32(), nullable=False),  # index into `PictureManifest.classes`
        pa.field("hash", pa.binary(16), nullable=False),  # of `image`: equal pictures stay in one part
        pa.field("fold_by", pa.string()),  # what cross-validation keeps together or puts in order
    ]
)
_TEXT = pa.field("text", pa.string(), nullable=False)
SCHEMAS: dict[Kind, pa.Schema] = {"pictures": PICTURES_SCHEMA, "texts": PICTURES_SCHEMA.set(1, _TEXT)}
COLUMNS: dict[Kind, str] = {kind: schema.names[1] for kind, schema in SCHEMAS.items()}
"""The column of the contents."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class PictureFile(_Record):
    """One file of pictures, or texts, all of one part."""

    path: str
    part: PartName
    pictures: int
    rows: tuple[int, ...] | None = None
    """Which of the file's, where they are not all: a fold shares its files with others."""


class PictureCounts(_Record):
    """Where all of them went. `pictures_in` = train + validation + test + the sum of `quarantined`, always."""

    pictures_in: int
    train: int
    validation: int
    test: int
    quarantined: dict[str, int]


class PictureManifest(_Record):
    """What a set holds and what it was made from."""

    schema_version: int
    fingerprint: str
    kind: Kind = "pictures"
    """What is counted below."""
    pictures: dict[str, Any]
    """The resolved sections of the configuration that it depends on."""
    sources: list[SourceRecord]
    counts: PictureCounts
    classes: list[str]
    groups: list[str] | None
    """Coarser labels, where there are any."""
    group_of_class: list[int] | None
    train_counts: list[int]
    """Of each class."""
    notes: list[str]
    files: list[PictureFile]


@dataclass(frozen=True)
class PictureSet:
    """A complete set of pictures or texts (`SCHEMAS`)."""

    storage: Storage
    uri: str
    manifest: PictureManifest

    @property
    def kind(self) -> Kind:
        """What it is a set of."""
        return self.manifest.kind

    @property
    def column(self) -> str:
        """Where the contents are."""
        return COLUMNS[self.kind]

    @property
    def num_classes(self) -> int:
        """Labels are 0 to `num_classes` - 1."""
        return len(self.manifest.classes)

    def files(self, part: PartName) -> list[PictureFile]:
        """Those of a part, in order."""
        return [file for file in self.manifest.files if file.part == part]

    def uris(self, part: PartName) -> list[str]:
        """The places of the files of a part, in order."""
        return [join(self.uri, file.path) for file in self.files(part)]

    def size(self, part: PartName) -> int:
        """Pictures or texts of a part."""
        return sum(file.pictures for file in self.files(part))
