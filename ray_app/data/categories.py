"""The categories of the catalogue as numbers."""

import numpy as np
import pyarrow as pa

from ray_app.data.sequences import Ragged
from ray_app.schema import Col


def category_numbers(items: pa.Table) -> Ragged | None:
    """For item indices 0 (padding), 1, 2, ... the numbers of their categories; None if no item has one.

    Several categories of one item stand with commas between (`catalog`), and each counts once.
    """
    labels = [set(text.split(", ")) if text else set() for text in items[Col.CATEGORY].to_pylist()]
    flat = pa.array([label for of_item in labels for label in sorted(of_item)], pa.string())
    if not len(flat):
        return None
    numbers = flat.dictionary_encode().indices.to_numpy()
    return Ragged(numbers, np.concatenate([[0, 0], np.cumsum([len(of_item) for of_item in labels])]))
