"""The two passes over labelled pictures or texts, each a function of a piece of work: read all, write what is kept.

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

from ray_app.data.files import Piece, RawBatch, read_piece
from ray_app.data.passes import QUARANTINE, READ, STAGING
from ray_app.data.picture_bytes import RefusedPictureError, normal
from ray_app.data.picture_places import FETCHED_AT_ONCE, picture_file
from ray_app.data.picture_set import COLUMNS, SCHEMAS, Content, Kind, PartName, PictureFile
from ray_app.data.picture_sources import PARTS, Named, rows_of, texts_of
from ray_app.data.picture_split import (
    GROUP,
    HASH,
    INDEX_SCHEMA,
    LABEL,
    LEFT_OUT,
    PART,
    REPEATED,
    UNDECIDED,
    UNTRAINED,
)
from ray_app.data.quarantine import Reason, refuse, refuse_rows, tally
from ray_app.picture_config import PicturesConfig, TextsConfig
from ray_app.schema import Col
from ray_app.storage import Storage, join

PER_CHUNK: dict[Kind, int] = {"pictures": 256, "texts": 8192}
"""Of a task, and of a file."""
_BYTES_PER_FILE = 64 << 20
PART_NAMES: tuple[PartName, ...] = ("train", "validation", "test")
"""In the order of `split`'s numbers."""
KEY, FOLD_BY = "key", "fold_by"
STAGED_SCHEMAS = {
    kind: pa.schema(
        [
            *INDEX_SCHEMA,
            schema.field(KEY),
            schema.field(COLUMNS[kind]),
            schema.field(FOLD_BY),
            pa.field(Col.SOURCE, pa.string()),
            pa.field(Col.ROW, pa.int64()),
        ]
    )
    for kind, schema in SCHEMAS.items()
}


class PictureChunk(BaseModel):
    """Work of the first pass: tables with bytes or texts in them, and pictures by name."""

    number: int
    pieces: list[Piece] = []
    named: list[Named] = []


class PictureReport(BaseModel):
    """What became of a chunk."""

    staged: list[tuple[str, int]] = []
    """Files of what can be shown, and how many each holds."""
    reasons: dict[str, int] = {}
    lines: dict[int, int] = {}
    """Rows of tables that are text files, which nobody knows before."""
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
    content: Content


@dataclass(frozen=True)
class ReadPictures:
    """Pictures or texts wherever they are -> staged as they will stay."""

    storage: Storage
    uri: str
    settings: PicturesConfig | TextsConfig

    @property
    def kind(self) -> Kind:
        """What is read."""
        return "texts" if isinstance(self.settings, TextsConfig) else "pictures"

    def __call__(self, chunk: PictureChunk) -> PictureReport:
        """Decode every picture, stage it, and quarantine what is none; the same for texts."""
        report, kept, refused, filled = PictureReport(), list[_Kept](), list[pa.Table](), 0
        for said, data in self._contents(chunk, report, refused):
            try:
                kept.append(self._kept(said, data))
                filled += len(kept[-1].content)
            except RefusedPictureError as error:
                refused.append(refuse(said.source, np.array([said.row]), error.reason, [_told(said, str(error))]))
            if len(kept) >= PER_CHUNK[self.kind] or filled > _BYTES_PER_FILE:
                self._stage(chunk, kept, report)
                filled = 0
        self._stage(chunk, kept, report)
        if refused:
            table = pa.concat_tables(refused)
            self.storage.write_table(join(self.uri, QUARANTINE, f"{READ}{chunk.number:05d}.parquet"), table)
            report.reasons = dict(tally(table))
        return report

    def _contents(
        self, chunk: PictureChunk, report: PictureReport, refused: list[pa.Table]
    ) -> Iterator[tuple[Named, Content | RefusedPictureError]]:
        columns = self.settings.columns
        wanted = list(columns.model_dump().values())
        ids = [columns.label, columns.group, columns.part, columns.key, columns.fold_by]
        blob = getattr(columns, "image", None)
        for piece in chunk.pieces:
            for raw in read_piece(self.storage, piece, wanted, ids, blob=blob):
                lines = len(raw.rows)
                if raw.refused is not None:
                    refused.append(raw.refused)
                    report.unreadable += [piece.source] if raw.refused[Col.ROW].null_count else []
                    lines += len(raw.refused) - raw.refused[Col.ROW].null_count
                if piece.format != "parquet":
                    report.lines[piece.source] = report.lines.get(piece.source, 0) + lines
                yield from self._rows(raw, piece)
        with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
            for start in range(0, len(chunk.named), FETCHED_AT_ONCE):
                some = chunk.named[start : start + FETCHED_AT_ONCE]
                yield from zip(some, pool.map(lambda said: picture_file(self.storage, said.uri), some), strict=True)

    def _rows(self, raw: RawBatch, piece: Piece) -> Iterator[tuple[Named, Content | RefusedPictureError]]:
        if isinstance(self.settings, TextsConfig):
            yield from texts_of(raw, piece, self.settings.columns)
            return
        for said, data in rows_of(raw, piece, self.settings.columns):
            yield said, picture_file(self.storage, said.uri) if data is None else data

    def _kept(self, said: Named, data: Content | RefusedPictureError) -> _Kept:
        part = UNDECIDED if said.part is None else PARTS.get(said.part.strip().lower())
        if isinstance(data, RefusedPictureError):
            raise data
        if data == "":
            raise RefusedPictureError(Reason.MISSING_TEXT, "no text")
        if said.label is None:
            raise RefusedPictureError(Reason.MISSING_LABEL, "no label")
        if part is None:
            raise RefusedPictureError(Reason.UNKNOWN_PART, f"part {said.part!r}")
        if isinstance(data, bytes) and isinstance(self.settings, PicturesConfig):
            data = normal(data, self.settings.stored_side, self.settings.max_pixels)
        return _Kept(said, part, data)

    def _stage(self, chunk: PictureChunk, kept: list[_Kept], report: PictureReport) -> None:
        """Write what has gathered and empty the list."""
        if not kept:
            return
        columns: dict[str, list[Any]] = {
            LABEL: [one.said.label for one in kept],
            GROUP: [one.said.group for one in kept],
            PART: [one.part for one in kept],
            HASH: [_hash(one.content) for one in kept],
            KEY: [one.said.key for one in kept],
            COLUMNS[self.kind]: [one.content for one in kept],
            FOLD_BY: [one.said.fold_by for one in kept],
            Col.SOURCE: [one.said.source for one in kept],
            Col.ROW: [one.said.row for one in kept],
        }
        table = pa.table(columns, schema=STAGED_SCHEMAS[self.kind])
        uri = join(self.uri, STAGING, f"{self.kind}-{chunk.number:05d}-{len(report.staged):03d}.parquet")
        self.storage.write_table(uri, table)
        report.staged.append((uri, len(kept)))
        kept.clear()


@dataclass(frozen=True)
class WritePictures:
    """Staged pictures or texts -> the parts, each in files of its own."""

    storage: Storage
    uri: str
    kind: Kind

    def __call__(self, work: WriteWork) -> WriteReport:
        """Write what a staged file holds to its places."""
        staged, part = self.storage.read_table(work.staged), np.array(work.part)
        label, files, reasons = pa.array(work.label, pa.int32()), list[PictureFile](), Counter[str]()
        for number, name in enumerate(PART_NAMES):
            rows = pa.array(np.flatnonzero(part == number))
            if not len(rows):
                continue
            some = staged.take(rows).set_column(0, LABEL, label.take(rows))
            path, schema = f"{self.kind}/{name}-{work.number:05d}.parquet", SCHEMAS[self.kind]
            self.storage.write_table(join(self.uri, path), some.select(schema.names).cast(schema))
            files.append(PictureFile(path=path, part=name, pictures=len(rows)))
        for number, reason in _REASONS.items():
            some = staged.filter(pa.array(part == number))
            if some.num_rows:
                reasons[reason] = some.num_rows
                label_, key, source, row = (
                    pa.concat_arrays(some[name].chunks) for name in (LABEL, KEY, Col.SOURCE, Col.ROW)
                )
                table = refuse_rows(source, row, pa.array([str(reason)] * some.num_rows), {LABEL: label_, KEY: key})
                self.storage.write_table(join(self.uri, QUARANTINE, f"part-{reason}-{work.number:05d}.parquet"), table)
        return WriteReport(files=files, reasons=dict(reasons))


_REASONS = {
    UNTRAINED: Reason.UNTRAINED_LABEL,
    LEFT_OUT: Reason.LEFT_OUT,
    REPEATED: Reason.REPEATED_TEXT,
}
"""Of what was left out when the set was divided."""


def _hash(content: Content) -> bytes:
    data = content if isinstance(content, bytes) else content.encode()
    return blake2b(data, digest_size=16).digest()


def _told(said: Named, fault: str) -> str:
    """What stands in quarantine of a picture, in place of its text."""
    return f"{fault}; label={said.label or ''}, key={said.key}"
