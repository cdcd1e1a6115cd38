"""The raw files of a log: found, looked into, and cut into chunks of work."""

import csv
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
from pydantic import BaseModel

from ray_app.data.files import Format, Piece, format_of, open_parquet, open_text
from ray_app.data.json_lines import parse_json
from ray_app.data.text_files import parse_csv, split_header, text_blocks
from ray_app.data.times import day_places
from ray_app.errors import DataError
from ray_app.storage import FileEntry, Storage

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


def find_sources(storage: Storage, patterns: Sequence[str], kind: str, setting: str) -> list[tuple[FileEntry, Format]]:
    """The files behind `patterns`, each once, sorted by URI; in folders, files of other formats are passed over.

    Raises:
        DataError: nothing is configured, a pattern finds no file, or a file's format cannot be told.
    """
    if not patterns:
        raise DataError(f"{setting} is not set: name files, folders or globs of parquet, CSV or JSON lines")
    found: dict[str, tuple[FileEntry, Format]] = {}
    for pattern in patterns:
        entries = storage.list_files(pattern)
        if not entries:
            raise DataError(f"{pattern}: no files there ({setting})")
        known = [(entry, form) for entry in entries if (form := _format(entry.uri, kind)) is not None]
        if not known:
            raise DataError(
                f"{pattern}: none of its {len(entries)} files has a known ending, for example {entries[0].uri}; "
                "say what they are with data.format: parquet, csv or jsonl"
            )
        found.update((entry.uri, (entry, form)) for entry, form in known)
    return [found[uri] for uri in sorted(found)]


def inspect(storage: Storage, files: Sequence[tuple[FileEntry, Format]], timestamp: str) -> list[Source]:
    """Look into every file: columns, sizes, and text in the column `timestamp`."""
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        return list(pool.map(lambda file: _look(storage, file[0], file[1], timestamp), files))


def check_columns(sources: Sequence[Source], columns: BaseModel, setting: str, required: Collection[str]) -> list[str]:
    """Check that the columns of the configuration are there; notes on files that lack one that others have.

    Required columns, and optional ones that were given a name, must be in one file at least. Where a file lacks a
    column its values are null there.

    Raises:
        DataError: names the column, the setting and the columns that the files have.
    """
    readable = [source for source in sources if source.columns]
    present = {name for source in readable for name in source.columns}
    faults, notes = [], []
    for ours, theirs in columns.model_dump().items():
        missing = [source.entry.uri for source in readable if theirs not in source.columns]
        if theirs in present and missing:
            notes.append(f"{theirs!r} ({setting}.{ours}) is missing in {len(missing)} files, for example {missing[0]}.")
        elif theirs not in present and (ours in required or theirs != ours):
            faults.append(f"no column {theirs!r} ({setting}.{ours}); there are: {', '.join(sorted(present))}")
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


def _format(uri: str, kind: str) -> Format | None:
    return format_of(uri) if kind == "auto" else kind  # type: ignore[return-value]


def _look(storage: Storage, entry: FileEntry, form: Format, timestamp: str) -> Source:
    try:
        return (_look_at_parquet if form == "parquet" else _look_at_text)(storage, entry, form, timestamp)
    except (pa.ArrowException, OSError, csv.Error) as error:
        return Source(entry, form, problem=str(error))


def _look_at_parquet(storage: Storage, entry: FileEntry, form: Format, timestamp: str) -> Source:
    with open_parquet(storage, entry.uri) as file:
        footer, names = file.metadata, file.schema_arrow.names
        if len(set(names)) < len(names):
            return Source(entry, form, problem="two of its columns have one name")
        groups = tuple(footer.row_group(k).num_rows for k in range(footer.num_row_groups))
        return Source(entry, form, tuple(names), groups)


def _look_at_text(storage: Storage, entry: FileEntry, form: Format, timestamp: str) -> Source:
    with open_text(storage, entry.uri) as stream:
        block = next(text_blocks(stream, quotes=form == "csv", size=_LOOK_BYTES), b"")
    if not block.strip():
        return Source(entry, form, problem="the file is empty")
    if form == "jsonl":
        names = tuple(parse_json(block, None, ()).table.column_names)
        return Source(entry, form, names, day_places=_day_places(parse_json(block, [timestamp], [timestamp]).table))
    header, body = split_header(block)
    return Source(entry, form, header.names, day_places=_day_places(parse_csv(body, header, [timestamp]).table))


def _day_places(table: pa.Table) -> tuple[int, int]:
    return day_places(pa.concat_arrays(table.column(0).chunks)) if table.num_columns and table.num_rows else (0, 0)


def _pieces(number: int, source: Source, rows_per_chunk: int) -> Iterator[Piece]:
    uri, form = source.entry.uri, source.format
    if source.problem:
        return
    if form != "parquet":
        guess = source.entry.size // _BYTES_PER_ROW[uri.lower().endswith(".gz")]
        yield Piece(number, uri, form, num_rows=guess)
        return
    start = first_row = rows = 0
    for group, group_rows in enumerate(source.row_groups):
        if rows and rows + group_rows > rows_per_chunk:
            yield Piece(number, uri, form, first_row, rows, (start, group))
            start, first_row, rows = group, first_row + rows, 0
        rows += group_rows
    if rows:
        yield Piece(number, uri, form, first_row, rows, (start, len(source.row_groups)))
