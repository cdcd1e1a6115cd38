"""What requests may say and what answers look like: the contract of `/v1`."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

MAX_K = 1000
MAX_HISTORY = 10_000
MAX_BATCH = 1000
MAX_EVENTS = 1000
MAX_IDS = 10_000


def _whole(value: object) -> object:
    """1.0 is a whole number in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _written_out(value: object) -> object:
    """A time as text: a number could mean seconds or milliseconds."""
    if not isinstance(value, datetime | None) and not re.match(r"\d{4}-\d\d-\d\d", str(value)):
        raise ValueError("should be a time like 2026-01-31T09:30:00Z")
    return value


Whole = Annotated[StrictInt, BeforeValidator(_whole)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Time = Annotated[AwareDatetime, BeforeValidator(_written_out)]
ItemId = Whole | Annotated[str, Field(min_length=1, max_length=512)]
"""The retailer's own id, a number or text; 12 and "12" are the same id."""
UserId = ItemId
Text = Annotated[str, Field(max_length=2000)]
Label = Annotated[str, Field(max_length=200)]
Price = Annotated[Number, Field(ge=0)]


class Wire(BaseModel):
    """Part of a request: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PastEvent(Wire):
    """Something the user did, without saying who it was."""

    item_id: ItemId
    timestamp: Time | None = None
    """Unset: just now, after what stands before it in the list."""
    event_type: Label | None = None


class Filters(Wire):
    """Which items may be recommended; what is left out does not count against `k`."""

    category: Annotated[list[Label], Field(max_length=100)] | None = None
    """Any of these."""
    brand: Annotated[list[Label], Field(max_length=100)] | None = None
    """Any of these."""
    price_min: Price | None = None
    price_max: Price | None = None
    """Items without a price pass neither bound."""
    in_stock: StrictBool = True
    """false: also items that were reported as not available."""
    allow: Annotated[list[ItemId], Field(max_length=MAX_IDS)] | None = None
    """Only these."""
    deny: Annotated[list[ItemId], Field(max_length=MAX_IDS)] = []
    """None of these."""


class Boost(Wire):
    """Items that should stand higher or lower than the model has them."""

    item_ids: Annotated[list[ItemId], Field(max_length=MAX_IDS)] = []
    category: Label | None = None
    brand: Label | None = None
    weight: Annotated[Number, Field(ge=-10, le=10)]
    """In standard deviations of the user's scores over the catalogue."""


class RecommendRequest(Wire):
    """Who asks, and what may be in the answer. Without user and history: what is popular."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "2375", "k": 5, "filters": {"category": ["CHEESE"]}}]}
    )
    user_id: UserId | None = None
    history: Annotated[list[ItemId | PastEvent], Field(max_length=MAX_HISTORY)] = []
    """What the user did besides what is known of `user_id`; ids alone are taken in their order, the newest last."""
    k: Annotated[Whole, Field(ge=1, le=MAX_K)] = 10
    filters: Filters = Field(default_factory=Filters)
    exclude_seen: StrictBool | None = None
    """Whether items of the history are left out; unset: as the model was evaluated."""
    diversity: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """How much unlikeness to the items above counts against the score."""
    boost: Annotated[list[Boost], Field(max_length=20)] = []
    pin: Annotated[list[ItemId], Field(max_length=100)] = []
    """Items that stand first, in this order, if they pass the filters."""
    version: Label | None = None
    """A version that is loaded (`/v1/models`) instead of the one in production."""


class Reason(BaseModel):
    """Why an item is in the answer."""

    kind: Literal["again", "because", "popular", "new", "pinned"]
    text: str
    """For a person, in English."""
    item_id: ItemId | None = None
    """The item of the history that speaks for it (because)."""


class Item(BaseModel):
    """An item as the catalogue describes it."""

    item_id: ItemId
    title: str
    brand: str | None = None
    category: str | None = None
    price: float | None = None
    image: str | None = None


class Recommended(Item):
    """An item with its score, which orders the answers to one request and means nothing beyond it."""

    score: float
    reason: Reason


class RecommendAnswer(BaseModel):
    """The best items first."""

    version: str
    user_known: bool
    unknown_items: list[ItemId]
    """Of the request's history: not in the catalogue, so nothing was learned from them."""
    items: list[Recommended]


class BatchRequest(Wire):
    """Many requests at once."""

    requests: Annotated[list[RecommendRequest], Field(min_length=1, max_length=MAX_BATCH)]


class BatchAnswer(BaseModel):
    """One answer per request, in their order."""

    answers: list[RecommendAnswer]


class Scored(Item):
    """An item and how near it is to the one asked about, or how popular."""

    score: float


class ItemsAnswer(BaseModel):
    """A list of items, the best first."""

    version: str
    items: list[Scored]


class HistoryItem(Item):
    """An event of a user."""

    timestamp: AwareDatetime | None = None
    """None where the log has order numbers instead of times."""


class HistoryAnswer(BaseModel):
    """What is known of a user, the newest first."""

    user_known: bool
    items: list[HistoryItem]


class NewEvent(PastEvent):
    """Something that a user did."""

    user_id: UserId
    event_id: Label | None = None
    """Sent again with the same id it counts once. Unset: the same user, item and second count once."""


class EventsRequest(Wire):
    """Events of any users."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"events": [{"user_id": "2375", "item_id": 1082185}]}]})
    events: Annotated[list[NewEvent], Field(min_length=1, max_length=MAX_EVENTS)]


class EventsAnswer(BaseModel):
    """All of them are on disk."""

    accepted: int
    duplicates: int
    unknown_items: list[ItemId]
    """Kept, but not in the catalogue yet."""


class ItemBody(Wire):
    """What is known of an item; a new one is recommended by its content."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"title": "OAT MILK", "category": "FLUID MILK PRODUCTS", "price": 2.49}]}
    )
    title: Annotated[str, Field(min_length=1, max_length=500)]
    description: Text | None = None
    brand: Label | None = None
    category: Label | None = None
    price: Price | None = None
    image: Annotated[str, Field(max_length=2000, pattern=r"^https?://")] | None = None


class Availability(Wire):
    """Whether an item can be bought now."""

    available: StrictBool


class Trial(BaseModel):
    """How a version is tried beside the one in production."""

    kind: Literal["canary", "shadow"]
    percent: float
    """Of the users who give an id."""


class Lately(BaseModel):
    """The newest answers of a version by the replica that was asked, since the last promotion or trial."""

    requests: int
    error_rate: float
    """Share that another version had to answer."""
    p99_s: float | None
    """Time to compute, waiting not counted."""
    overlap_at_k: float | None
    """Of a shadow: mean overlap of its lists with those that were given."""


class Model(BaseModel):
    """A registered version."""

    version: str
    registered_at: str
    ndcg_at_10: float
    """Mean over the users of its test part."""
    in_production: bool
    loaded: bool
    """Whether the replica that answered can be asked for it."""
    trial: Trial | None
    lately: Lately | None


class ModelsAnswer(BaseModel):
    """All versions, the newest last."""

    models: list[Model]
    refused: dict[str, str]
    """Versions that production asked for and that could not be loaded, with the reason."""


class Problem(BaseModel):
    """RFC 9457 problem details, as `application/problem+json`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[dict[str, str]] = []
    """One entry per field that is wrong: where, and what is allowed."""
