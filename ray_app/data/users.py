"""One bucket of users: duplicates and returns taken out, events in order, split, bots capped; one row per user."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_app.data.logs import WEIGHT
from ray_app.data.quarantine import Reason, refuse_rows
from ray_app.data.returns import find_returned
from ray_app.data.split import TEST, TRAIN, VALIDATION, Split
from ray_app.schema import QUARANTINE_SCHEMA, Col, sequences_schema

IntArray = NDArray[np.int64]
_COMPARED = [Col.USER, Col.ITEM, Col.TIME, Col.EVENT_TYPE, Col.QUANTITY, Col.PRICE, Col.ORDER, Col.STORE]


@dataclass(frozen=True)
class UserRules:
    """What a bucket needs to know of the whole log."""

    split: Split
    user_type: pa.DataType
    item_type: pa.DataType
    max_user_events: int
    sources: Sequence[str]


@dataclass(frozen=True)
class Bucket:
    """What became of the events of a bucket."""

    sequences: pa.Table
    """As `schema.sequences_schema`, but `items` still holds the retailer's ids."""
    items: pa.Table
    """`item_id, train_count`: the items that may enter the vocabulary, and their events in the train part."""
    refused: pa.Table
    events: Counter[int]
    """Events by part."""
    capped_users: int
    """Users of whom events were refused for their number."""


def settle(events: pa.Table, rules: UserRules) -> Bucket:
    """Turn staged events (`logs.EVENTS_SCHEMA`), in the order of file and row, into users' histories."""
    first = _first_of_equals(events)
    duplicates = _refuse(events.filter(pa.array(~first)), Reason.DUPLICATE, rules)
    events = events.filter(pa.array(first))
    user, _ = _codes(events[Col.USER].cast(rules.user_type))
    order, _ = _codes(events[Col.ORDER])
    times = events[Col.TIME].to_numpy()
    by_user = np.lexsort((order, times, user))  # stable: file and row decide what is left
    events, user, order, times = events.take(pa.array(by_user)), user[by_user], order[by_user], times[by_user]
    item, items = _codes(events[Col.ITEM].cast(rules.item_type))
    quantity = events[Col.QUANTITY].to_numpy()
    is_return = quantity < 0
    weight = events[WEIGHT].to_numpy()
    part = rules.split.part_of(times, user, ~is_return & (weight > 0))
    returned = find_returned((user * max(1, len(items)) + item) * 3 + part, quantity)
    alive = ~is_return & ~returned
    over = _over_cap(user, part, alive, rules.max_user_events)
    kept, capped = alive & ~over, len(np.unique(user[over]))
    refused = [
        _refuse(events.filter(pa.array(mask)), reason, rules)
        for mask, reason in ((is_return, Reason.RETURN), (returned, Reason.RETURNED), (over, Reason.USER_OVER_CAP))
    ]
    events, user, order, times, item, part = (
        events.filter(pa.array(kept)), user[kept], order[kept], times[kept], item[kept], part[kept]
    )  # fmt: skip
    sequences = _sequences(events, user, times, _ordinals(user, order, times), part, rules)
    return Bucket(
        sequences,
        _items(item, items, (part == TRAIN) & (weight[kept] > 0), part, rules.split),
        pa.concat_tables([duplicates, *refused]),
        Counter({number: int((part == number).sum()) for number in (TRAIN, VALIDATION, TEST)}),
        capped,
    )


def _first_of_equals(events: pa.Table) -> NDArray[np.bool_]:
    """Which rows are the first of those that are equal in all columns."""
    numbered = events.select(_COMPARED).append_column("number", pa.array(np.arange(events.num_rows)))
    firsts = numbered.group_by(_COMPARED, use_threads=False).aggregate([("number", "min")])["number_min"]
    first = np.zeros(events.num_rows, bool)
    first[firsts.to_numpy()] = True
    return first


def _codes(column: pa.ChunkedArray) -> tuple[IntArray, pa.Array]:
    """Each value as its rank among the distinct values, which come along sorted; null is -1."""
    encoded = pa.chunked_array(column.chunks, column.type).combine_chunks()
    encoded = (encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded).dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order) + 1, np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    rank[-1] = -1
    return rank[encoded.indices.fill_null(len(order)).to_numpy()], encoded.dictionary.take(order)


def _over_cap(user: IntArray, part: NDArray[np.int8], alive: NDArray[np.bool_], cap: int) -> NDArray[np.bool_]:
    """Events beyond the latest `cap` of a user in one part."""
    over = np.zeros(len(user), bool)
    position = np.flatnonzero(alive)
    group = user[position] * 3 + part[position]
    from_end = np.searchsorted(group, group, side="right") - np.arange(len(group))
    over[position] = from_end > cap
    return over


def _ordinals(user: IntArray, order: IntArray, times: IntArray) -> IntArray:
    """Orders counted from 0 within each user: events in a row with one order id, or without any at one time."""
    new_user = np.diff(user, prepend=-1) != 0
    new_time = (np.diff(times, prepend=-1) != 0) & (order < 0)
    number = np.cumsum(new_user | new_time | (np.diff(order, prepend=-2) != 0))
    return number - number[np.searchsorted(user, user)] if len(user) else number


def _sequences(
    events: pa.Table, user: IntArray, times: IntArray, orders: IntArray, part: NDArray[np.int8], rules: UserRules
) -> pa.Table:
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    offsets = pa.array(np.append(starts, len(user)).astype(np.int32))

    def lists(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, values)

    def count(of: int) -> pa.Array:
        return pa.array(
            (np.add.reduceat(part == of, starts, dtype=np.int32) if len(starts) else starts).astype(np.int32)
        )

    items = pa.concat_arrays([pa.array([], rules.item_type), *events[Col.ITEM].cast(rules.item_type).chunks])
    weights = pa.concat_arrays([pa.array([], pa.float32()), *events[WEIGHT].chunks])
    schema = sequences_schema(rules.user_type)
    schema = schema.set(schema.get_field_index(Col.ITEMS), pa.field(Col.ITEMS, pa.list_(rules.item_type)))
    users = events[Col.USER].cast(rules.user_type).take(pa.array(starts))
    columns = [users, lists(items), lists(pa.array(times)), lists(weights), lists(pa.array(orders.astype(np.int32)))]
    return pa.table([*columns, count(TRAIN), count(VALIDATION)], schema=schema)


def _items(item: IntArray, ids: pa.Array, counted: NDArray[np.bool_], part: NDArray[np.int8], split: Split) -> pa.Table:
    """Under a temporal split, items known by the first cutoff; under leave-one-out, as in the papers, all."""
    known = part == TRAIN if split.kind == "temporal" else np.ones(len(part), bool)
    present = np.unique(item[known])
    counts = np.bincount(item[counted], minlength=len(ids))
    return pa.table(
        {Col.ITEM: ids.take(pa.array(present)), Col.TRAIN_COUNT: pa.array(counts[present].astype(np.int64))}
    )


def _refuse(events: pa.Table, reason: Reason, rules: UserRules) -> pa.Table:
    if not events.num_rows:
        return QUARANTINE_SCHEMA.empty_table()
    columns = {name: events[name].combine_chunks() for name in _COMPARED}
    sources = pa.array(rules.sources, pa.string()).take(events[Col.SOURCE].combine_chunks())
    return refuse_rows(sources, events[Col.ROW], pa.array([str(reason)] * events.num_rows), columns)
