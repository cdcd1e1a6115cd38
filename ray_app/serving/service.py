"""The version in production with its state: loaded, kept up to date, asked in batches."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import torch

from ray_app.errors import UserError
from ray_app.registry import Registry, RegistryError, Version
from ray_app.serve_config import ServeConfig
from ray_app.serving.batching import Batcher, BusyError
from ray_app.serving.events import State
from ray_app.serving.meters import Meters
from ray_app.serving.predictor import Predictor
from ray_app.serving.problems import ProblemError
from ray_app.serving.schemas import RecommendAnswer, RecommendRequest
from ray_app.serving.store import Store
from ray_app.storage import Storage

RETRY_S = 30.0
"""A version that could not be loaded is tried again after so long: its storage may have been away."""
LISTED_S = 5.0
WARM_UP_EVENTS = 500
Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass
class Loaded:
    """A predictor, and up to where it knows what was said of items."""

    predictor: Predictor
    seen: int = 0

    def catch_up(self, state: State) -> None:
        """Take in changes; told twice, they do no harm."""
        self.predictor.apply(state.changes)
        self.seen = max(self.seen, state.revision)


class Service:
    """What the HTTP routes ask. Predictors are used by one thread alone, one after another."""

    def __init__(self, storage: Storage, name: str, store: Store, settings: ServeConfig, meters: Meters) -> None:
        self.registry = Registry(storage, name)
        self.store = store
        self.settings = settings
        self.refused: dict[str, str] = {}
        self.production: str | None = None
        self.loaded: dict[str, Loaded] = {}
        self._storage = storage
        self._meters = meters
        self._thread = ThreadPoolExecutor(1, "predictor", lambda: torch.set_num_threads(settings.torch_threads))
        self._batcher = Batcher(self._answer, settings.max_batch, settings.max_waiting)
        self._follower: asyncio.Task[None] | None = None
        self._tried_at: dict[str, float] = {}
        self._listed: tuple[float, list[Version]] = (-LISTED_S, [])

    async def start(self) -> None:
        """Load and warm up what is in production, then follow it.

        Raises:
            RegistryError: nothing is in production, or nothing of it can be loaded.
        """
        await self.follow_once()
        if self.production is None:
            raise RegistryError(
                "; ".join(self.refused.values()) or "nothing is in production; run jobs/promote.py first"
            )
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Leave nothing running."""
        if self._follower is not None:
            self._follower.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)
        await self.store.close()

    def version(self, name: str | None = None) -> Loaded:
        """A loaded version; without a name, the one in production.

        Raises:
            ProblemError: it is not loaded.
        """
        name = name or self.production
        if name is None or name not in self.loaded:
            raise ProblemError(HTTPStatus.NOT_FOUND, "no such version is loaded; /v1/models lists them")
        return self.loaded[name]

    async def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """One answer, made with whoever else waits.

        Raises:
            ProblemError: too many wait, or it took too long.
        """
        question = self.version(request.version), request
        self._meters.waiting.set(len(self._batcher))
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await self._batcher.ask(question)
        except BusyError:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests wait", Retry_After="1") from None
        except TimeoutError:
            raise ProblemError(HTTPStatus.GATEWAY_TIMEOUT, "no answer in time", Retry_After="1") from None

    async def ask(self, question: Callable[[Predictor], Result], version: str | None = None) -> Result:
        """Something else of a predictor, which first hears what was said of items."""
        loaded = self.version(version)
        state = await self.store.read([], loaded.seen)

        def answer() -> Result:
            loaded.catch_up(state)
            return question(loaded.predictor)

        return await self._in_thread(answer)

    async def ready(self, timeout_s: float) -> None:
        """Raises `TimeoutError` unless later events can be read in time."""
        async with asyncio.timeout(timeout_s):
            await self.store.read([], self.version().seen)

    async def versions(self) -> list[Version]:
        """All registered versions, as they were some seconds ago at most."""
        now = asyncio.get_running_loop().time()
        if now > self._listed[0] + LISTED_S:
            self._listed = now, await asyncio.to_thread(self.registry.versions)
        return self._listed[1]

    async def follow_once(self) -> None:
        """Look what is in production; load it before the present one is let go. What is damaged is refused."""
        wanted = (await asyncio.to_thread(self.registry.production))[0]
        candidates = [name for name in (wanted.version, wanted.previous) if name is not None]
        for name in candidates:
            if name in self.loaded or await self._load(name):
                self._take(name)
                break
        for name in candidates[1:]:  # at hand for a rollback, and for comparing
            if name not in self.loaded:
                await self._load(name)
        if self.production in candidates:
            for name in set(self.loaded) - set(candidates):
                del self.loaded[name]

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.settings.poll_s)
            try:
                await self.follow_once()
            except (UserError, ProblemError) as error:
                log.warning("the present version keeps serving: %s", error)

    async def _load(self, name: str) -> bool:
        now = asyncio.get_running_loop().time()
        if name in self._tried_at and now < self._tried_at[name] + RETRY_S:
            return False
        self._tried_at[name] = now
        try:
            loaded = Loaded(await asyncio.to_thread(self._fetch, name))
        except UserError as error:
            log.error("version %s is refused: %s", name, error)
            self.refused[name] = str(error)
            self._meters.loads.labels("refused").inc()
            return False
        state = await self.store.read([], 0)
        await self._in_thread(lambda: loaded.catch_up(state))
        self.loaded[name] = loaded
        self.refused.pop(name, None)
        self._tried_at.pop(name)
        self._meters.loads.labels("loaded").inc()
        return True

    def _fetch(self, name: str) -> Predictor:
        torch.set_num_threads(self.settings.torch_threads)
        predictor = Predictor.load(self._storage, self.registry.find(name), self.settings.retrieval)
        longest = RecommendRequest(history=predictor.sample(WARM_UP_EVENTS))
        for size in (1, self.settings.max_batch):  # the first pass of each kind is slow
            predictor.recommend([longest] * size, [[]] * size)
        return predictor

    def _take(self, name: str) -> None:
        if name != self.production:
            log.info("version %s answers", name)
            self.production = name
            self._meters.answers_with(name)

    async def _answer(self, questions: list[tuple[Loaded, RecommendRequest]]) -> list[RecommendAnswer]:
        self._meters.batch.observe(len(questions))
        answers: dict[int, RecommendAnswer] = {}
        for loaded in {id(loaded): loaded for loaded, _ in questions}.values():
            places = [place for place, (asked, _) in enumerate(questions) if asked is loaded]
            found = await self._of_one(loaded, [questions[place][1] for place in places])
            answers |= zip(places, found, strict=True)
        return [answers[place] for place in range(len(questions))]

    async def _of_one(self, loaded: Loaded, requests: Sequence[RecommendRequest]) -> list[RecommendAnswer]:
        users = [str(request.user_id) for request in requests if request.user_id is not None]
        state = await self.store.read(users, loaded.seen)

        def answer() -> list[RecommendAnswer]:
            loaded.catch_up(state)
            found = iter(state.events)
            later = [[] if request.user_id is None else next(found) for request in requests]
            return loaded.predictor.recommend(list(requests), later)

        return await self._in_thread(answer)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
