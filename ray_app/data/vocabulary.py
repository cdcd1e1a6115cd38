"""The items that have an index, and what the catalogue says about them."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from ray_app.schema import PAD, Col, items_schema

_MERGED_ROWS = 1 << 20


def make_vocabulary(
    counted: Iterable[pa.Table], catalog: pa.Table | None, known: bool, item_type: pa.DataType
) -> pa.Table:
    """`schema.items_schema`, ordered by item id: the items of the log that were `counted` (`item_id, train_count`).

    Args:
        counted: one table per bucket; an item may be in several.
        catalog: `catalog.read_catalog`, ids still as text; None if there is none.
        known: whether items that only the catalogue has belong in, too.
        item_type: int64 or string.
    """
    empty = pa.table({Col.ITEM: pa.array([], item_type), Col.TRAIN_COUNT: pa.array([], pa.int64())})
    tables = [_add_up(empty, counted)]
    described = None if catalog is None else catalog.set_column(0, Col.ITEM, catalog[Col.ITEM].cast(item_type))
    if described is not None and known:
        none = pa.array([0] * described.num_rows, pa.int64())
        tables.append(pa.table({Col.ITEM: described[Col.ITEM], Col.TRAIN_COUNT: none}))
    totals = _sums(tables).sort_by(Col.ITEM)
    ids = totals[Col.ITEM]
    place = pa.nulls(len(ids), pa.int32()) if described is None else pc.index_in(ids, described[Col.ITEM])
    columns = []
    for field in items_schema(item_type):
        if field.name == Col.ITEM_INDEX:
            columns.append(pa.array(range(PAD + 1, PAD + 1 + len(ids)), pa.int32()))
        elif field.name in (Col.ITEM, Col.TRAIN_COUNT):
            columns.append(ids if field.name == Col.ITEM else totals[Col.TRAIN_COUNT])
        else:
            columns.append(pa.nulls(len(ids), field.type) if described is None else described[field.name].take(place))
    return pa.table(columns, schema=items_schema(item_type))


def _add_up(start: pa.Table, counted: Iterable[pa.Table]) -> pa.Table:
    """Counts per item, a few tables at a time: memory holds the items, not the buckets."""
    waiting = [start]
    for table in counted:
        waiting.append(table)
        if sum(map(len, waiting[1:])) > len(waiting[0]) + _MERGED_ROWS:
            waiting = [_sums(waiting)]
    return _sums(waiting)


def _sums(tables: list[pa.Table]) -> pa.Table:
    groups = pa.concat_tables(tables).group_by(Col.ITEM, use_threads=False)
    return groups.aggregate([(Col.TRAIN_COUNT, "sum")]).rename_columns([Col.ITEM, Col.TRAIN_COUNT])


def encode(sequences: pa.Table, ids: pa.Array, schema: pa.Schema) -> tuple[pa.Table, int]:
    """Sequences with item ids turned into item indices, and how many events have one that is not in `ids` (`PAD`)."""
    lists = pa.concat_arrays(sequences[Col.ITEMS].chunks or [pa.array([], sequences.schema.field(Col.ITEMS).type)])
    index = pc.add(pc.index_in(lists.flatten(), ids), PAD + 1)
    column = pa.ListArray.from_arrays(lists.offsets, index.fill_null(PAD).cast(pa.int32()))
    table = sequences.set_column(sequences.schema.get_field_index(Col.ITEMS), Col.ITEMS, column)
    return table.cast(schema), index.null_count
