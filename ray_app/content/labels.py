"""Labels of items by name: brands, categories, and how dear an item is among those of its catalogue."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import torch

from ray_app.models.items import LabelRows
from ray_app.schema import Col

PRICE_BUCKETS = 10


def label_names(items: pa.Table, columns: Sequence[str]) -> list[list[str]]:
    """Names of each item's labels, each after its column, so that equal ones of two columns are two.

    Several categories of one item stand with commas between (`catalog`). Prices are divided into tenths of this
    catalogue, so that a label says the same where other currencies are paid.
    """
    found: list[list[str]] = [[] for _ in range(len(items))]
    for column in columns:
        texts = _price_buckets(items[column]) if column == Col.PRICE else items[column].to_pylist()
        for names, text in zip(found, texts, strict=True):
            labels = set(text.split(", ")) if text and column == Col.CATEGORY else {text}
            names.extend(f"{column}={label}" for label in sorted(filter(None, labels)))
    return found


def label_rows(names: Sequence[Sequence[str]], known: Mapping[str, int] | None = None) -> tuple[LabelRows, list[int]]:
    """Rows for the labels of each item; and for those that a model knows, their rows there.

    Args:
        names: of each item's labels.
        known: `rows_by_name` of the model.
    """
    known, distinct = known or {}, sorted(set(chain.from_iterable(names)))
    there = [name for name in distinct if name in known]
    row = {name: n for n, name in enumerate(there + [name for name in distinct if name not in known])}
    of_item = np.full((len(names), max([1, *map(len, names)])), len(row))
    for item, own in enumerate(names):
        of_item[item, : len(own)] = [row[name] for name in own]
    rows = LabelRows(torch.from_numpy(of_item), len(there), len(row) - len(there))
    return rows, [known[name] for name in there]


def rows_by_name(names: Sequence[Sequence[str]], rows: torch.Tensor) -> dict[str, int]:
    """Rows of the labels of a model, from the names and rows that its items have."""
    pairs = zip(names, rows.tolist(), strict=True)
    return {name: row for own, of_item in pairs for name, row in zip(own, of_item, strict=False)}


def _price_buckets(column: "pa.ChunkedArray") -> list[str | None]:
    prices = column.to_numpy().astype(np.float64)
    there = np.isfinite(prices)
    if not there.any():
        return [None] * len(prices)
    edges = np.quantile(prices[there], np.arange(1, PRICE_BUCKETS) / PRICE_BUCKETS)
    buckets = np.searchsorted(edges, prices, side="right")
    return [f"{bucket + 1} of {PRICE_BUCKETS}" if known else None for bucket, known in zip(buckets, there, strict=True)]
