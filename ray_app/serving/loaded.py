"""A version in memory: its predictor, the one thread that uses it, who waits for it, and how it has done."""

import asyncio
import logging
import time
from asyncio import get_running_loop
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakMethod

import torch

from ray_app.serve_config import ServeConfig
from ray_app.serving.batching import Batcher
from ray_app.serving.customers import Event
from ray_app.serving.events import State
from ray_app.serving.meters import Meters
from ray_app.serving.predictor import Predictor
from ray_app.serving.record import Record
from ray_app.serving.schemas import RecommendAnswer, RecommendRequest
from ray_app.serving.store import Store

USERS = 1000
"""Whose events are read at a time."""
Result = TypeVar("Result")
log = logging.getLogger(__name__)


class Loaded:
    """Each version has a thread of its own, so that none waits for a slower one; it ends when the version is let go."""

    def __init__(self, predictor: Predictor, store: Store, settings: ServeConfig, meters: Meters) -> None:
        self.predictor = predictor
        self.record = Record()
        self.seen = 0
        """Up to which revision it knows what was said of items."""
        self.heard = ""
        """Up to which event it has counted what customers did."""
        self._store = store
        self._meters = meters
        self._thread = ThreadPoolExecutor(1, "predictor", lambda: torch.set_num_threads(settings.torch_threads))
        whole = WeakMethod(self._answer)  # no circle, so that the memory is free as soon as the version is let go

        async def answer(requests: list[RecommendRequest]) -> list[RecommendAnswer]:
            method = whole()
            assert method is not None, "who waits holds it"
            return await method(requests)

        self._batcher = Batcher(answer, settings.max_batch, settings.max_waiting, settings.max_wait_s)

    @property
    def waiting(self) -> int:
        """Requests whose turn has not come."""
        return len(self._batcher)

    async def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """One answer, made with whoever else waits.

        Raises:
            BusyError: too many wait.
        """
        self._meters.waiting.set(self.waiting)
        return await self._batcher.ask(request)

    async def ask(self, question: Callable[[Predictor], Result]) -> Result:
        """Something else of the predictor, which first hears what was said of items."""
        state = await self._store.read([], self.seen)

        def answer() -> Result:
            self._catch_up(state)
            return question(self.predictor)

        return await self._in_thread(answer)

    async def learn(self) -> None:
        """Count what customers did since it looked last, where the version ranks by what is counted."""
        lately = self.predictor.lately
        if lately is None or not (news := await self._store.news(self.heard)).rows:
            return
        users = sorted({row.user for row in news.rows})
        later = dict[str, list[Event]]()
        for start in range(0, len(users), USERS):
            some = users[start : start + USERS]
            later |= zip(some, (await self._store.read(some, self.seen)).events, strict=True)
        # What came while that was read is counted the next time, and must not be taken for counted then.
        unheard = {(row.user, row.item, row.time) for row in (await self._store.news(news.cursor)).rows}
        later = {
            user: [event for event in events if (user, str(event.item), event.time) not in unheard]
            for user, events in later.items()
        }
        moves = await self._in_thread(lambda: lately.moves(news.rows, later))
        await asyncio.to_thread(lately.count, moves, len(news.rows))  # answers go on meanwhile
        self.heard = news.cursor

    def failed(self, error: Exception) -> None:
        """It owed an answer that another version had to give."""
        log.error("version %s failed: %r", self.predictor.version, error, exc_info=error)
        self.record.failed()
        self._meters.failures.labels(self.predictor.version).inc()

    def close(self) -> None:
        """Leave nothing running."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _answer(self, requests: list[RecommendRequest]) -> list[RecommendAnswer]:
        self._meters.batch.observe(len(requests))
        users = [str(request.user_id) for request in requests if request.user_id is not None]
        state = await self._store.read(users, self.seen)

        def answer() -> list[RecommendAnswer]:
            self._catch_up(state)
            found = iter(state.events)
            later = [[] if request.user_id is None else next(found) for request in requests]
            return self.predictor.recommend(requests, later)

        start = time.perf_counter()
        answers = await self._in_thread(answer)
        self.record.answered(len(answers), time.perf_counter() - start)
        return answers

    def _catch_up(self, state: State) -> None:
        """Take in changes; told twice, they do no harm."""
        self.predictor.apply(state.changes)
        self.seen = max(self.seen, state.revision)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await get_running_loop().run_in_executor(self._thread, work)
