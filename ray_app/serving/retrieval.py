"""Candidates from a very large catalogue, found without looking at all of it.

An item's score is an inner product plus its bias, which becomes one more dimension. Items of great bias or length are
near every query and would draw all clusters to themselves (Yan et al. 2018, Norm-Ranging LSH, arXiv 1809.08782): so
those that could score the most, the head, are always looked at, and faiss (IVF, 8 bits a number) searches the others.
What is found is scored again by the model itself.
"""

import logging
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ray_app.data.sequences import Ragged
from ray_app.errors import UserError
from ray_app.schema import PAD
from ray_app.serving.catalog import Mask
from ray_app.serving.content import Placed
from ray_app.serving.customers import Customers
from ray_app.serving.schemas import RecommendRequest
from ray_app.serving.wishes import Wish
from ray_app.tasks.diversity import POOL
from ray_app.tasks.scorer import Answering, ModelScorer

LARGE = 200_000
"""Items from which `serve.retrieval: auto` takes candidates: below, looking at all is fast enough."""
FLOOR = 0.98
"""Share of the exact best ten that must be found; else everything is looked at."""
BEST = 10
HEAD = 0.02
"""Share of the items that are always looked at."""
FOUND = 400
"""Candidates taken from the head, and from the others."""
LONGEST = 100
"""Lists of more items are made by looking at all."""
FEW = 20_000
"""Items that pass a filter and are all scored, instead of searched for."""
ASKED = 256
"""Users whose next items tell how much an index finds."""
PROBES = (8, 16, 32, 64, 128)
"""Clusters that are searched: the least that are enough."""
PER_CLUSTER = 128
"""Items that a cluster is learned from; faiss wants 39 at least."""
log = logging.getLogger(__name__)
Vectors = NDArray[np.float32]


class Shortlist:
    """An index over vectors `[items, dim]` and biases `[items]` of items 1, 2, ..., for queries of length `reach`."""

    def __init__(self, vectors: Vectors, bias: Vectors, reach: float) -> None:
        faiss = _faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        # The bias in the unit of the other dimensions, or clusters would be of equal popularity and nothing else.
        self._scale = np.float32(bias.std() / max(float(vectors.std(axis=0).mean()), 1e-9)) or np.float32(1)
        size = max(1, int(len(bias) * HEAD))
        by_most = np.argpartition(-(bias + reach * np.linalg.norm(vectors, axis=1)), size - 1)
        self._head, tail = np.sort(by_most[:size]), np.sort(by_most[size:])
        self._head_rows = self._rows(vectors, bias, self._head)
        clusters = max(1, min(int(2 * np.sqrt(len(tail))), len(tail) // 39))
        self._index: Any = faiss.index_factory(vectors.shape[1] + 1, f"IVF{clusters},SQ8", faiss.METRIC_INNER_PRODUCT)
        learned = np.random.default_rng(0).permutation(len(tail))[: PER_CLUSTER * clusters]
        self._index.train(self._rows(vectors, bias, tail[learned]))
        for some in np.array_split(tail, max(1, len(tail) // 100_000)):
            self._index.add_with_ids(self._rows(vectors, bias, some), some + 1)
        self.recall = 0.0
        """Share of the exact best ten that was found when it was built."""

    @classmethod
    def build(cls, vectors: Vectors, bias: Vectors, queries: Vectors) -> Self | None:
        """An index that finds what it should for these queries, `[queries, dim]`; None where there is none."""
        queries = queries[queries.any(axis=1)]
        if not len(queries) or len(bias) < 2 * FOUND:
            log.warning("retrieval: exact, since there is too little to measure an index by")
            return None
        found = cls(vectors, bias, float(np.linalg.norm(queries, axis=1).mean()))
        everything = np.ones(len(bias) + 1, np.bool_)
        everything[PAD] = False
        best = [1 + torch.topk(torch.from_numpy(vectors @ query + bias), BEST).indices.numpy() for query in queries]
        for probes in PROBES:
            found._index.nprobe = probes
            hits = [
                np.isin(exact, items).mean()
                for exact, query in zip(best, queries, strict=True)
                if (items := found.candidates(query, everything)) is not None
            ]
            # A query of which too little is found is answered exactly.
            found.recall = float(np.mean([*hits, *[1.0] * (len(queries) - len(hits))]))
            if found.recall >= FLOOR:
                log.info("retrieval: %d of %d clusters find %.4f of the best", probes, found._index.nlist, found.recall)
                return found
        log.warning("retrieval: exact, since an index finds only %.4f of the best", found.recall)
        return None

    def candidates(self, query: Vectors, passed: Mask) -> NDArray[np.int64] | None:
        """Indices of items that pass, the best among them; None where the search found too few to be sure of that.

        Args:
            query: `[dim]`.
            passed: which items may be found, `[items + 1 or more]`.
        """
        if np.count_nonzero(passed) <= FEW:
            return np.flatnonzero(passed)
        faiss = _faiss()
        asked = np.append(query, self._scale).astype(np.float32)
        weights = np.where(passed[self._head + 1], self._head_rows @ asked, -np.inf)
        head = 1 + self._head[np.argpartition(-weights, min(FOUND, len(weights)) - 1)[:FOUND]]
        bits = np.packbits(passed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        settings = faiss.SearchParametersIVF(nprobe=self._index.nprobe, sel=selector)
        _, [tail] = self._index.search(asked[None], FOUND, params=settings)
        if (tail < 0).any():
            return None
        return np.sort(np.concatenate([head[passed[head]], tail])).astype(np.int64)

    def _rows(self, vectors: Vectors, bias: Vectors, places: NDArray[np.int64]) -> Vectors:
        return np.column_stack([vectors[places], bias[places] / self._scale]).astype(np.float32)


class Found(NamedTuple):
    """Scores to choose from."""

    scores: Vectors
    """`[items + 1]`, -inf where an item was not looked at."""
    among: NDArray[np.int64] | None = None
    """`PAD` and the indices of those that were, rising; None: all."""


class Nearest:
    """Scores of a model's best items, without those of all."""

    def __init__(self, scorer: ModelScorer, index: Shortlist) -> None:
        self.recall = index.recall
        vectors, bias = scorer.table(), scorer.bias()
        self._usual = vectors.mean(axis=0), bias.mean()
        self._scorer, self._index, self._size = scorer, index, len(bias)

    @classmethod
    def open(cls, scorer: Answering, customers: Customers, retrieval: str) -> Self | None:
        """What `serve.retrieval` asks for; None where every item is looked at, because it says so or must be.

        Raises:
            UserError: an index is asked for by name, and the library for it is not there.
        """
        if not isinstance(scorer, ModelScorer):
            if retrieval == "ann":
                log.warning("retrieval: exact, since the ranker reads the scores of all items")
            return None
        vectors, bias = scorer.table(), scorer.bias()
        if retrieval == "exact" or (retrieval == "auto" and len(bias) < LARGE):
            return None
        try:
            _faiss()
        except UserError as error:
            if retrieval == "ann":
                raise
            log.warning("%s; until then every item is looked at", error)
            return None
        index = Shortlist.build(vectors, bias, scorer.queries(customers.sample(ASKED)))
        return None if index is None else cls(scorer, index)

    def find(
        self, requests: list[RecommendRequest], wishes: list[Wish], histories: Ragged, added: Placed
    ) -> dict[int, Found]:
        """By row of the request what it can be answered with; for others every item must be looked at.

        Args:
            requests: what is asked for.
            wishes: which items may be found.
            histories: items that the model knows; they count whether or not they are near.
            added: items that were added since, all of which are scored.
        """
        found: dict[int, Found] = {}
        for row, query in enumerate(self._scorer.queries(histories)):
            request, history = requests[row], histories.slice(row, row + 1)
            number = request.k * (POOL if request.diversity else 1)
            # A boost may lift any item, and after an empty history nothing but the bias counts.
            if number <= LONGEST and not request.boost and query.any():
                near = self._found(query, history, wishes[row], added)
                found |= {} if near is None else {row: near}
        return found

    def _found(self, query: Vectors, history: Ragged, wish: Wish, added: Placed) -> Found | None:
        candidates = self._index.candidates(query, wish.passed[: self._size + 1])
        if candidates is None:
            return None
        first = np.array([item for item in wish.first if item <= self._size], np.int64)
        like = added.like if len(added) else first[:0]
        wanted = np.unique(np.concatenate([candidates, history.values, first, like]))
        scores = np.full(len(wish.passed), -np.inf, np.float32)
        scores[wanted] = self._scorer.scores_of(wanted, history, query)
        if len(added):
            usual = np.float32(self._usual[0] @ query + self._usual[1])
            scores[self._size + 1 :] = added.scores(scores[None, : self._size + 1], np.array([usual]))[0]
        return Found(scores, np.concatenate([[PAD], wanted, np.arange(self._size + 1, len(scores))]))


def _faiss() -> ModuleType:
    try:
        import faiss  # noqa: PLC0415 (an extra, for large catalogues alone)
    except ImportError as error:
        raise UserError("serve.retrieval: an index needs faiss: pip install 'ray-retail-finetune[ann]'") from error
    module: ModuleType = faiss
    return module
