"""A version that answers: plain torch, in one thread, without Ray and without HTTP."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_app.checkpoint import CheckpointError, fetched, read_config, verify
from ray_app.data.dataset import open_dataset
from ray_app.data.sequences import Events
from ray_app.evidence.item_index import INDEX_FILE, ItemIndex
from ray_app.registry import Version
from ray_app.schema import PAD, Col
from ray_app.serving.catalog import Catalog, Mask
from ray_app.serving.content import Content, Placed
from ray_app.serving.customers import NOW, Customers, Event, Past
from ray_app.serving.events import Change
from ray_app.serving.lately import Lately
from ray_app.serving.likeness import Likeness
from ray_app.serving.lists import best, varied
from ray_app.serving.reasons import Reasons
from ray_app.serving.retrieval import Found, Nearest
from ray_app.serving.schemas import (
    Filters,
    ItemBody,
    ItemId,
    PastEvent,
    RecommendAnswer,
    Recommended,
    RecommendRequest,
    Scored,
    UserId,
)
from ray_app.serving.wishes import Wish, boosted, wish_of
from ray_app.storage import Storage
from ray_app.tasks.hybrid import HybridScorer
from ray_app.tasks.scorer import Answering, open_scorer


class Predictor:
    """A model, its catalogue and its users. Items may be added and described anew; all else stays as it was loaded."""

    def __init__(
        self,
        version: str,
        scorer: Answering,
        catalog: Catalog,
        customers: Customers,
        index: ItemIndex,
        *,
        exclude_seen: bool,
        event_types: Mapping[str, float] | None = None,
        retrieval: str = "exact",
        untrained: Mask | None = None,
    ) -> None:
        self.version = version
        self.event_types = event_types
        self.catalog = catalog
        self.customers = customers
        self._scorer = scorer
        self._likeness = Likeness(scorer.table())
        self._index = index
        self.lately = Lately(scorer, customers, catalog, event_types) if isinstance(scorer, HybridScorer) else None
        """Where the version ranks by what is counted: counts on while it serves."""
        self._popular = index.by_popularity()
        self._reasons = Reasons(index, catalog)
        self._exclude_seen = exclude_seen
        self._num_trained = num_trained = len(catalog)
        self._nearest = Nearest.open(scorer, customers, retrieval)
        # Without self, or nothing of it would be freed before a collection of garbage.
        self._content = Content(lambda: [catalog.text(item) for item in range(1, num_trained + 1)])
        self._added = Placed(self._content)
        self._untrained = np.zeros(self._num_trained + 1, np.bool_) if untrained is None else untrained

    @classmethod
    def load(cls, storage: Storage, version: Version, retrieval: str = "exact") -> Self:
        """Fetch a version, check its hashes, and read the users of its dataset; `retrieval` as in the settings.

        Raises:
            CheckpointError: it is damaged, incomplete or of another program version.
            DataError: its dataset is gone.
            StorageError: something cannot be read.
        """
        dataset = open_dataset(storage, version.dataset)
        with fetched(storage, version.uri) as folder:
            encoder = verify(folder).get("encoder")
            config = read_config(folder)
            try:
                exclude_seen, seed = bool(config["predict"]["exclude_seen"]), int(config["train"]["seed"])
                index = ItemIndex.load(folder / INDEX_FILE)
            except (KeyError, OSError) as error:
                raise CheckpointError(f"{folder}: not a registered version of this program: {error}") from error
            scorer = open_scorer(folder, dataset, seed, torch.device("cpu"), today=True)
        items = dataset.items()
        catalog, customers = Catalog(items), Customers.read(dataset)
        # Where there is content, the model's vectors of items that no training saw are made of it.
        untrained = np.append(False, items[Col.TRAIN_COUNT].to_numpy() == 0) & (encoder is None)
        del items
        pa.default_memory_pool().release_unused()  # of a large catalogue Arrow would keep as much as was copied from it
        return cls(
            version.name,
            scorer,
            catalog,
            customers,
            index,
            exclude_seen=exclude_seen,
            event_types=dataset.manifest.data["event_types"],
            retrieval=retrieval,
            untrained=untrained,
        )

    def recommend(self, requests: list[RecommendRequest], later: list[list[Event]]) -> list[RecommendAnswer]:
        """One answer per request; `later` is what happened to each request's user since the dataset was prepared."""
        pasts = [self._past(request, events) for request, events in zip(requests, later, strict=True)]
        wishes = [self._wish(*each) for each in zip(requests, pasts, strict=True)]
        items = np.concatenate([past.items for past in pasts]).astype(np.int32)
        clicks = np.concatenate([past.clicks for past in pasts])
        everything = Events(items, np.cumsum([0, *(len(past.items) for past in pasts)]), clicks)
        histories = everything.keep(items <= self._num_trained)
        found = {} if self._nearest is None else self._nearest.find(requests, wishes, histories, self._added)
        rest = np.array([row for row in range(len(requests)) if row not in found], np.int64)
        if len(rest):
            scores = self._with_added(self._scorer.scores(histories.take(rest)))
            found |= {row: Found(of_user) for row, of_user in zip(rest.tolist(), scores, strict=True)}
        answers = zip(requests, pasts, wishes, [found[row] for row in range(len(requests))], strict=True)
        return [self._answer(*each) for each in answers]

    def similar(self, item: ItemId, k: int) -> list[Scored]:
        """Items in stock whose vectors are nearest; to an item without training those whose texts are.

        Raises:
            KeyError: no such item.
        """
        own = self._existing(item)
        if own > self._num_trained or self._untrained[own]:
            added = [self.catalog.text(n) for n in range(self._num_trained + 1, len(self.catalog) + 1)]
            likeness = np.append(np.float32(0), self._content.cosines(self.catalog.text(own), added))
        else:
            likeness = self._likeness.to_all(self._likeness.rows(np.array([own]))[0])
            likeness[: self._num_trained + 1][self._untrained] = 0  # where they stand is chance
        likeness[own] = -np.inf
        return self._best(likeness, self.catalog.available, k)

    def bought_together(self, item: ItemId, k: int) -> list[Scored]:
        """Items in stock that stand in orders with it, as many as there are.

        Raises:
            KeyError: no such item.
        """
        own = self._existing(item)
        strength = np.zeros(len(self.catalog) + 1, np.float32)
        if own <= self._num_trained:
            row = slice(self._index.together.indptr[own], self._index.together.indptr[own + 1])
            strength[self._index.together.indices[row]] = self._index.together.data[row]
        return self._best(strength, self.catalog.available & (strength > 0), k)

    def popular(self, k: int, filters: Filters) -> list[Scored]:
        """What was bought most in the last week of the log; the score is how often."""
        passed = self.catalog.mask(filters)
        chosen = self._popular[passed[self._popular]][:k]
        return [self._scored(int(item), float(self._index.recent[item])) for item in chosen]

    def past(self, user: UserId, later: list[Event]) -> Past:
        """What is known of a user."""
        return self.customers.past(user, later, self.catalog)

    def put(self, item: ItemId, body: ItemBody) -> None:
        """Describe an item; one that the model was not trained on scores as the items whose texts are like its own.

        Raises:
            ValueError: the catalogue's ids are numbers, and this is none.
        """
        self._describe(item, body)
        self._place_added()

    def set_available(self, item: ItemId, available: bool) -> None:
        """Whether an item can be bought now; an unknown one is passed over."""
        if (index := self.catalog.find(item)) != PAD:
            self.catalog.available[index] = available

    def apply(self, changes: list[Change]) -> None:
        """What the shop said of items since; descriptions first, since an item must be there to be sold out."""
        for change in sorted(changes, key=lambda change: change.kind != "item"):
            if change.kind == "available":
                self.set_available(change.item, change.value == "true")
            else:
                # Said to a version whose ids had another type, it says nothing here.
                with suppress(ValueError):
                    self._describe(change.item, ItemBody.model_validate_json(change.value))
        if changes:
            self._place_added()

    def sample(self, count: int) -> list[ItemId]:
        """Ids of the most popular items, again and again until they are so many: a history to warm up with."""
        ids = [self.catalog.describe(int(item)).item_id for item in self._popular[:100]]
        return (ids * (count // len(ids) + 1))[:count]

    def _past(self, request: RecommendRequest, later: list[Event]) -> Past:
        given = [_as_event(event) if isinstance(event, PastEvent) else Event(event) for event in request.history]
        past = self.customers.past(request.user_id, [*later, *given], self.catalog)
        known = past.known or bool(later)
        unknown = {str(event.item) for event in given} & {str(item) for item in past.unknown}
        return past._replace(known=known, unknown=[item for item in past.unknown if str(item) in unknown])

    def _describe(self, item: ItemId, body: ItemBody) -> None:
        if (place := self.catalog.put(item, body) - self._num_trained - 1) >= 0:
            self._added.put(place, self.catalog.text(place + self._num_trained + 1))

    def _place_added(self) -> None:
        if len(self._added):
            self._likeness.added = self._added.vectors(self._likeness.rows)

    def _with_added(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores `[users, items + 1]`, those of added items the weighted mean of the items like them."""
        if not len(self._added):
            return scores
        return np.concatenate([scores, self._added.scores(scores, scores[:, 1:].mean(axis=1))], axis=1)

    def _wish(self, request: RecommendRequest, past: Past) -> Wish:
        exclude = self._exclude_seen if request.exclude_seen is None else request.exclude_seen
        return wish_of(request, past.items if exclude else past.items[:0], self.catalog)

    def _answer(self, request: RecommendRequest, past: Past, wish: Wish, found: Found) -> RecommendAnswer:
        if request.boost:
            found = found._replace(scores=boosted(found.scores, request.boost, self.catalog))
        rest = varied(found, wish.passed, request.k - len(wish.first), request.diversity, self._likeness)
        items = np.concatenate([np.array(wish.first, np.int64), rest])
        reasons = self._reasons.of(items, past.items, self._likeness, len(wish.first))
        return RecommendAnswer(
            version=self.version,
            user_known=past.known,
            unknown_items=past.unknown,
            items=[
                self.catalog.describe_as(Recommended, item, score=float(found.scores[item]), reason=why)
                for item, why in zip(items.tolist(), reasons, strict=True)
            ],
        )

    def _best(self, scores: NDArray[np.float32], passed: Mask, k: int) -> list[Scored]:
        return [self._scored(item, float(scores[item])) for item in best(Found(scores), passed, k).tolist()]

    def _scored(self, item: int, score: float) -> Scored:
        return self.catalog.describe_as(Scored, item, score=score)

    def _existing(self, item: ItemId) -> int:
        if (index := self.catalog.find(item)) == PAD:
            raise KeyError(item)
        return index


def _as_event(given: PastEvent) -> Event:
    time = int(given.timestamp.timestamp() * 1e6) if given.timestamp else NOW
    return Event(given.item_id, time, given.event_type)
