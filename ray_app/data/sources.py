"""The raw files of a log: looked into, and cut into chunks of work."""

import csv
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
from pydantic import BaseModel

from ray_app.data.dialect import Dialect
from ray_app.data.files import Format, Piece, open_parquet, open_text
from ray_app.data.json_lines import parse_json
from ray_app.data.layouts import NO_NAMES, Names
from ray_app.data.raw_files import RawFile
from ray_app.data.text_files import parse_csv, text_blocks
from ray_app.data.times import day_places
from ray_app.errors import DataError
from ray_app.storage import FileEntry, Storage, raise_if_storage_failed

_LOOK_BYTES = 256 << 10
_LOOKS_AT_ONCE = 16
_BYTES_PER_ROW = {False: 40, True: 8}
"""Of text, plain and gzipped: a guess that only decides how the work is cut."""


class Source(NamedTuple):
    """One raw file and what a look into it showed."""

    entry: FileEntry
    format: Format
    columns: tuple[str, ...] = ()
    row_groups: tuple[int, ...] = ()
    """Rows of each row group of a parquet file."""
    day_places: tuple[int, int] = (0, 0)
    """`times.day_places` of some values of the timestamp column."""
    problem: str | None = None
    """Why the file cannot be read, if it cannot."""
    dialect: Dialect = Dialect()


def inspect(storage: Storage, files: Sequence[RawFile], timestamps: Sequence[str]) -> list[Source]:
    """Look into every file: columns, sizes, and text in the first of the columns `timestamps` that it has."""
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        return list(pool.map(lambda file: _look(storage, file, timestamps), files))


def columns_of(sources: Sequence[Source]) -> set[str]:
    """All columns that any of the files has."""
    return {name for source in sources for name in source.columns}


def check_columns(
    sources: Sequence[Source], columns: BaseModel, setting: str, required: Collection[str], names: Names = NO_NAMES
) -> list[str]:
    """Check that the columns of the configuration are there; notes on files that lack one that others have.

    Required columns, and optional ones that were given a name, must be in one file at least. Where a file lacks a
    column its values are null there.

    Raises:
        DataError: names the column, the setting and the columns that the files have.
    """
    readable = [source for source in sources if source.columns]
    present = columns_of(sources)
    faults, notes = [], []
    for ours, theirs in columns.model_dump().items():
        missing = [source.entry.uri for source in readable if theirs not in source.columns]
        if theirs in present and missing:
            notes.append(f"{theirs!r} ({setting}.{ours}) is missing in {len(missing)} files, for example {missing[0]}.")
        elif theirs not in present and (ours in required or theirs != type(columns).model_fields[ours].default):
            wanted = " or ".join(repr(name) for name in (theirs, *names.get(ours, ())))
            faults.append(f"no column {wanted} ({setting}.{ours}); there are: {', '.join(sorted(present))}")
    if faults and readable:
        raise DataError("\n".join(faults))
    return notes


def cut(sources: Sequence[Source], rows_per_chunk: int) -> list[list[Piece]]:
    """Readable files as chunks of about `rows_per_chunk` rows: small files together, large parquet files apart."""
    chunks: list[list[Piece]] = []
    filled = 0
    for piece in (piece for number, source in enumerate(sources) for piece in _pieces(number, source, rows_per_chunk)):
        if not chunks or filled + piece.num_rows > rows_per_chunk:
            chunks.append([])
            filled = 0
        chunks[-1].append(piece)
        filled += piece.num_rows
    return chunks


def _look(storage: Storage, file: RawFile, timestamps: Sequence[str]) -> Source:
    try:
        return (_look_at_parquet if file.format == "parquet" else _look_at_text)(storage, file, timestamps)
    except (pa.ArrowException, OSError, csv.Error) as error:
        raise_if_storage_failed(error, file.entry.uri)
        return Source(file.entry, file.format, problem=str(error))


def _look_at_parquet(storage: Storage, file: RawFile, timestamps: Sequence[str]) -> Source:
    with open_parquet(storage, file.entry.uri) as parquet:
        footer, names = parquet.metadata, parquet.schema_arrow.names
        if len(set(names)) < len(names):
            return Source(file.entry, file.format, problem="two of its columns have one name")
        groups = tuple(footer.row_group(k).num_rows for k in range(footer.num_row_groups))
        return Source(file.entry, file.format, tuple(names), groups)


def _look_at_text(storage: Storage, file: RawFile, timestamps: Sequence[str]) -> Source:
    entry, form, dialect = file
    with open_text(storage, entry.uri) as stream:
        quotes = form == "csv" and dialect.quotes
        block = dialect.plain(next(text_blocks(stream, quotes, size=_LOOK_BYTES), b""))
    if not block.strip():
        return Source(entry, form, problem="the file is empty")
    if form == "jsonl":
        names = tuple(parse_json(block, None, ()).table.column_names)
        return Source(entry, form, names, day_places=_day_places(parse_json(block, timestamps, timestamps).table))
    header, body = dialect.split_header(block)
    places = _day_places(parse_csv(body, header, timestamps).table)
    return Source(entry, form, header.names, day_places=places, dialect=dialect)


def _day_places(table: pa.Table) -> tuple[int, int]:
    return day_places(pa.concat_arrays(table.column(0).chunks)) if table.num_columns and table.num_rows else (0, 0)


def _pieces(number: int, source: Source, rows_per_chunk: int) -> Iterator[Piece]:
    uri, form = source.entry.uri, source.format
    if source.problem:
        return
    if form != "parquet":
        guess = source.entry.size // _BYTES_PER_ROW[uri.lower().endswith(".gz")]
        yield Piece(number, uri, form, num_rows=guess, dialect=source.dialect)
        return
    start = first_row = rows = 0
    for group, group_rows in enumerate(source.row_groups):
        if rows and rows + group_rows > rows_per_chunk:
            yield Piece(number, uri, form, first_row, rows, (start, group))
            start, first_row, rows = group, first_row + rows, 0
        rows += group_rows
    if rows:
        yield Piece(number, uri, form, first_row, rows, (start, len(source.row_groups)))
