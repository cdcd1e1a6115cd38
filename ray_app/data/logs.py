"""Rows of a log, whatever the retailer calls and types its columns, as events of ours; and those that are none."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_app.data.files import Piece, RawBatch
from ray_app.data.ids import are_integers, as_ids
from ray_app.data.numbers import as_numbers
from ray_app.data.quarantine import Reason, refuse_rows
from ray_app.data.times import Unit, as_times
from ray_app.data_config import Columns, DataConfig
from ray_app.schema import Col

WEIGHT = "weight"
EVENTS_SCHEMA = pa.schema(
    [
        pa.field(Col.USER, pa.string(), nullable=False),
        pa.field(Col.ITEM, pa.string(), nullable=False),
        pa.field(Col.TIME, pa.int64(), nullable=False),
        pa.field(Col.EVENT_TYPE, pa.string()),
        pa.field(Col.QUANTITY, pa.float64()),
        pa.field(Col.PRICE, pa.float64()),
        pa.field(Col.ORDER, pa.string()),
        pa.field(Col.STORE, pa.string()),
        pa.field(WEIGHT, pa.float32(), nullable=False),
        pa.field(Col.SOURCE, pa.int32(), nullable=False),
        pa.field(Col.ROW, pa.int64(), nullable=False),
    ]
)
"""Events on their way: ids as text, times as they will stay, the weight of the event's type, the file and its row."""
_CLOCK_SLACK = timedelta(hours=14)
"""A local time without a zone, read as UTC, may run this far ahead of the clock."""


@dataclass(frozen=True)
class LogRules:
    """How rows are read."""

    columns: Columns
    unit: Unit
    day_first: bool
    now_us: int
    event_types: dict[str, float] | None
    min_rating: float | None = None

    @classmethod
    def of(cls, data: DataConfig, day_first: bool) -> "LogRules":
        """The rules of a configuration; `data.now` unset means the clock."""
        now = data.now or datetime.now(UTC) + _CLOCK_SLACK
        now = now if now.tzinfo else now.replace(tzinfo=UTC)
        now_us = round(now.timestamp() * 1e6)
        return cls(data.columns, data.timestamp_unit, day_first, now_us, data.event_types, data.min_rating)

    @property
    def names(self) -> dict[str, str]:
        """Our column -> the retailer's, for those that are read."""
        return self.columns.model_dump(exclude={Col.RATING} if self.min_rating is None else None)


@dataclass(frozen=True)
class ParsedBatch:
    """The rows of one batch, each in exactly one of two tables."""

    events: pa.Table
    refused: pa.Table
    integers: tuple[bool, bool] | None
    """Whether all user ids and all item ids of the events are integers; None if there are no events."""
    day_places: tuple[int, int]
    """`times.day_places` of the timestamps."""


def parse_events(raw: RawBatch, piece: Piece, rules: LogRules) -> ParsedBatch:
    """Read a batch; negative quantities pass as events, for what they return is known only later."""
    names, count = rules.names, len(raw.rows)
    columns = {ours: raw.column(theirs) for ours, theirs in names.items()}
    untyped = piece.format == "csv"
    users, items = as_ids(columns[Col.USER], untyped), as_ids(columns[Col.ITEM], untyped)
    times = as_times(columns[Col.TIME], rules.unit, rules.day_first)
    quantity, bad_quantity = as_numbers(columns[Col.QUANTITY])
    price, bad_price = as_numbers(columns[Col.PRICE])
    kinds = as_ids(columns[Col.EVENT_TYPE], untyped).text
    weight, unknown_type = _weights(kinds, rules.event_types)
    rating, bad_rating = _ratings(columns, count, rules.min_rating)
    dated = rules.unit != "order"
    reason = _first_reason(
        {
            Reason.MISSING_USER: np.asarray(users.text.is_null()),
            Reason.MISSING_ITEM: np.asarray(items.text.is_null()),
            Reason.MISSING_TIMESTAMP: times.missing,
            Reason.BAD_TIMESTAMP: times.bad,
            Reason.BEFORE_1970: (times.us < 0) & dated,
            Reason.IN_FUTURE: (times.us > rules.now_us) & dated,
            Reason.BAD_QUANTITY: bad_quantity,
            Reason.ZERO_QUANTITY: quantity == 0,
            Reason.BAD_PRICE: bad_price,
            Reason.NEGATIVE_PRICE: price < 0,
            Reason.UNKNOWN_EVENT_TYPE: unknown_type,
            Reason.BAD_RATING: bad_rating,
            Reason.LOW_RATING: rating < (rules.min_rating or 0),
        },
        count,
    )
    kept = pa.array(reason < 0)
    events = pa.table(
        [
            users.text,
            items.text,
            pa.array(times.us),
            kinds,
            pa.array(quantity, from_pandas=True),
            pa.array(price, from_pandas=True),
            as_ids(columns[Col.ORDER], untyped).text,
            as_ids(columns[Col.STORE], untyped).text,
            pa.array(weight),
            pa.array(np.full(count, piece.source, np.int32)),
            pa.array(raw.rows),
        ],
        names=EVENTS_SCHEMA.names,
    )
    events = events.filter(kept).cast(EVENTS_SCHEMA)
    integers = (_integers(events[Col.USER], users.integers), _integers(events[Col.ITEM], items.integers))
    refused = _refused(raw, piece.uri, reason)
    return ParsedBatch(events, refused, integers if events.num_rows else None, times.day_places)


def _weights(kinds: pa.Array, known: dict[str, float] | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if known is None:
        return np.ones(len(kinds), np.float32), np.zeros(len(kinds), bool)
    position = pc.index_in(kinds, pa.array(list(known), pa.string())).fill_null(-1).to_numpy(zero_copy_only=False)
    weights = np.array([*known.values(), 0.0], np.float32)
    return weights[position], position < 0


def _ratings(
    columns: dict[str, pa.Array], count: int, least: float | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Ratings, and which are none; where nobody asked for one, none is read and none is bad."""
    if least is None:
        return np.full(count, np.nan), np.zeros(count, bool)
    rating, _ = as_numbers(columns[Col.RATING])
    return rating, np.isnan(rating)


def _first_reason(faults: dict[Reason, NDArray[np.bool_]], count: int) -> NDArray[np.int8]:
    """Position in `Reason` of the first fault of each row, -1 for none."""
    reason = np.full(count, -1, np.int8)
    for number, fault in enumerate(Reason):
        if fault in faults:
            reason[(reason < 0) & faults[fault]] = number
    return reason


def _refused(raw: RawBatch, uri: str, reason: NDArray[np.int8]) -> pa.Table:
    bad = np.flatnonzero(reason >= 0)
    texts = {name: raw.column(name).take(pa.array(bad)) for name in raw.table.column_names}
    reasons = pa.array([str(kind) for kind in Reason]).take(pa.array(reason[bad]))
    table = refuse_rows(pa.array([uri] * len(bad), pa.string()), pa.array(raw.rows[bad], pa.int64()), reasons, texts)
    return pa.concat_tables([table, raw.refused]) if raw.refused else table


def _integers(ids: pa.ChunkedArray, known: bool | None) -> bool:
    return are_integers(ids) if known is None else known
