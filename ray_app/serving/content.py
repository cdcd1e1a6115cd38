"""Items alike by what is written of them: how an item is placed that no model was trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEIGHBORS = 10
SHARPNESS = 4
"""Power of the cosine: near texts count much more than far ones."""


class Content:
    """TF-IDF over the texts of the items 1, 2, ...; fitted when it is first asked."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._vectors: Any = None
        self._vectorizer: Any = None

    def like(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Indices of items with the nearest texts, and weights that sum to 1; none without a word in common."""
        if self._vectorizer is None:
            self._fit()
        if self._vectors is None:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        cosine = (self._vectors @ self._vectorizer.transform([text]).T).toarray().ravel()
        nearest = np.argsort(-cosine, kind="stable")[:NEIGHBORS]
        nearest = nearest[cosine[nearest] > 0]
        weights = cosine[nearest] ** SHARPNESS
        return nearest + 1, (weights / weights.sum()).astype(np.float32) if len(nearest) else weights

    def _fit(self) -> None:
        # A second and 100 MB that a service to which no item is added does not need.
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

        self._vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
        try:
            self._vectors = self._vectorizer.fit_transform(self._texts)
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
