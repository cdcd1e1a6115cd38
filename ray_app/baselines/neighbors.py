"""Items alike: by the users who had them, and by their texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ray_app.baselines.histories import Matrix, bags, matrix, settled
from ray_app.baselines.log import TrainingLog
from ray_app.metrics import Ragged, Scores
from ray_app.schema import Col

BLOCK = 1 << 22
"""Products held in memory at a time."""
COMMON, SPARE = 1 << 14, 4
"""A word in more texts than so many (a user with more items) says little and costs their square: see `nearest`."""


@dataclass(frozen=True)
class ItemKNN:
    """Sum over the history's items of the cosine between the sets of users who had them (Sarwar et al., 2001)."""

    similarity: Matrix
    unscored: Scores

    @classmethod
    def fit(cls, log: TrainingLog, keep: int = 1000) -> Self:
        """Each item keeps its nearest `keep`."""
        counted = log.weights > 0
        had = matrix(1, log.items[counted], log.users[counted], (log.num_items + 1, len(log.offsets) - 1))
        had.data[:] = 1
        return cls(nearest(had, keep), log.unscored())

    def scores(self, histories: Ragged) -> Scores:
        """Over the distinct items of the whole history."""
        found: Scores = (bags(histories, len(self.unscored) - 1) @ self.similarity).toarray()
        return found + self.unscored


def item_texts(items: pa.Table) -> list[str]:
    """Title, description, brand and category of each row of the prepared item table, as one text."""
    return joined_texts(items, (Col.TITLE, Col.DESCRIPTION, Col.BRAND, Col.CATEGORY))


def joined_texts(items: pa.Table, names: Sequence[str]) -> list[str]:
    """The named columns of each row, those that are there, as one text."""
    columns = [items[name].to_pylist() for name in names]
    return [" ".join(part for part in parts if part) for parts in zip(*columns, strict=True)]


def text_similarity(texts: Sequence[str], keep: int = 300) -> Matrix:
    """Cosines of the TF-IDF vectors of the items 1, 2, ..., for the `keep` nearest of each."""
    return nearest(text_vectors(texts), keep)


def text_vectors(texts: Sequence[str]) -> Matrix:
    """TF-IDF vectors of length 1 of the items 1, 2, ... (1 + log of the count), `[items + 1, terms]`."""
    # A second and 100 MB that the many processes which only score do not need.
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    try:
        return settled(vectorizer.fit_transform(["", *texts]))
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return settled(sparse.coo_array((len(texts) + 1, 1)))


def nearest(vectors: Matrix, keep: int) -> Matrix:
    """Cosine of each row to the `keep` other rows nearest to it, 0 to all others; `[rows, rows]`.

    Columns that more than `COMMON` rows have in common are left out of the search for `SPARE` times as many, though not
    of their cosines: so work grows with the rows and not with their square. Of fewer rows the result is exact.
    """
    lengths = np.sqrt(vectors.multiply(vectors).sum(axis=1))
    unit = settled(sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ vectors)
    common = np.bincount(unit.indices, minlength=unit.shape[1]) > COMMON
    shared = unit[:, common].toarray()
    telling = settled(unit[:, ~common]) if common.any() else unit
    others = settled(telling.T)
    blocks = []
    for start, stop in pairwise(_bounds(telling)):
        cosines = (telling[start:stop] @ others).tocsr()
        own = np.repeat(np.arange(start, stop), np.diff(cosines.indptr)) == cosines.indices
        cosines.data[own] = 0
        if common.any():
            cosines = _strongest(cosines, SPARE * keep)
            rows = np.repeat(np.arange(start, stop), np.diff(cosines.indptr))
            cosines.data += np.einsum("pc,pc->p", shared[rows], shared[cosines.indices])
        blocks.append(_strongest(cosines, keep))
    return settled(sparse.vstack(blocks))


def _bounds(vectors: Matrix) -> NDArray[np.int64]:
    """Where stretches of rows begin and end whose products with all others are `BLOCK` together, but for one row."""
    sizes = np.bincount(vectors.indices, minlength=vectors.shape[1])
    products = np.append(0, np.cumsum(sizes[vectors.indices]))[vectors.indptr]
    cuts = np.searchsorted(products, np.arange(0, products[-1], BLOCK))
    return np.unique(np.concatenate([[0], cuts, [vectors.shape[0]]]))


def _strongest(scores: Matrix, keep: int) -> Matrix:
    """The `keep` greatest values of each row, of equal ones those of lower column; zeros are dropped."""
    for row in range(scores.shape[0]):
        stretch = slice(scores.indptr[row], scores.indptr[row + 1])
        values = scores.data[stretch]
        if len(values) > keep:
            values[_weakest(values, scores.indices[stretch], keep)] = 0
    scores.eliminate_zeros()
    return scores


def _weakest(values: Any, columns: NDArray[Any], keep: int) -> NDArray[np.bool_]:
    bar = np.partition(values, -keep)[-keep]
    tied = np.flatnonzero(values == bar)
    weak: NDArray[np.bool_] = values <= bar
    weak[tied[np.argsort(columns[tied])][: keep - np.count_nonzero(values > bar)]] = False
    return weak
