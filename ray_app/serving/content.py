"""Items alike by what is written of them: how an item is placed that no model was trained on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_app.schema import PAD

NEIGHBORS = 10
SHARPNESS = 4
"""Power of the cosine: near texts count much more than far ones."""


class Content:
    """TF-IDF over the texts of the items 1, 2, ...; fitted when it is first asked."""

    def __init__(self, texts: Callable[[], Sequence[str]]) -> None:
        self._texts = texts
        self._vectors: Any = None
        self._vectorizer: Any = None

    def cosines(self, text: str, others: Sequence[str] = ()) -> NDArray[np.float32]:
        """Likeness of a text to that of each item, `[items]`, and to other texts, which follow."""
        if self._vectorizer is None:
            self._fit()
        if self._vectors is None:
            return np.zeros(len(self._texts()) + len(others), np.float32)
        own = self._vectorizer.transform([text]).T
        found = [self._vectors @ own, *([self._vectorizer.transform(others) @ own] if len(others) else [])]
        return np.concatenate([part.toarray().ravel() for part in found])

    def like(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Indices of items with the nearest texts, and weights that sum to 1; none without a word in common."""
        cosine = self.cosines(text)
        nearest = np.argsort(-cosine, kind="stable")[:NEIGHBORS]
        nearest = nearest[cosine[nearest] > 0]
        weights = cosine[nearest] ** SHARPNESS
        return nearest + 1, (weights / weights.sum()).astype(np.float32) if len(nearest) else weights

    def _fit(self) -> None:
        # A second and 100 MB that a service to which no item is added does not need.
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

        self._vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
        try:
            self._vectors = self._vectorizer.fit_transform(self._texts())
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise


class Placed:
    """Items that were added, each by the items it is like: what it is worth to somebody is what they are worth."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._rows: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        self._table: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, place: int, text: str) -> None:
        """Place an item, the next one or one that was described anew."""
        like, weights = self._content.like(text)
        missing = NEIGHBORS - len(like)
        row = np.pad(like, (0, missing)), np.pad(weights, (0, missing))
        self._rows[place : place + 1] = [row]
        self._table = None

    @property
    def like(self) -> NDArray[np.int64]:
        """Trained items that some added one is like, each once."""
        found: NDArray[np.int64] = np.setdiff1d(self._looked_up()[0], [PAD])
        return found

    def scores(self, trained: NDArray[np.float32], usual: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[users, added]` from `[users, items + 1]`; an item that is like no other gets the usual score, `[users]`."""
        like, weights = self._looked_up()
        alone = weights.sum(axis=1) == 0
        finite = np.where(np.isfinite(trained[:, like]), trained[:, like], 0)
        found: NDArray[np.float32] = (finite * weights).sum(axis=2)
        found[:, alone] = usual[:, None]
        return found

    def vectors(self, of: Callable[[NDArray[np.int64]], NDArray[np.float32]]) -> NDArray[np.float32]:
        """`[added, dim]`, of length 1, or 0 for an item that is like no other; `of` gives those of trained items."""
        like, weights = self._looked_up()
        found: NDArray[np.float32] = (of(like.ravel()).reshape(*like.shape, -1) * weights[:, :, None]).sum(axis=1)
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
        return found

    def _looked_up(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if self._table is None:
            self._table = np.stack([like for like, _ in self._rows]), np.stack([weights for _, weights in self._rows])
        return self._table
