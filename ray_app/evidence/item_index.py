"""What the whole log says of each item today: popular, bought together, first sold. Never for evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy import sparse

from ray_app.baselines.histories import Matrix, bags, settled
from ray_app.baselines.neighbors import nearest
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import COLUMNS, Histories, Ragged
from ray_app.evidence.together import orders_of
from ray_app.schema import PAD

INDEX_FILE = "item_index.safetensors"
NEIGHBORS = 100
DOUBT = 5.0
"""Orders in common that are taken for chance: with so many a cosine counts half."""
RECENT_US = 7 * 24 * 3600 * 1_000_000
NEVER = -1


@dataclass(frozen=True)
class ItemIndex:
    """Arrays over item indices, `[num_items + 1]`; entry `PAD` says nothing."""

    counts: NDArray[np.float64]
    """Summed weights of all events."""
    recent: NDArray[np.float64]
    """Those of the log's last week; where there is no clock, all."""
    first: NDArray[np.int64]
    """Time of the first event, `NEVER` without one or without a clock."""
    last_time: int
    """Time of the log's last event, `NEVER` without a clock."""
    together: Matrix
    """Cosine of the sets of orders, less where they are few; of users, where no order has two items."""

    @classmethod
    def fit(cls, dataset: Dataset) -> Self:
        """Count over all parts of a prepared dataset, also those held out: what is served knows today."""
        log = Histories.from_tables([dataset.storage.read_table(uri, COLUMNS) for uri in dataset.part_uris])
        items, times, weights = log.items, log.times, log.weights.astype(np.float64)
        known = (items != PAD) & (weights > 0)
        size = dataset.num_items + 1
        clock = dataset.manifest.data["timestamp_unit"] != "order"
        last_time = int(times.max(initial=NEVER)) if clock else NEVER
        recent = known & (times > last_time - RECENT_US) if clock else known
        first = np.full(size, np.iinfo(np.int64).max)
        np.minimum.at(first, items[known], times[known])
        first[(first == np.iinfo(np.int64).max) | (not clock)] = NEVER
        had = settled(orders_of(log, dataset.num_items, before_test=False).T)
        if had.nnz == had.shape[1]:  # one item each
            had = settled(bags(Ragged(items, log.offsets).keep(known), dataset.num_items).T)
        return cls(
            counts=_sums(items[known], weights[known], size),
            recent=_sums(items[recent], weights[recent], size),
            first=first,
            last_time=last_time,
            together=_together(had),
        )

    def by_popularity(self) -> NDArray[np.int64]:
        """All item indices, the most bought of late first."""
        order = np.lexsort((np.arange(len(self.counts)), -self.counts, -self.recent))
        popular: NDArray[np.int64] = order[order != PAD]
        return popular

    def save(self, path: Path) -> None:
        """Write all arrays as safetensors."""
        together = {"data": self.together.data, "columns": self.together.indices, "rows": self.together.indptr}
        arrays = {"counts": self.counts, "recent": self.recent, "first": self.first}
        arrays |= {"last_time": np.array([self.last_time])} | {f"together.{n}": a for n, a in together.items()}
        save_file(arrays, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        arrays = load_file(path)
        size = len(arrays["counts"])
        together = tuple(arrays[f"together.{name}"] for name in ("data", "columns", "rows"))
        return cls(
            counts=arrays["counts"],
            recent=arrays["recent"],
            first=arrays["first"],
            last_time=int(arrays["last_time"][0]),
            together=sparse.csr_array(together, shape=(size, size)),
        )


def _sums(items: NDArray[np.int32], weights: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return np.bincount(items, weights, size).astype(np.float64)  # of nothing bincount makes integers


def _together(had: Matrix) -> Matrix:
    """From the orders (or users) that hold each item, `[items + 1, orders]`."""
    cosine = nearest(had, NEIGHBORS)
    alone = np.sqrt(had.sum(axis=1))
    rows = np.repeat(np.arange(len(alone)), np.diff(cosine.indptr))
    common = cosine.data * alone[rows] * alone[cosine.indices]
    doubted = cosine.data * common / (common + DOUBT)
    return settled(sparse.csr_array((doubted, cosine.indices, cosine.indptr), shape=cosine.shape))
