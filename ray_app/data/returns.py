"""Returns and cancellations: which purchases they undo."""

import numpy as np
from numpy.typing import NDArray

LOOK_BACK = 200
"""Purchases of one product by one user among which a return finds its own."""
_ROUNDING = 1e-9


def find_returned(group: NDArray[np.int64], quantity: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which purchases were returned in full.

    Each return (negative quantity) is set against the latest earlier purchase of its group that has enough quantity
    left; one that fits no single purchase undoes nothing. A purchase that was returned in part was still wanted.

    Args:
        group: a number for what a return must share with its purchase (user, item and part of the split); in each group
            the events stand in time order.
        quantity: of each event; NaN counts as 1.
    """
    quantity = np.where(np.isnan(quantity), 1.0, quantity)
    returned = np.zeros(len(group), bool)
    events = np.flatnonzero(np.isin(group, group[quantity < 0]))
    events = events[np.argsort(group[events], kind="stable")]
    # One by one, since each return changes what the next one finds; the few rows of groups with returns alone.
    current, purchases = None, list[list[float]]()
    for row, key, amount in zip(events.tolist(), group[events].tolist(), quantity[events].tolist(), strict=True):
        if key != current:
            current, purchases = key, []
        if amount > 0:
            purchases.append([amount, row])
            continue
        for place in range(len(purchases) - 1, max(len(purchases) - 1 - LOOK_BACK, -1), -1):
            purchase = purchases[place]
            if purchase[0] >= -amount - _ROUNDING:
                purchase[0] += amount
                if purchase[0] <= _ROUNDING:
                    returned[int(purchase[1])] = True
                    del purchases[place]
                break
    return returned
