"""The catalogue: what the retailer knows about each item before anyone buys it."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_app.data.files import Piece, RawBatch, read_piece
from ray_app.data.ids import are_integers, as_ids, as_text
from ray_app.data.layouts import Layout, layout_of
from ray_app.data.numbers import as_numbers
from ray_app.data.picture_places import holds_pictures, named_place, row_place
from ray_app.data.quarantine import Reason, refuse_rows
from ray_app.data.sources import Source, cut
from ray_app.data.times import as_times, is_day_first
from ray_app.data_config import DataConfig
from ray_app.schema import QUARANTINE_SCHEMA, Col, items_schema
from ray_app.storage import Storage

CATALOG_SCHEMA = pa.schema(
    [field for field in items_schema(pa.string()) if field.name not in (Col.ITEM_INDEX, Col.TRAIN_COUNT)]
)
"""One row per item, ids as text."""
_ROWS_PER_CHUNK = 1 << 18


@dataclass(frozen=True)
class Catalog:
    """The catalogue's rows, each item once."""

    table: pa.Table
    """`CATALOG_SCHEMA`."""
    refused: pa.Table
    rows_in: int
    integers: bool
    """Whether all item ids are integers."""
    unread: int
    """Prices and dates that could not be understood and were left out."""


def read_catalog(storage: Storage, sources: Sequence[Source], data: DataConfig) -> Catalog:
    """Read all files; of several rows with one item id the last wins, and the others are duplicates."""
    names = data.item_columns.model_dump()
    held = [holds_pictures(storage, source, names[Col.IMAGE]) for source in sources]
    tables, refused, integers = [_located(CATALOG_SCHEMA.empty_table(), 0, np.zeros(0, np.int64))], [], []
    layout = layout_of(data.format)
    wanted = list(dict.fromkeys([*names.values(), *layout.flags]))
    unread, day_first = 0, is_day_first(source.day_places for source in sources)
    for piece in (piece for chunk in cut(sources, _ROWS_PER_CHUNK) for piece in chunk):
        unread_names = {names[Col.IMAGE]} if held[piece.source] else set()
        for raw in read_piece(storage, piece, [name for name in wanted if name not in unread_names], [names[Col.ITEM]]):
            table, whole, odd = _parse(raw, piece, names, layout, day_first, held=held[piece.source])
            missing = table[Col.ITEM].is_null()
            refused += [_refuse(table.filter(missing), sources, Reason.MISSING_ITEM)]
            refused += [raw.refused] if raw.refused else []
            tables.append(table.filter(pc.invert(missing)))
            integers += [are_integers(tables[-1][Col.ITEM]) if whole is None else whole] if tables[-1].num_rows else []
            unread += odd
    table = pa.concat_tables(tables)
    last = _last_of_equals(table[Col.ITEM])
    refused.append(_refuse(table.filter(pa.array(~last)), sources, Reason.DUPLICATE))
    rows_in = table.num_rows + sum(len(part) - part[Col.ROW].null_count for part in refused[:-1])
    kept = table.filter(pa.array(last)).select(CATALOG_SCHEMA.names)
    return Catalog(kept, pa.concat_tables([QUARANTINE_SCHEMA.empty_table(), *refused]), rows_in, all(integers), unread)


def _parse(
    raw: RawBatch, piece: Piece, names: dict[str, str], layout: Layout, day_first: bool, *, held: bool
) -> tuple[pa.Table, bool | None, int]:
    """The rows with our columns; whether their ids are integers; how many prices and dates were not understood.

    Pictures that a table holds are not read: their place is noted.
    """
    columns = {ours: raw.column(theirs) for ours, theirs in names.items()}
    ids = as_ids(columns[Col.ITEM], piece.format == "csv")
    price, bad_price = as_numbers(columns[Col.PRICE])
    since = as_times(columns[Col.AVAILABLE_FROM], day_first=day_first)
    texts = [as_text(columns[name]) for name in (Col.TITLE, Col.DESCRIPTION, Col.BRAND)]
    texts.append(_categories(raw, columns[Col.CATEGORY], layout))
    if layout.entities:
        texts = [_without_entities(text) for text in texts]
    prices, dates = pa.array(price, from_pandas=True), pa.array(since.us, mask=since.missing | since.bad)
    images: list[str | None] = [named_place(image, piece.uri) for image in columns[Col.IMAGE].to_pylist()]
    if held:
        images = [row_place(piece.uri, names[Col.IMAGE], row) for row in raw.rows.tolist()]
    table = pa.table([ids.text, *texts, prices, pa.array(images, pa.string()), dates], schema=CATALOG_SCHEMA)
    return _located(table, piece.source, raw.rows), ids.integers, int(bad_price.sum() + since.bad.sum())


def _categories(raw: RawBatch, column: pa.Array, layout: Layout) -> pa.Array:
    flags = [name for name in layout.flags if name in raw.table.column_names]
    if not flags:
        text = as_text(column)
        return pc.replace_substring(text, layout.listed, ", ") if layout.listed else text
    holds = [np.asarray(pc.equal(raw.column(name).cast(pa.string()), "1").fill_null(False)) for name in flags]
    listed = [", ".join(name for name, held in zip(flags, row, strict=True) if held) for row in np.column_stack(holds)]
    return pa.array([text or None for text in listed], pa.string())


def _without_entities(texts: pa.Array) -> pa.Array:
    return pa.array([text and html.unescape(text) for text in texts.to_pylist()], pa.string())


def _located(table: pa.Table, source: int, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.Table:
    sources = pa.array(np.full(len(rows), source, np.int32))
    return table.append_column(Col.SOURCE, sources).append_column(Col.ROW, pa.array(rows, pa.int64()))


def _last_of_equals(ids: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    numbered = pa.table({"id": ids, "number": pa.array(np.arange(len(ids)))})
    lasts = numbered.group_by("id", use_threads=False).aggregate([("number", "max")])["number_max"]
    last = np.zeros(len(ids), bool)
    last[lasts.to_numpy()] = True
    return last


def _refuse(rows: pa.Table, sources: Sequence[Source], reason: Reason) -> pa.Table:
    uris = pa.array([source.entry.uri for source in sources], pa.string()).take(rows[Col.SOURCE].combine_chunks())
    texts = {name: rows[name].combine_chunks() for name in (Col.ITEM, Col.TITLE)}
    return refuse_rows(uris, rows[Col.ROW], pa.array([str(reason)] * rows.num_rows, pa.string()), texts)
