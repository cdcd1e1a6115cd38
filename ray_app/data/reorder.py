"""Histories whose orders stand a little differently in each epoch."""

from dataclasses import replace

import numpy as np

from ray_app.data.sequences import Histories


def reordered(histories: Histories, reach: float, rng: np.random.Generator) -> Histories:
    """The train parts with each order moved by less than `reach` places; orders stay whole, other parts as they are.

    Many logs know the day of an event and not its place in the day, so that the order of neighbours is half chance, and
    a model learns from sparse histories who goes with whom rather than who comes first. Orders are sorted by their
    number plus a uniform draw from `[0, reach)`: the nearer two are, the likelier they change places. (After the
    reordering of Xie et al. 2022, CL4SRec, arXiv 2010.14395, there as a view for a contrastive loss.)
    """
    users = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
    place = np.arange(len(users)) - histories.offsets[users]
    begins = np.append(True, (np.diff(users) != 0) | (np.diff(histories.orders) != 0))[: len(users)]
    order = np.cumsum(begins) - 1
    key = order + rng.uniform(0, reach, begins.sum())[order]
    in_train = place < histories.num_train[users]
    moved = np.lexsort((place, np.where(in_train, key, np.inf), users))
    return replace(
        histories, items=histories.items[moved], weights=histories.weights[moved], orders=histories.orders[moved]
    )
