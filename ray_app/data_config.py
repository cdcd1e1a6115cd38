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
    """Required."""
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    """Required: a date and time (UTC where no zone is written), or a number (`timestamp_unit`)."""
    event_type: str = "event_type"
    """Such as click or purchase (`event_types`)."""
    quantity: str = "quantity"
    """Below zero it is a return, which is quarantined, and the purchase too that it undoes in full."""
    price: str = "price"
    rating: str = "rating"
    """Read where `min_rating` is set."""
    order_id: str = "order_id"
    """Items of one order are learned from what came before the order, and count as bought together."""
    store_id: str = "store_id"
    """Tells apart lines that are equal otherwise."""


class ItemColumns(Section):
    """The retailer's name for each of our item columns. All but `item_id` are optional."""

    item_id: str = "item_id"
    title: str = "title"
    """Text, for encoders, baselines and the page."""
    description: str = "description"
    """Text."""
    brand: str = "brand"
    """Label and text."""
    category: str = "category"
    """Label and text; diversity counts by it."""
    price: str = "price"
    image: str = "image"
    """Path or URI of a picture, relative to the file that names it."""
    available_from: str = "available_from"
    """A time, kept in the item table."""


class SplitConfig(Section):
    """What is kept for validation and test."""

    kind: Literal["temporal", "leave_one_out"] = "temporal"
    """temporal: global cutoffs, what a retailer should trust; leave_one_out: the papers' protocol."""
    validation_days: Days = 14.0
    """Length of the validation part, which lies before the test part."""
    test_days: Days = 14.0
    """Counted back from the last event."""
    validation_start: datetime | None = None
    """First moment of the validation part."""
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
    """A larger share of rows that cannot be read ends the job before training. They are kept with their reasons."""
    split: SplitConfig = SplitConfig()


class SourceConfig(DataConfig):
    """A log to learn from before the target's own, read as `data` is."""

    split: SplitConfig | None = None  # type: ignore[assignment]
    """Unset: that of `data`, at the very cutoffs of the target, since pretraining may know nothing past them."""

    def divided_by(self, split: SplitConfig) -> DataConfig:
        """The same log, with this split where it has none of its own."""
        return DataConfig.model_validate(self.model_dump() | {"split": self.split or split})
