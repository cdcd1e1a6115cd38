"""Of equal texts one: variants of a product say nothing new, and would count as often as there are sizes."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def first_of_equals(index: pa.Table) -> tuple[NDArray[np.bool_], list[str]]:
    """Which rows of an index (`picture_split.INDEX_SCHEMA`) are kept, and what a person should know of it.

    Of equal texts in a part that is the first with the label that most of them have.
    """
    label, text = (_numbers(index[name].to_pylist()) for name in ("label", "hash"))
    part = index["part"].to_numpy()
    _, place, counts = np.unique(np.stack([part, text, label]), axis=1, return_inverse=True, return_counts=True)
    order = np.lexsort((label, -counts[place], text, part))  # stable: the first row comes first
    groups = np.stack([part, text])[:, order]
    kept = np.ones(len(order), np.bool_)
    kept[order[1:]] = (groups[:, 1:] != groups[:, :-1]).any(axis=0)
    several = np.bincount(np.unique(np.stack([text, label]), axis=1)[0]) > 1
    told = f"{np.count_nonzero(several):,} texts stand there under several labels; the most frequent one counts."
    return kept, [told] if several.any() else []


def _numbers(values: list[object]) -> NDArray[np.int64]:
    """A number for each distinct value, in their order."""
    number = {value: place for place, value in enumerate(sorted(set(values)))}  # type: ignore[type-var]
    return np.array([number[value] for value in values], np.int64)
