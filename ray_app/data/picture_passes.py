"""The two passes over labelled pictures, each a pure function of one piece of work: read all, then write what is kept.

Between them the set is divided as a whole (`picture_split`), for which labels and hashes are enough.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from ray_app import uri as uris
from ray_app.data.files import Piece, read_piece
from ray_app.data.passes import QUARANTINE, READ, STAGING
from ray_app.data.picture_bytes import RefusedPictureError, normal
from ray_app.data.picture_set import PICTURES_SCHEMA, PartName, PictureFile
from ray_app.data.picture_sources import PARTS, Named, rows_of
from ray_app.data.picture_split import GROUP, HASH, INDEX_SCHEMA, LABEL, LEFT_OUT, PART, UNDECIDED, UNTRAINED
from ray_app.data.quarantine import Reason, refuse, refuse_rows, tally
from ray_app.errors import StorageError
from ray_app.picture_config import PicturesConfig
from ray_app.schema import Col
from ray_app.storage import Storage, join

PICTURES_PER_CHUNK = 256
"""Of a task, and of a file."""
_BYTES_PER_FILE = 64 << 20
_FETCHED_AT_ONCE = 16
PART_NAMES: tuple[PartName, ...] = ("train", "validation", "test")
"""In the order of `split`'s numbers."""
KEY, IMAGE = "key", "image"
STAGED_SCHEMA = pa.schema(
    [
        *INDEX_SCHEMA,
        PICTURES_SCHEMA.field(KEY),
        PICTURES_SCHEMA.field(IMAGE),
        pa.field(Col.SOURCE, pa.string()),
        pa.field(Col.ROW, pa.int64()),
    ]
)


class PictureChunk(BaseModel):
    """Work of the first pass: tables with bytes in them, and pictures by name."""

    number: int
    pieces: list[Piece] = []
    named: list[Named] = []


class PictureReport(BaseModel):
    """What became of a chunk."""

    staged: list[tuple[str, int]] = []
    """Files of pictures that can be shown, and how many each holds."""
    reasons: dict[str, int] = {}
    unreadable: list[int] = []
    """Tables that could not be read to their end."""


class WriteWork(BaseModel):
    """Work of the second pass: a staged file, and what was decided of its pictures."""

    number: int
    staged: str
    part: list[int]
    label: list[int]


class WriteReport(BaseModel):
    """Final files."""

    files: list[PictureFile]
    reasons: dict[str, int]


class _Kept(NamedTuple):
    said: Named
    part: int
    image: bytes


@dataclass(frozen=True)
class ReadPictures:
    """Pictures wherever they are -> staged pictures as they will stay."""

    storage: Storage
    uri: str
    settings: PicturesConfig

    def __call__(self, chunk: PictureChunk) -> PictureReport:
        """Decode every picture, stage it, and quarantine what is none."""
        report, kept, refused = PictureReport(), list[_Kept](), list[pa.Table]()
        for said, data in self._pictures(chunk, report, refused):
            try:
                kept.append(self._kept(said, data))
            except RefusedPictureError as error:
                refused.append(refuse(said.source, np.array([said.row]), error.reason, [_told(said, str(error))]))
            if len(kept) >= PICTURES_PER_CHUNK or sum(len(one.image) for one in kept) > _BYTES_PER_FILE:
                self._stage(chunk, kept, report)
        self._stage(chunk, kept, report)
        if refused:
            table = pa.concat_tables(refused)
            self.storage.write_table(join(self.uri, QUARANTINE, f"{READ}{chunk.number:05d}.parquet"), table)
            report.reasons = dict(tally(table))
        return report

    def _pictures(
        self, chunk: PictureChunk, report: PictureReport, refused: list[pa.Table]
    ) -> Iterator[tuple[Named, bytes | RefusedPictureError]]:
        columns = self.settings.columns
        wanted = list(columns.model_dump().values())
        texts = [name for name in wanted if name != columns.image]
        for piece in chunk.pieces:
            for raw in read_piece(self.storage, piece, wanted, texts, blob=columns.image):
                if raw.refused is not None:
                    refused.append(raw.refused)
                    report.unreadable += [piece.source] if raw.refused[Col.ROW].null_count else []
                yield from ((said, self._bytes(said, data)) for said, data in rows_of(raw, piece, columns))
        with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
            for start in range(0, len(chunk.named), _FETCHED_AT_ONCE):
                some = chunk.named[start : start + _FETCHED_AT_ONCE]
                yield from zip(some, pool.map(self._bytes, some), strict=True)

    def _bytes(self, said: Named, data: bytes | None = None) -> bytes | RefusedPictureError:
        """What is stored; a file that is not there is the picture's fault, and a storage that fails is not."""
        if data is not None:
            return data
        if said.uri is None:
            return RefusedPictureError(Reason.MISSING_PICTURE, "nothing in its place")
        try:
            uris.scheme(said.uri)
        except StorageError as error:
            return RefusedPictureError(Reason.UNREADABLE_PATH, str(error))
        try:
            return self.storage.read_bytes(said.uri)
        except StorageError as error:
            if any(entry.uri == said.uri for entry in self.storage.list_files(said.uri)):
                raise
            return RefusedPictureError(Reason.UNREADABLE_PATH, str(error))

    def _kept(self, said: Named, data: bytes | RefusedPictureError) -> _Kept:
        part = UNDECIDED if said.part is None else PARTS.get(said.part.strip().lower())
        if isinstance(data, RefusedPictureError):
            raise data
        if said.label is None:
            raise RefusedPictureError(Reason.MISSING_LABEL, "no label")
        if part is None:
            raise RefusedPictureError(Reason.UNKNOWN_PART, f"part {said.part!r}")
        return _Kept(said, part, normal(data, self.settings.stored_side, self.settings.max_pixels))

    def _stage(self, chunk: PictureChunk, kept: list[_Kept], report: PictureReport) -> None:
        """Write what has gathered and empty the list."""
        if not kept:
            return
        columns: dict[str, list[Any]] = {
            LABEL: [one.said.label for one in kept],
            GROUP: [one.said.group for one in kept],
            PART: [one.part for one in kept],
            HASH: [blake2b(one.image, digest_size=16).digest() for one in kept],
            KEY: [one.said.key for one in kept],
            IMAGE: [one.image for one in kept],
            Col.SOURCE: [one.said.source for one in kept],
            Col.ROW: [one.said.row for one in kept],
        }
        table = pa.table(columns, schema=STAGED_SCHEMA)
        uri = join(self.uri, STAGING, f"pictures-{chunk.number:05d}-{len(report.staged):03d}.parquet")
        self.storage.write_table(uri, table)
        report.staged.append((uri, len(kept)))
        kept.clear()


@dataclass(frozen=True)
class WritePictures:
    """Staged pictures -> the parts, each in files of its own."""

    storage: Storage
    uri: str

    def __call__(self, work: WriteWork) -> WriteReport:
        """Write the pictures of a staged file to their places."""
        staged, part = self.storage.read_table(work.staged), np.array(work.part)
        label, files, reasons = pa.array(work.label, pa.int32()), list[PictureFile](), Counter[str]()
        for number, name in enumerate(PART_NAMES):
            rows = pa.array(np.flatnonzero(part == number))
            if not len(rows):
                continue
            some = staged.take(rows).set_column(0, LABEL, label.take(rows))
            path = f"pictures/{name}-{work.number:05d}.parquet"
            self.storage.write_table(join(self.uri, path), some.select(PICTURES_SCHEMA.names).cast(PICTURES_SCHEMA))
            files.append(PictureFile(path=path, part=name, pictures=len(rows)))
        for number, reason in ((UNTRAINED, Reason.UNTRAINED_LABEL), (LEFT_OUT, Reason.LEFT_OUT)):
            some = staged.filter(pa.array(part == number))
            if some.num_rows:
                reasons[reason] = some.num_rows
                label_, key, source, row = (
                    pa.concat_arrays(some[name].chunks) for name in (LABEL, KEY, Col.SOURCE, Col.ROW)
                )
                table = refuse_rows(source, row, pa.array([str(reason)] * some.num_rows), {LABEL: label_, KEY: key})
                self.storage.write_table(join(self.uri, QUARANTINE, f"part-{reason}-{work.number:05d}.parquet"), table)
        return WriteReport(files=files, reasons=dict(reasons))


def _told(said: Named, fault: str) -> str:
    """What stands in quarantine of a picture, in place of its text."""
    return f"{fault}; label={said.label or ''}, key={said.key}"
