"""Frequently bought together: pairs of items that share more orders than chance would have it.

Lift is the number of orders with both items over the number that chance gives, count * count / orders. Half an order is
added to both, which draws pairs seen a few times toward 1 (Norén, Hopstadius and Bate, 2013, Shrinkage observed-to-
expected ratios, https://doi.org/10.1177/0962280211403604): a pair of rare items met once is no discovery.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ray_app.data.sequences import Histories, LongArray
from ray_app.schema import PAD

Counted: TypeAlias = "sparse.csr_array[np.int32, tuple[int, int]]"
SHRINKAGE = 0.5


class Partners(NamedTuple):
    """Flat: what is bought together with each item, the best first."""

    items: LongArray
    partners: LongArray
    ranks: NDArray[np.int32]
    """From 1 within each item."""
    lifts: NDArray[np.float32]
    orders: LongArray
    """With both items."""


def orders_of(histories: Histories, num_items: int, before_test: bool) -> Counted:
    """Which items each order holds, 0 or 1, `[orders, num_items + 1]`; events that weigh nothing are no purchases."""
    lengths = np.diff(histories.offsets)
    users = np.repeat(np.arange(len(histories)), lengths)
    wanted = (histories.items != PAD) & (histories.weights > 0)
    if before_test:
        place = np.arange(len(users)) - np.repeat(histories.offsets[:-1], lengths)
        wanted &= place < (histories.num_train + histories.num_validation)[users]
    keys = (users.astype(np.int64) << 32 | histories.orders)[wanted]
    order = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    pairs = np.unique(order * (num_items + 1) + histories.items[wanted])
    row, item = np.divmod(pairs, num_items + 1)
    shape = (int(row.max(initial=-1)) + 1, num_items + 1)
    return sparse.csr_array((np.ones(len(pairs), np.int32), (row, item)), shape=shape)


def shared_orders(orders: Counted, first: int, stop: int, common: NDArray[np.bool_]) -> Counted:
    """In how many orders items `first` to `stop` stand with each other one, `[stop - first, num_items + 1]`.

    Items that are not `common` are passed over.
    """
    data = np.where(common[orders.indices], orders.data, 0)
    kept: Counted = sparse.csr_array((data, orders.indices.copy(), orders.indptr.copy()), shape=orders.shape)
    kept.eliminate_zeros()
    shared: Counted = sparse.csr_array(kept[:, first:stop].T @ kept)
    return shared


def best_partners(shared: Counted, first: int, counts: LongArray, num_orders: int, at_least: int, k: int) -> Partners:
    """The `k` partners of greatest shrunk lift of each item, of those met in `at_least` orders; of equals the first.

    Args:
        shared: of `shared_orders`, summed over the log.
        first: item index of its first row.
        counts: orders that hold each item, `[num_items + 1]`.
        num_orders: orders in all.
        at_least: orders that a pair must share.
        k: partners of an item, at most.
    """
    pairs = sparse.coo_array(shared)
    item, partner, both = pairs.row.astype(np.int64) + first, pairs.col.astype(np.int64), pairs.data.astype(np.int64)
    kept = (both >= at_least) & (item != partner)
    item, partner, both = item[kept], partner[kept], both[kept]
    expected = counts[item] / num_orders * counts[partner]
    lifts = ((both + SHRINKAGE) / (expected + SHRINKAGE)).astype(np.float32)
    best = np.lexsort((partner, -lifts, item))
    item = item[best]
    rank = np.arange(len(item)) - np.searchsorted(item, item) + 1
    listed = rank <= k
    best = best[listed]
    return Partners(item[listed], partner[best], rank[listed].astype(np.int32), lifts[best], both[best])
