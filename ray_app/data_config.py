"""How raw logs are read, and what of them is kept for validation and test."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ray_app.schedule import Section


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Days = Annotated[float, Field(gt=0, le=36_525)]
FormatName = Literal[
    "auto", "parquet", "csv", "jsonl",
    "recbole", "movielens_100k", "movielens_1m", "movielens_20m",
    "amazon_2014", "amazon_2018", "amazon_2023", "online_retail",
]  # fmt: skip


class Columns(Section):
    """The retailer's name for each of our event columns. Optional ones are read when the file has them."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    event_type: str = "event_type"
    quantity: str = "quantity"
    price: str = "price"
    rating: str = "rating"
    order_id: str = "order_id"
    store_id: str = "store_id"


class ItemColumns(Section):
    """The retailer's name for each of our item columns. All but `item_id` are optional."""

    item_id: str = "item_id"
    title: str = "title"
    description: str = "description"
    brand: str = "brand"
    category: str = "category"
    price: str = "price"
    image: str = "image"
    available_from: str = "available_from"


class SplitConfig(Section):
    """What is kept for validation and test."""

    kind: Literal["temporal", "leave_one_out"] = "temporal"
    """temporal: global cutoffs, what a retailer should trust; leave_one_out: the papers' protocol."""
    validation_days: Days = 14.0
    test_days: Days = 14.0
    """Counted back from the last event."""
    validation_start: datetime | None = None
    test_start: datetime | None = None
    """Cutoffs given outright (UTC where no zone is written) win over the days."""

    @model_validator(mode="after")
    def _cutoffs(self) -> Self:
        given = [x if x.tzinfo else x.replace(tzinfo=UTC) for x in (self.validation_start, self.test_start) if x]
        if len(given) == 1:
            raise ValueError("validation_start and test_start go together: give both or neither")
        if len(given) == 2 and given[0] >= given[1]:
            raise ValueError("validation_start must lie before test_start")
        return self


class DataConfig(Section):
    """Raw logs and how to read them."""

    events: Paths = ()
    """Files, folders or globs of parquet, CSV or JSON lines (also gzipped); local or s3://."""
    format: FormatName = "auto"
    """auto goes by the names of the files. A published layout also brings its names of files and columns, its
    separators, the unit of its times and where its catalogue lies; what is set here beside it wins."""
    items: Paths = ()
    """The catalogue, in the same formats. Unset: what a published layout has beside the events."""
    columns: Columns = Columns()
    item_columns: ItemColumns = ItemColumns()
    timestamp_unit: Literal["auto", "order", "s", "ms", "us", "ns"] = "auto"
    """What numbers in the timestamp column mean. "order" is a plain order number per user."""
    event_types: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Known event types and their weight in the loss; 0 is context only. Unset: all types, weight 1."""
    min_rating: float | None = None
    """Ratings below this are no sign of interest and are left out. Unset: every rating counts as an event."""
    now: datetime | None = None
    """Events later than this are refused as lying in the future; unset, the clock is asked."""
    max_user_events: Positive = 10_000
    """More events of one user than this in one part of the split are a robot's: the oldest are quarantined."""
    max_quarantined_fraction: Fraction = 0.05
    split: SplitConfig = SplitConfig()
