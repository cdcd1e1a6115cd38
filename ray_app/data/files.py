"""Raw files as Arrow tables: parquet, CSV and JSON lines, streamed batch by batch, each row with its number.

What a file holds and cannot be read is handed on as refused rows, never raised: one bad line costs one line, one broken
file one file. A storage that fails is raised: nobody knows then what the file holds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_app.data.dialect import Dialect
from ray_app.data.json_lines import parse_json
from ray_app.data.quarantine import Reason, refuse
from ray_app.data.text_files import Rows, decode, parse_csv, text_blocks
from ray_app.storage import Storage, raise_if_storage_failed

Format = Literal["parquet", "csv", "jsonl"]
BATCH_ROWS = 65_536
BATCH_BLOBS = 64
"""Rows at a time where each may hold a picture."""
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet", ".pq": "parquet",
    ".csv": "csv", ".tsv": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip


class Piece(NamedTuple):
    """A file, or some row groups of a parquet file."""

    source: int
    """Position of the file in the list of sources."""
    uri: str
    format: Format
    first_row: int = 0
    num_rows: int = 0
    """Known for parquet, guessed for text."""
    row_groups: tuple[int, int] = (0, 0)
    """First and last (exclusive), of a parquet file."""
    dialect: Dialect = Dialect()
    """Of a text file."""


class RawBatch(NamedTuple):
    """Some rows as they stand in the file."""

    table: pa.Table
    """Those of the wanted columns that the file has."""
    rows: NDArray[np.int64]
    """Number of each row in the file, from 0."""
    refused: pa.Table | None = None
    """Rows that could not be read (`schema.QUARANTINE_SCHEMA`)."""

    def column(self, name: str) -> pa.Array:
        """A column by the retailer's name; nulls where the file has none."""
        if name not in self.table.column_names:
            return pa.nulls(len(self.rows))
        chunks = self.table[name].chunks
        return pa.concat_arrays(chunks) if chunks else pa.array([], self.table.schema.field(name).type)


def format_of(uri: str) -> Format | None:
    """The format that the name tells, if it does."""
    name = uri.lower().removesuffix(".gz")
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


@contextmanager
def open_text(storage: Storage, uri: str) -> Iterator[pa.NativeFile]:
    """The text of a file, unpacked if its name ends in .gz."""
    with storage.open_input(uri) as file:
        yield pa.CompressedInputStream(file, "gzip") if uri.lower().endswith(".gz") else file


@contextmanager
def open_parquet(storage: Storage, uri: str) -> Iterator[pq.ParquetFile]:
    """A parquet file that is read bit by bit, whatever the size of its row groups."""
    with storage.open_input(uri) as file:
        yield pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)


def read_piece(
    storage: Storage, piece: Piece, columns: Sequence[str], ids: Sequence[str], blob: str | None = None
) -> Iterator[RawBatch]:
    """The rows of a piece in order: `columns` alone, of which `ids` are ids and `blob` may hold large bytes.

    Raises:
        StorageError: the file cannot be opened, or the storage fails while it is read.
    """
    row = piece.first_row
    try:
        if piece.format == "parquet":
            yield from _read_parquet(storage, piece, columns, blob)
            return
        for rows in _read_text(storage, piece, columns, ids):
            bad = np.array(sorted(rows.bad), np.int64)
            texts = [rows.bad[number] for number in bad.tolist()]
            refused = refuse(piece.uri, bad + row, Reason.BAD_LINE, texts) if len(bad) else None
            yield RawBatch(rows.table, rows.numbers + row, refused)
            row += len(rows.numbers) + len(bad)
    except (pa.ArrowException, OSError) as error:
        raise_if_storage_failed(error, piece.uri)
        refused = refuse(piece.uri, None, Reason.UNREADABLE_FILE, [str(error)])
        yield RawBatch(pa.table({}), np.zeros(0, np.int64), refused)


def _read_text(storage: Storage, piece: Piece, columns: Sequence[str], ids: Sequence[str]) -> Iterator[Rows]:
    with open_text(storage, piece.uri) as stream:
        header = None
        for raw in text_blocks(stream, quotes=piece.format == "csv" and piece.dialect.quotes):
            block = piece.dialect.plain(raw)
            if piece.format == "jsonl":
                yield parse_json(block, columns, ids)
                continue
            body = block
            if header is None:
                header, body = piece.dialect.split_header(block)
            if body.strip():
                yield parse_csv(body, header, columns)


def _read_parquet(storage: Storage, piece: Piece, columns: Sequence[str], blob: str | None) -> Iterator[RawBatch]:
    """All row groups in one go; when that fails, one by one, so that a broken one costs no other."""
    row = group_start = piece.first_row
    with open_parquet(storage, piece.uri) as file:
        wanted = [name for name in columns if name in file.schema_arrow.names]
        groups = list(range(*piece.row_groups))
        try:
            size = BATCH_ROWS if blob not in wanted else BATCH_BLOBS
            for batch in file.iter_batches(size, row_groups=groups, columns=wanted, use_threads=False):
                yield _checked(piece.uri, batch, row, blob)
                row += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise_if_storage_failed(error, piece.uri)
            for group in groups:
                group_end = group_start + file.metadata.row_group(group).num_rows
                if row < group_end:
                    yield from _read_group(file, piece.uri, group, wanted, blob, range(group_start, group_end), row)
                    row = group_end
                group_start = group_end


def _checked(uri: str, batch: pa.RecordBatch, first_row: int, blob: str | None) -> RawBatch:
    """Rows of a parquet file whose text is text: other programs also write what is not UTF-8."""
    whole = pa.Table.from_batches([batch])
    table, not_text = decode(whole.drop_columns([blob]) if blob in whole.column_names else whole)
    rows = np.arange(first_row, first_row + len(batch))
    refused = refuse(uri, rows[not_text], Reason.BAD_LINE, ["not UTF-8"] * len(not_text)) if not_text else None
    rows = np.delete(rows, not_text)
    if blob in whole.column_names:
        blobs = whole[blob].take(pa.array(rows - first_row))
        table = table.append_column(blob, blobs) if table.num_columns else pa.table({blob: blobs})
    return RawBatch(table, rows, refused)


def _read_group(
    file: pq.ParquetFile, uri: str, group: int, wanted: list[str], blob: str | None, rows: range, done: int
) -> Iterator[RawBatch]:
    """The rows of a group from `done` on; what cannot be read is refused row by row, for the footer counts them."""
    row = rows.start
    try:
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False):
            skip = min(max(done - row, 0), len(batch))
            yield _checked(uri, batch.slice(skip), row + skip, blob)
            row += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise_if_storage_failed(error, uri)
        lost = np.arange(max(row, done), rows.stop)
        refused = refuse(uri, lost, Reason.UNREADABLE_FILE, [str(error)] * len(lost))
        yield RawBatch(pa.table({}), lost[:0], refused)
