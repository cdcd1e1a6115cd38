"""How published data sets lie on disk: what `data.format` knows of each that its files do not say themselves.

A layout is data, read like any other log. Sources of what stands here:
- recbole: https://recbole.io/docs/user_guide/data/atomic_files.html, and the ml-100k in the package;
- movielens: the README of each release, https://files.grouplens.org/datasets/movielens/ (10M is laid out like 1M,
  25M, 32M and latest like 20M);
- amazon: https://jmcauley.ucsd.edu/data/amazon/ (2014; its catalogue holds Python dicts),
  https://nijianmo.github.io/amazon/ (2018), https://amazon-reviews-2023.github.io/ (2023);
- online_retail: https://archive.ics.uci.edu/dataset/352 and /502, saved as CSV.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from pydantic import BaseModel

from ray_app.data.dialect import Dialect
from ray_app.data.quarantine import Reason
from ray_app.data.times import Unit
from ray_app.data_config import DataConfig
from ray_app.schema import Col

Names = Mapping[str, tuple[str, ...]]
"""Our column -> what it may be called, the first that is there wins."""
NO_NAMES: Names = MappingProxyType({})
AnyColumns = TypeVar("AnyColumns", bound=BaseModel)


class Files(NamedTuple):
    """One kind of file of a layout."""

    patterns: tuple[str, ...]
    """What they may be called; each may be gzipped. A star in the catalogue's name is what it was in the events'."""
    names: Names
    dialect: Dialect = Dialect()


class Layout(NamedTuple):
    """How a data set is published."""

    events: Files
    items: Files = Files((), {})
    unit: Unit = "auto"
    listed: str = ""
    """What parts the categories of an item."""
    entities: bool = False
    """Whether texts of the catalogue are written as in HTML, `&amp;` for `&`."""
    flags: tuple[str, ...] = ()
    """Columns of the catalogue that are 1 where the category of that name holds."""
    expected: frozenset[Reason] = frozenset()
    """Rows that the data set is known to hold and that are no fault of it."""


_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_RATED = (Col.USER, Col.ITEM, Col.RATING, Col.TIME)
_MOVIE = {Col.ITEM: ("movieId",), Col.CATEGORY: ("genres",)}
_REVIEWS = Files(
    ("reviews_*_5.json", "reviews_*.json"),
    {Col.USER: ("reviewerID",), Col.ITEM: ("asin",), Col.TIME: ("unixReviewTime",), Col.RATING: ("overall",)},
)
_PRODUCTS = Files(
    ("meta_*.json",), {Col.ITEM: ("asin",), Col.CATEGORY: ("categories", "category"), Col.IMAGE: ("imUrl",)}
)
LAYOUTS: dict[str, Layout] = {
    "recbole": Layout(
        Files(("*.inter",), {}, Dialect(delimiter="\t", quotes=False, typed=True)),
        Files(
            ("*.item",),
            {Col.TITLE: ("movie_title", "name"), Col.CATEGORY: ("class", "genre", "genres", "categories")},
            Dialect(delimiter="\t", quotes=False, typed=True),
        ),
    ),
    "movielens_100k": Layout(
        Files(("u.data",), {}, Dialect(_RATED, "\t", quotes=False)),
        Files(
            ("u.item",),
            {},
            Dialect((Col.ITEM, Col.TITLE, "release", "video", "url", *_GENRES), "|", quotes=False, latin=True),
        ),
        unit="s",
        flags=_GENRES,
    ),
    "movielens_1m": Layout(
        Files(("ratings.dat",), {}, Dialect(_RATED, "::", quotes=False)),
        Files(("movies.dat",), {}, Dialect((Col.ITEM, Col.TITLE, Col.CATEGORY), "::", quotes=False, latin=True)),
        unit="s",
        listed="|",
    ),
    "movielens_20m": Layout(
        Files(("ratings.csv",), {Col.USER: ("userId",), Col.ITEM: ("movieId",)}),
        Files(("movies.csv",), _MOVIE),
        unit="s",
        listed="|",
    ),
    "amazon_2014": Layout(_REVIEWS, _PRODUCTS, unit="s", entities=True),
    "amazon_2018": Layout(_REVIEWS._replace(patterns=("*_5.json", "*.json")), _PRODUCTS, unit="s", entities=True),
    "amazon_2023": Layout(
        Files(("*.jsonl", "*.csv"), {Col.ITEM: ("parent_asin",)}),
        Files(("meta_*.jsonl",), {Col.ITEM: ("parent_asin",), Col.CATEGORY: ("categories",), Col.BRAND: ("store",)}),
        unit="ms",
        entities=True,
    ),
    "online_retail": Layout(
        Files(
            ("*.csv", "*.parquet"),
            {
                Col.USER: ("CustomerID", "Customer ID"),
                Col.ITEM: ("StockCode",),
                Col.TIME: ("InvoiceDate",),
                Col.QUANTITY: ("Quantity",),
                Col.PRICE: ("UnitPrice", "Price"),
                Col.ORDER: ("InvoiceNo", "Invoice"),
            },
            Dialect(latin=True),
        ),
        expected=frozenset({Reason.MISSING_USER}),
    ),
}
PLAIN = Layout(Files((), {}), Files((), {}))
"""A log that somebody describes column by column."""


def layout_of(kind: str) -> Layout:
    """The layout behind `data.format`; a plain one for parquet, CSV and JSON lines."""
    return LAYOUTS.get(kind, PLAIN)


def stem(uri: str, patterns: Sequence[str]) -> str | None:
    """What the star stands for in the first of the patterns that fits a file's name; None if none does."""
    name = uri.rpartition("/")[2].removesuffix(".gz")
    for pattern in patterns:
        head, _, tail = pattern.partition("*")
        if "*" in pattern and len(name) > len(head) + len(tail) and name.startswith(head) and name.endswith(tail):
            return name[len(head) : len(name) - len(tail)]
        if name == pattern:
            return ""
    return None


def laid_out(data: DataConfig, columns: set[str], item_columns: set[str]) -> DataConfig:
    """The settings, with what the layout says where they say nothing; given are the columns that the files have."""
    layout = layout_of(data.format)
    return data.model_copy(
        update={
            "columns": _adopt(data.columns, layout.events.names, columns),
            "item_columns": _adopt(data.item_columns, layout.items.names, item_columns),
            "timestamp_unit": layout.unit if data.timestamp_unit == "auto" else data.timestamp_unit,
        }
    )


def _adopt(columns: AnyColumns, names: Names, present: set[str]) -> AnyColumns:
    """A column that nobody named and no file has goes by the first of the layout's names that is there."""
    default = type(columns)()
    found = {
        ours: next((name for name in theirs if name in present), None)
        for ours, theirs in names.items()
        if getattr(columns, ours) == getattr(default, ours) and getattr(columns, ours) not in present
    }
    return columns.model_copy(update={ours: theirs for ours, theirs in found.items() if theirs is not None})
