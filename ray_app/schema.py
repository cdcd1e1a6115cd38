"""Column names and Arrow schemas: the one place where a column of ours is spelled."""

import pyarrow as pa

SCHEMA_VERSION = 1
"""Part of every dataset fingerprint: raise it when a prepared file changes its meaning."""


class Col:
    """Names of columns in the files we read (after mapping) and write."""

    USER = "user_id"
    ITEM = "item_id"
    TIME = "timestamp"
    EVENT_TYPE = "event_type"
    QUANTITY = "quantity"
    PRICE = "price"
    RATING = "rating"
    ORDER = "order_id"
    STORE = "store_id"

    TITLE = "title"
    DESCRIPTION = "description"
    BRAND = "brand"
    CATEGORY = "category"
    IMAGE = "image"
    AVAILABLE_FROM = "available_from"

    ITEM_INDEX = "item_index"
    TRAIN_COUNT = "train_count"

    ITEMS = "items"
    TIMES = "times"
    WEIGHTS = "weights"
    ORDERS = "orders"
    NUM_TRAIN = "num_train"
    NUM_VALIDATION = "num_validation"

    TEXT_HASH = "text_hash"
    PICTURE_HASH = "picture_hash"
    VECTOR = "vector"

    RANK = "rank"
    SCORE = "score"
    KEY = "key"
    LABEL = "label"
    PROBABILITY = "probability"

    PARTNER = "partner_id"
    LIFT = "lift"

    SOURCE = "source"
    ROW = "row"
    REASON = "reason"
    RAW = "raw"


PAD = 0
"""Item index of padding, and of an item that is not in the vocabulary. Real items count from 1."""


def sequences_schema(user_type: pa.DataType) -> pa.Schema:
    """One row per user, events in time order: `num_train` of them, then `num_validation`, then the test part.

    `items` holds item indices (`PAD` for an item outside the vocabulary, never in the train part); `times` microseconds
    since 1970 UTC, or plain order numbers; `weights` the weight of each event's type; `orders` the ordinal of the order
    (basket) that the event belongs to, counted from 0 within the user.
    """
    return pa.schema(
        [
            pa.field(Col.USER, user_type, nullable=False),
            pa.field(Col.ITEMS, pa.list_(pa.int32()), nullable=False),
            pa.field(Col.TIMES, pa.list_(pa.int64()), nullable=False),
            pa.field(Col.WEIGHTS, pa.list_(pa.float32()), nullable=False),
            pa.field(Col.ORDERS, pa.list_(pa.int32()), nullable=False),
            pa.field(Col.NUM_TRAIN, pa.int32(), nullable=False),
            pa.field(Col.NUM_VALIDATION, pa.int32(), nullable=False),
        ]
    )


def items_schema(item_type: pa.DataType) -> pa.Schema:
    """One row per item of the vocabulary, in the order of `item_index` (1, 2, 3, ...).

    `image` says where the picture is (`data.picture_places`).
    """
    return pa.schema(
        [
            pa.field(Col.ITEM_INDEX, pa.int32(), nullable=False),
            pa.field(Col.ITEM, item_type, nullable=False),
            pa.field(Col.TRAIN_COUNT, pa.int64(), nullable=False),
            pa.field(Col.TITLE, pa.string()),
            pa.field(Col.DESCRIPTION, pa.string()),
            pa.field(Col.BRAND, pa.string()),
            pa.field(Col.CATEGORY, pa.string()),
            pa.field(Col.PRICE, pa.float64()),
            pa.field(Col.IMAGE, pa.string()),
            pa.field(Col.AVAILABLE_FROM, pa.int64()),
        ]
    )


def features_schema(dim: int) -> pa.Schema:
    """One row per distinct text: its hash, and its vector of length 1."""
    vector = pa.list_(pa.float16(), dim)
    return pa.schema(
        [pa.field(Col.TEXT_HASH, pa.binary(16), nullable=False), pa.field(Col.VECTOR, vector, nullable=False)]
    )


def picture_features_schema(dim: int) -> pa.Schema:
    """One row per distinct place of a picture: the hash of the place, and that of the picture's bytes.

    Either its vector, which may be missing where another row has it for an equal picture, or why there is none.
    """
    return pa.schema(
        [
            pa.field(Col.TEXT_HASH, pa.binary(16), nullable=False),
            pa.field(Col.PICTURE_HASH, pa.binary(16)),
            pa.field(Col.VECTOR, pa.list_(pa.float16(), dim)),
            pa.field(Col.REASON, pa.string()),
            pa.field(Col.RAW, pa.string()),
        ]
    )


QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field(Col.SOURCE, pa.string(), nullable=False),
        pa.field(Col.ROW, pa.int64()),
        pa.field(Col.REASON, pa.string(), nullable=False),
        pa.field(Col.RAW, pa.string()),
    ]
)
"""One row per refused row: the file, the row's number in it (from 0; null for a whole file), why, and its text."""


def predictions_schema(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """Top-k lists, ids in the retailer's own types; `rank` counts from 1."""
    return pa.schema(
        [
            pa.field(Col.USER, user_type, nullable=False),
            pa.field(Col.ITEM, item_type, nullable=False),
            pa.field(Col.RANK, pa.int32(), nullable=False),
            pa.field(Col.SCORE, pa.float32(), nullable=False),
        ]
    )


LABELS_SCHEMA = pa.schema(
    [
        pa.field(Col.KEY, pa.string(), nullable=False),
        pa.field(Col.LABEL, pa.string(), nullable=False),
        pa.field(Col.PROBABILITY, pa.float32(), nullable=False),
        pa.field(Col.RANK, pa.int32(), nullable=False),
    ]
)
"""The likeliest labels of each picture or text; `rank` counts from 1."""


def together_schema(item_type: pa.DataType) -> pa.Schema:
    """What is bought together with each item, ids in the retailer's own types; `rank` counts from 1 within the item.

    `lift` is how much more often than by chance both are in one order, shrunk; `orders` is how often they are.
    """
    return pa.schema(
        [
            pa.field(Col.ITEM, item_type, nullable=False),
            pa.field(Col.PARTNER, item_type, nullable=False),
            pa.field(Col.RANK, pa.int32(), nullable=False),
            pa.field(Col.LIFT, pa.float32(), nullable=False),
            pa.field(Col.ORDERS, pa.int64(), nullable=False),
        ]
    )
