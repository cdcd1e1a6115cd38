"""What is refused, and why: every row that comes in is either kept or stands here with its reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_app.schema import QUARANTINE_SCHEMA

MAX_RAW = 500
"""Characters of a refused row's text that are kept."""


class Reason(StrEnum):
    """Why a row was refused. A row that has several faults is counted under the first in this order."""

    UNREADABLE_FILE = "unreadable_file"
    BAD_LINE = "bad_line"
    MISSING_USER = "missing_user"
    MISSING_ITEM = "missing_item"
    MISSING_TIMESTAMP = "missing_timestamp"
    BAD_TIMESTAMP = "bad_timestamp"
    BEFORE_1970 = "before_1970"
    IN_FUTURE = "in_future"
    BAD_QUANTITY = "bad_quantity"
    ZERO_QUANTITY = "zero_quantity"
    BAD_PRICE = "bad_price"
    NEGATIVE_PRICE = "negative_price"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    BAD_RATING = "bad_rating"
    LOW_RATING = "low_rating"
    DUPLICATE = "duplicate"
    RETURN = "return"
    RETURNED = "returned"
    USER_OVER_CAP = "user_over_cap"
    MISSING_PICTURE = "missing_picture"
    UNREADABLE_PATH = "unreadable_path"
    NOT_A_PICTURE = "not_a_picture"
    CORRUPT_PICTURE = "corrupt_picture"
    TRUNCATED_PICTURE = "truncated_picture"
    TOO_MANY_PIXELS = "too_many_pixels"
    MISSING_TEXT = "missing_text"
    MISSING_LABEL = "missing_label"
    UNKNOWN_PART = "unknown_part"
    UNTRAINED_LABEL = "untrained_label"
    LEFT_OUT = "left_out"
    REPEATED_TEXT = "repeated_text"


EXPECTED = frozenset(
    {
        *(Reason.LOW_RATING, Reason.RETURN, Reason.RETURNED, Reason.USER_OVER_CAP),
        *(Reason.LEFT_OUT, Reason.REPEATED_TEXT),
    }
)
"""Understood and no fault of the data: these do not count toward `data.max_quarantined_fraction`."""

MEANING = {
    Reason.UNREADABLE_FILE: "the file is truncated or not what its name says",
    Reason.BAD_LINE: "the line is not a row: wrong number of fields, broken quotes or JSON, not UTF-8",
    Reason.MISSING_USER: "no user id",
    Reason.MISSING_ITEM: "no item id",
    Reason.MISSING_TIMESTAMP: "no timestamp",
    Reason.BAD_TIMESTAMP: "the timestamp cannot be understood (plain order numbers need data.timestamp_unit: order)",
    Reason.BEFORE_1970: "the timestamp lies before 1970",
    Reason.IN_FUTURE: "the timestamp lies in the future (data.now)",
    Reason.BAD_QUANTITY: "the quantity is not a number",
    Reason.ZERO_QUANTITY: "the quantity is zero",
    Reason.BAD_PRICE: "the price is not a number",
    Reason.NEGATIVE_PRICE: "the price is below zero",
    Reason.UNKNOWN_EVENT_TYPE: "the event type is not in data.event_types",
    Reason.BAD_RATING: "the rating is not a number, and data.min_rating asks for one",
    Reason.LOW_RATING: "the rating lies below data.min_rating",
    Reason.DUPLICATE: "equal to an earlier row in every column that is read",
    Reason.RETURN: "a return or cancellation (negative quantity)",
    Reason.RETURNED: "a purchase that was returned or cancelled in full",
    Reason.USER_OVER_CAP: "an older event of a user with more than data.max_user_events",
    Reason.MISSING_PICTURE: "no picture: no bytes and no path",
    Reason.UNREADABLE_PATH: "there is no file by that path or URI",
    Reason.NOT_A_PICTURE: "the bytes are of no format of pictures that is known",
    Reason.CORRUPT_PICTURE: "the picture cannot be decoded",
    Reason.TRUNCATED_PICTURE: "the picture breaks off",
    Reason.TOO_MANY_PIXELS: "the picture claims more than pictures.max_pixels",
    Reason.MISSING_TEXT: "nothing in any of its columns of text",
    Reason.MISSING_LABEL: "no label",
    Reason.UNKNOWN_PART: "the part is none of train, validation, test",
    Reason.UNTRAINED_LABEL: "no training picture or text has its label, so it can never be right",
    Reason.LEFT_OUT: "a training picture or text beyond train_share",
    Reason.REPEATED_TEXT: "an equal text is kept, with the label that most of them have (texts.distinct)",
}


def refuse(source: str, rows: NDArray[np.int64] | None, reason: Reason, raw: Sequence[str | None]) -> pa.Table:
    """Rows of one file refused for one reason; `rows=None` stands for the file as a whole."""
    count = 1 if rows is None else len(rows)
    texts = [text if text is None else text[:MAX_RAW] for text in raw] or [None] * count
    return pa.table(
        [
            pa.array([source] * count, pa.string()),
            pa.nulls(1, pa.int64()) if rows is None else pa.array(rows, pa.int64()),
            pa.array([str(reason)] * count, pa.string()),
            pa.array(texts, pa.string()),
        ],
        schema=QUARANTINE_SCHEMA,
    )


def refuse_rows(sources: pa.Array, rows: pa.Array, reasons: pa.Array, columns: Mapping[str, pa.Array]) -> pa.Table:
    """Rows of any files, each with its reason and its text as `name=value, ...`."""
    return pa.table([sources, rows, reasons, row_text(columns, len(rows))], schema=QUARANTINE_SCHEMA)


def row_text(columns: Mapping[str, pa.Array], count: int) -> pa.Array:
    """`name=value, ...` for every row; what cannot be written as text shows as its type."""
    shown = []
    for name, column in columns.items():
        try:
            text = column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            text = pa.array([f"({column.type})"] * count, pa.string())
        shown.append(pc.binary_join_element_wise(f"{name}=", text.fill_null(""), ""))
    if not shown:
        return pa.nulls(count, pa.string())
    return pc.utf8_slice_codeunits(pc.binary_join_element_wise(*shown, ", "), 0, MAX_RAW)


def tally(refused: pa.Table) -> Counter[str]:
    """Rows by reason; a file as a whole (row null) is not a row."""
    counts = refused.filter(pc.is_valid(refused["row"]))["reason"].value_counts()
    return Counter({pair["values"]: pair["counts"] for pair in counts.to_pylist()})


def reasons_table(counts: Mapping[str, int]) -> str:
    """Lines of `count  reason  meaning`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return "\n".join(f"  {count:>12,}  {reason:<19} {MEANING[Reason(reason)]}" for reason, count in ordered)
