"""Returns and cancellations: which purchases they undo."""

import numpy as np
from numpy.typing import NDArray


def find_returned(group: NDArray[np.int64], quantity: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which purchases were returned in full.

    Each return (negative quantity) is set against the latest earlier purchase of its group that has enough quantity
    left; one that fits no single purchase undoes nothing. A purchase that was returned in part was still wanted.

    Args:
        group: a number >= 0 for what a return must share with its purchase (user, item and part of the split); in each
            group the events stand in time order.
        quantity: of each event; NaN counts as 1.
    """
    quantity = np.where(np.isnan(quantity), 1.0, quantity)
    is_return = quantity < 0
    returned = np.zeros(len(group), bool)
    # Only groups with a return matter; bring their events together, in time order.
    events = np.flatnonzero(np.isin(group, group[is_return]))
    events = events[np.argsort(group[events], kind="stable")]
    left = np.where(is_return, 0.0, quantity)
    while len(events):
        # One return of every group per round: the first that is left.
        starts = np.flatnonzero(np.diff(group[events], prepend=-1))
        sizes = np.diff(starts, append=len(events))
        position = np.arange(len(events))
        first = np.minimum.reduceat(np.where(is_return[events], position, len(events)), starts)
        need = np.repeat(-quantity[events[first]], sizes)
        fits = (position < np.repeat(first, sizes)) & (left[events] >= need) & ~is_return[events]
        match = np.maximum.reduceat(np.where(fits, position, -1), starts)
        matched = events[match[match >= 0]]
        left[matched] += quantity[events[first[match >= 0]]]
        returned[matched] = left[matched] <= 0
        events = np.delete(events, first)
        events = events[np.isin(group[events], group[events[is_return[events]]])]
    return returned
