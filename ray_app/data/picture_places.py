"""Where a picture is, as one string: a path or URI, or `TABLE#COLUMN[ROW]` of a parquet file that holds its bytes."""

import posixpath
import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, groupby

import pyarrow as pa

from ray_app import uri as uris
from ray_app.data.files import Piece, open_parquet, read_piece
from ray_app.data.picture_bytes import RefusedPictureError
from ray_app.data.quarantine import Reason
from ray_app.data.sources import Source
from ray_app.errors import StorageError
from ray_app.storage import Storage

FETCHED_AT_ONCE = 16
PARTS_OF_GROUP = 16
"""At most: many parts of a large row group would read it as many times, one would be lost as a whole."""
_IN_TABLE = re.compile(r"(?s)(?P<table>.+)#(?P<column>.+)\[(?P<row>\d+)\]")


def holds_pictures(storage: Storage, source: Source, column: str) -> bool:
    """Whether a column holds pictures themselves, and not only the names of files."""
    if source.format != "parquet" or column not in source.columns:
        return False
    with open_parquet(storage, source.entry.uri) as file:
        kind = file.schema_arrow.field(column).type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind))


def resolved(path: str, table: str) -> str:
    """A path beside the table that names it; what is absolute or a URI stays."""
    if "://" in path or path.startswith("/"):
        return path
    root, slashes, rest = table.rpartition("://")
    return root + slashes + posixpath.normpath(posixpath.join(posixpath.dirname(rest), path))


def bytes_and_path(image: object) -> tuple[bytes | None, str | None]:
    """What a cell holds: bytes, a path, or both in a struct, as the datasets of Hugging Face have it."""
    if isinstance(image, dict):
        data, path = image.get("bytes"), image.get("path")
    else:
        data, path = (image, None) if isinstance(image, bytes) else (None, image)
    return data or None, path.strip() or None if isinstance(path, str) else None


def named_place(image: object, table: str) -> str | None:
    """The place that a cell names, of several the first."""
    _, path = bytes_and_path(next(iter(image), None) if isinstance(image, list) else image)
    return resolved(path, table) if path else None


def row_place(table: str, column: str, row: int) -> str:
    """The place of a picture whose bytes a table holds."""
    return f"{table}#{column}[{row}]"


def together(storage: Storage, places: Sequence[str], at_once: int) -> list[list[str]]:
    """Places in parts to be read together: so many files, or rows of one row group, which is read from its start."""
    files, rows = list[str](), dict[tuple[str, str], list[int]]()
    for place in places:
        if found := _IN_TABLE.fullmatch(place):
            rows.setdefault((found["table"], found["column"]), []).append(int(found["row"]))
        else:
            files.append(place)
    parts = [files[start : start + at_once] for start in range(0, len(files), at_once)]
    for (table, column), wanted in rows.items():
        starts = [group.first_row for group in _row_groups(storage, table)]
        for _, of_group in groupby(sorted(wanted), partial(bisect, starts)):
            some = [row_place(table, column, row) for row in of_group]
            size = max(at_once, -(-len(some) // PARTS_OF_GROUP))
            parts += [some[start : start + size] for start in range(0, len(some), size)]
    return parts


def pictures_at(storage: Storage, places: Sequence[str]) -> Iterator[tuple[str, bytes | RefusedPictureError]]:
    """What is stored at places that `together` put together, in their order.

    Raises:
        StorageError: the storage fails; a file that is not there is the picture's own fault.
    """
    if places and (found := _IN_TABLE.fullmatch(places[0])):
        yield from _in_table(storage, found["table"], found["column"], places)
        return
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        for start in range(0, len(places), FETCHED_AT_ONCE):
            some = places[start : start + FETCHED_AT_ONCE]
            yield from zip(some, pool.map(lambda uri: picture_file(storage, uri), some), strict=True)


def picture_file(storage: Storage, uri: str | None) -> bytes | RefusedPictureError:
    """The bytes of a file, or why there are none; raises as `pictures_at`."""
    if uri is None:
        return RefusedPictureError(Reason.MISSING_PICTURE, "nothing in its place")
    try:
        uris.scheme(uri)
    except StorageError as error:
        return RefusedPictureError(Reason.UNREADABLE_PATH, str(error))
    try:
        return storage.read_bytes(uri)
    except StorageError as error:
        if any(entry.uri == uri for entry in storage.list_files(uri)):
            raise
        return RefusedPictureError(Reason.UNREADABLE_PATH, str(error))


def _in_table(
    storage: Storage, table: str, column: str, places: Sequence[str]
) -> Iterator[tuple[str, bytes | RefusedPictureError]]:
    waiting = set(places)
    first = int(_IN_TABLE.fullmatch(places[0])["row"])  # type: ignore[index]
    groups = _row_groups(storage, table)
    group = groups[bisect([group.first_row for group in groups], first) - 1]
    for raw in read_piece(storage, group, [column], [], blob=column):
        for row, image in zip(raw.rows.tolist(), raw.column(column).to_pylist(), strict=True):
            if (place := row_place(table, column, row)) in waiting:
                waiting.remove(place)
                data, path = bytes_and_path(image)
                yield place, data or picture_file(storage, resolved(path, table) if path else None)
        if not waiting:
            return
    for place in sorted(waiting):
        yield place, RefusedPictureError(Reason.UNREADABLE_FILE, f"{table} cannot be read there")


def _row_groups(storage: Storage, table: str) -> list[Piece]:
    with open_parquet(storage, table) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    ends = accumulate(sizes)
    groups = enumerate(zip(ends, sizes, strict=True))
    return [Piece(0, table, "parquet", end - size, size, (n, n + 1)) for n, (end, size) in groups]
