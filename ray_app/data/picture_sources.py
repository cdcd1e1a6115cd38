"""Where labelled pictures are: in folders named by label, or in tables that hold their bytes or name their files.

Where labelled texts are: in tables.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ray_app import uri as uris
from ray_app.data.dataset import SourceRecord
from ray_app.data.files import Piece, RawBatch, format_of
from ray_app.data.ids import as_ids, as_text
from ray_app.data.picture_places import bytes_and_path, resolved
from ray_app.data.raw_files import RawFile, find_sources
from ray_app.data.split import TEST, TRAIN, VALIDATION
from ray_app.data_config import DataConfig
from ray_app.errors import DataError
from ray_app.picture_config import LabelColumns, PictureColumns, TextColumns
from ray_app.storage import FileEntry, Storage

ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm")
PARTS = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""Number of a part by what it may be called."""
_SHARD = re.compile(r"[-_.]\d+([-_.]of[-_.]\d+.*)?$")
"""What follows the name of a part in one of several files: train-00000-of-00004."""


class Named(NamedTuple):
    """What is said of a picture or text."""

    uri: str | None
    """Where a picture is; None where nothing says so, and for texts."""
    label: str | None
    group: str | None
    part: str | None
    """As somebody wrote it."""
    key: str
    source: str
    """The file that names it: for a picture in a folder, itself."""
    row: int
    fold_by: str | None = None


@dataclass(frozen=True)
class Sources:
    """What `data.events` stands for."""

    tables: list[RawFile] = field(default_factory=list)
    pictures: list[Named] = field(default_factory=list)
    """Of folders."""
    folders: list[SourceRecord] = field(default_factory=list)
    """Of each pattern whose pictures are in folders, all files as one."""
    entries: list[FileEntry] = field(default_factory=list)
    """All files that are read."""
    notes: list[str] = field(default_factory=list)


def find_pictures(storage: Storage, data: DataConfig) -> Sources:
    """Look behind each pattern of `data.events`: tables where there are any, else pictures in folders.

    Pictures beside tables are those that the tables name; other files are passed over.

    Raises:
        DataError: nothing is configured, or a pattern finds neither tables nor pictures.
    """
    if not data.events:
        raise DataError(
            "data.events is not set: name a folder of folders named by label, or parquet, CSV or JSON lines with the "
            "columns of pictures.columns"
        )
    found, tables = Sources(), []
    for pattern in data.events:
        entries = storage.list_files(pattern)
        pictures = [entry for entry in entries if entry.uri.lower().endswith(ENDINGS)]
        if data.format != "auto" or not pictures or any(format_of(entry.uri) for entry in entries):
            tables.append(pattern)
            continue
        base = _base(storage, pattern)
        found.pictures.extend(_in_folder(entry.uri, base) for entry in pictures)
        found.entries.extend(pictures)
        content = hashlib.sha256(repr(pictures).encode()).hexdigest()
        size = sum(entry.size for entry in pictures)
        found.folders.append(SourceRecord(uri=pattern, size=size, etag=content, rows=len(pictures)))
        if others := len(entries) - len(pictures):
            found.notes.append(f"{pattern}: {others:,} files that do not end as pictures do were passed over.")
    if tables:
        named = find_tables(storage, data.model_copy(update={"events": tuple(tables)}))
        found.tables.extend(named.tables)
        found.entries.extend(named.entries)
    return found


def find_tables(storage: Storage, data: DataConfig) -> Sources:
    """Look for tables alone behind `data.events`; raises as `find_pictures`."""
    tables = find_sources(storage, data.events, data.format, "data.events")
    return Sources(tables=tables, entries=[file.entry for file in tables])


def rows_of(raw: RawBatch, piece: Piece, columns: PictureColumns) -> Iterator[tuple[Named, bytes | None]]:
    """Every row of a table, with the bytes of its picture where it holds them."""
    images = raw.column(columns.image).to_pylist()
    for said, image in zip(_said(raw, piece, columns), images, strict=True):
        data, path = bytes_and_path(image)
        place = f"{piece.uri}#{said.row}"
        uri = place if data else resolved(path, piece.uri) if path else None
        yield said._replace(uri=uri, key=said.key or path or place), data


def texts_of(raw: RawBatch, piece: Piece, columns: TextColumns) -> Iterator[tuple[Named, str]]:
    """Every row of a table, with what there is of its texts in one, each space and line break one space."""
    names = (columns.title, columns.description, columns.brand)
    parts = zip(*(as_text(raw.column(name)).to_pylist() for name in names), strict=True)
    for said, texts in zip(_said(raw, piece, columns), parts, strict=True):
        text = " ".join(word for part in texts if part for word in part.split())
        yield said._replace(key=said.key or f"{piece.uri}#{said.row}"), text


def _said(raw: RawBatch, piece: Piece, columns: LabelColumns) -> Iterator[Named]:
    """What the columns say, without a place."""
    texts = [
        as_ids(raw.column(name), piece.format == "csv").text.to_pylist()
        for name in (columns.label, columns.group, columns.part, columns.key, columns.fold_by)
    ]
    part_of_file = _part_of_file(piece.uri)
    for row, label, group, part, key, fold_by in zip(raw.rows.tolist(), *texts, strict=True):
        yield Named(None, label, group, part or part_of_file, key or "", piece.uri, row, fold_by)


def _base(storage: Storage, pattern: str) -> str:
    """The folder below which the names of folders say something, as the entries below it begin."""
    path = uris.literal_folder(pattern) if uris.is_glob(pattern) else pattern
    return path if uris.scheme(path) == "s3" else storage.filesystem(path)[1]


def _in_folder(uri: str, base: str) -> Named:
    """The picture's own folder is its label; the name of a part may be a folder anywhere, or the one that was given."""
    *folders, _ = uri[len(base) :].strip("/").split("/")
    part = next((name for name in folders if name.lower() in PARTS), None)
    labels = [name for name in folders if name is not part]
    given = base.rstrip("/").rpartition("/")[2]
    if part is None and given.lower() in PARTS:
        part = given
    return Named(uri, labels[-1] if labels else None, None, part, uri, uri, 0)


def _part_of_file(uri: str) -> str | None:
    """What train.parquet, train-00000-of-00004.parquet, and files in a folder `train` say."""
    *_, folder, name = ("", *uri.split("/"))
    stem = _SHARD.sub("", name.partition(".")[0])
    return next((place for place in (stem, folder) if place.lower() in PARTS), None)
