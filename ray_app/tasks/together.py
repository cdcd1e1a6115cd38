"""What is bought together with each item, as parquet with the retailer's own ids, on Ray Data.

Two passes over the log: one counts the orders of each item, the other the orders of each pair, for a block of items at
a time, so that memory holds the pairs of a block and never those of the catalogue.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_app.config import Config, fingerprint
from ray_app.data.dataset import Dataset
from ray_app.data.pool import map_parts
from ray_app.data.sequences import COLUMNS, Histories, LongArray
from ray_app.errors import DataError
from ray_app.evaluate_config import PredictConfig
from ray_app.evidence.together import Counted, best_partners, orders_of, shared_orders
from ray_app.schema import Col, together_schema
from ray_app.storage import join

MANIFEST = "manifest.json"
PAIRS_AT_ONCE = 1 << 24
"""Pairs of items in orders, counted as often as they occur, in one block: what a task may come to hold."""
_COUNT, _PAIRS, _ORDERS = "count", "pairs", "orders"


def together_uri(dataset: Dataset, config: Config) -> str:
    """A folder of its own for these inputs; no model is among them."""
    return join(dataset.storage.root(config.name), "together", fingerprint(_inputs(dataset, config.predict)))


def write_together(dataset: Dataset, config: Config) -> dict[str, Any]:
    """Write `part-*.parquet` (`schema.together_schema`) to `together_uri`, and `manifest.json` last; or find them.

    Returns:
        The manifest: counts, parts, and what they were made from.

    Raises:
        DataError: no two items share enough orders.
    """
    storage, settings, uri = dataset.storage, config.predict, together_uri(dataset, config)
    path = join(uri, MANIFEST)
    if storage.exists(path):
        found: dict[str, Any] = json.loads(storage.read_bytes(path))
        return found
    counts, pairs = np.zeros((2, dataset.num_items + 1), np.int64)
    num_orders = 0
    log = {"dataset": dataset, "settings": settings}
    for table in map_parts(dataset.part_uris, ItemCounter, log, config.train):
        counts += table[_COUNT].to_numpy()
        pairs += table[_PAIRS].to_numpy()
        num_orders += table[_ORDERS][0].as_py()
    blocks = [f"{first}-{stop}" for first, stop in _blocks(pairs)]
    work = log | {"counts": counts, "num_orders": num_orders, "out_uri": uri}
    parts = [row for table in map_parts(blocks, PairCounter, work, config.train) for row in table.to_pylist()]
    rows = sum(part["rows"] for part in parts)
    if not rows:
        raise DataError(
            f"{dataset.uri}: no two items stand together in {settings.together_orders} orders, so nothing is bought "
            "together; name the column of orders (data.columns.order_id), or lower predict.together_orders"
        )
    manifest = {
        "inputs": _inputs(dataset, settings),
        "dataset": dataset.uri,
        "orders": num_orders,
        "items": sum(part["items"] for part in parts),
        "rows": rows,
        "parts": parts,
    }
    storage.write_bytes(path, json.dumps(manifest, indent=1).encode())
    return manifest


def _inputs(dataset: Dataset, settings: PredictConfig) -> dict[str, Any]:
    wanted = {"k", "history", "together_orders"}
    return {"dataset_fingerprint": dataset.manifest.fingerprint, **settings.model_dump(mode="json", include=wanted)}


def _blocks(pairs: LongArray) -> Iterator[tuple[int, int]]:
    """Runs of items `first` to `stop` that have about `PAIRS_AT_ONCE` pairs each."""
    number = np.cumsum(pairs) // PAIRS_AT_ONCE
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    yield from zip(starts.tolist(), [*starts[1:].tolist(), len(pairs)], strict=True)


class _OrderReader:
    """Reads the orders of a part."""

    def __init__(self, dataset: Dataset, settings: PredictConfig) -> None:
        self._dataset = dataset
        self._settings = settings

    def orders(self, uri: str) -> Counted:
        histories = Histories.from_tables([self._dataset.storage.read_table(uri, COLUMNS)])
        return orders_of(histories, self._dataset.num_items, self._settings.history == "before_test")


class ItemCounter(_OrderReader):
    """An actor: one row per item index, of one part after another."""

    def __call__(self, uri: str) -> Iterator[pa.Table]:
        """Orders that hold the item, pairs that it makes in them, and orders of the part."""
        orders = self.orders(uri)
        sizes = np.diff(orders.indptr)
        held = np.bincount(orders.indices, minlength=orders.shape[1])
        pairs = np.bincount(orders.indices, np.repeat(sizes, sizes), orders.shape[1]).astype(np.int64)
        yield pa.table({_COUNT: held, _PAIRS: pairs, _ORDERS: np.full(len(held), orders.shape[0])})


class PairCounter(_OrderReader):
    """An actor: one block of items after another, over the whole log."""

    def __init__(
        self, dataset: Dataset, settings: PredictConfig, counts: NDArray[np.int64], num_orders: int, out_uri: str
    ) -> None:
        super().__init__(dataset, settings)
        self._counts, self._num_orders, self._out_uri = counts, num_orders, out_uri
        self._item_ids = dataset.items()[Col.ITEM].combine_chunks()

    def __call__(self, block: str) -> Iterator[pa.Table]:
        """One row: the name of the file that was written, and how many items and rows it has."""
        first, stop = map(int, block.split("-"))
        at_least, total = self._settings.together_orders, None
        for uri in self._dataset.part_uris:
            shared = shared_orders(self.orders(uri), first, stop, self._counts >= at_least)
            total = shared if total is None else total + shared
        assert total is not None
        found = best_partners(total, first, self._counts, self._num_orders, at_least, self._settings.k)
        ids = [self._item_ids.take(index - 1) for index in (found.items, found.partners)]
        table = pa.table(
            [*ids, found.ranks, found.lifts, found.orders], schema=together_schema(self._dataset.item_type)
        )
        name = f"part-{first:09d}.parquet"
        self._dataset.storage.write_table(join(self._out_uri, name), table)
        yield pa.Table.from_pylist([{"path": name, "items": len(np.unique(found.items)), "rows": table.num_rows}])
