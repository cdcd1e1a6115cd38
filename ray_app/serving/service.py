"""What the routes ask: which version answers whom, what is compared, and who steps in for one that fails."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from ray_app.errors import UserError
from ray_app.registry import Registry, RegistryError, Version
from ray_app.serve_config import ServeConfig
from ray_app.serving.batching import BusyError
from ray_app.serving.loaded import Loaded
from ray_app.serving.meters import Meters
from ray_app.serving.predictor import Predictor
from ray_app.serving.problems import ProblemError
from ray_app.serving.record import overlap
from ray_app.serving.schemas import RecommendAnswer, RecommendRequest
from ray_app.serving.store import Store
from ray_app.serving.versions import Versions
from ray_app.storage import Storage

LISTED_S = 5.0
Result = TypeVar("Result")
log = logging.getLogger(__name__)


class Service:
    """What the HTTP routes ask."""

    def __init__(self, storage: Storage, name: str, store: Store, settings: ServeConfig, meters: Meters) -> None:
        self.store = store
        self.settings = settings
        self._registry = registry = Registry(storage, name)
        self._meters = meters
        self.versions = Versions(
            registry,
            lambda name: Predictor.load(storage, registry.find(name), settings.retrieval),
            lambda predictor: Loaded(predictor, store, settings, meters),
            settings,
            meters,
        )
        self._follower: asyncio.Task[None] | None = None
        self._shadows: set[asyncio.Task[None]] = set()
        self._listed: tuple[float, list[Version]] = (-LISTED_S, [])

    async def start(self) -> None:
        """Load and warm up what is in production, then follow it.

        Raises:
            RegistryError: nothing is in production, or nothing of it can be loaded.
        """
        await self.versions.follow_once()
        if self.versions.production is None:
            refused = "; ".join(self.versions.refused.values())
            raise RegistryError(refused or "nothing is in production; run jobs/promote.py first")
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Leave nothing running."""
        for task in (self._follower, *self._shadows):
            if task is not None:
                task.cancel()
        for loaded in self.versions.loaded.values():
            loaded.close()
        await self.store.close()

    def version(self, name: str | None = None) -> Loaded:
        """A loaded version; without a name, the one in production.

        Raises:
            ProblemError: it is not loaded.
        """
        name = name or self.versions.production
        if name is None or name not in self.versions.loaded:
            raise ProblemError(HTTPStatus.NOT_FOUND, "no such version is loaded; /v1/models lists them")
        return self.versions.loaded[name]

    async def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """One answer: by the version that is asked for, the canary for its users, else the one in production.

        Raises:
            ProblemError: too many wait, or it took too long.
        """
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                if request.version is not None:
                    return await self.version(request.version).recommend(request)
                return await self._recommend(request)
        except BusyError:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests wait", Retry_After="1") from None
        except TimeoutError:
            busy = self.version().waiting  # then it was the load, not the request
            status = HTTPStatus.SERVICE_UNAVAILABLE if busy else HTTPStatus.GATEWAY_TIMEOUT
            raise ProblemError(status, "no answer in time", Retry_After="1") from None

    async def ask(self, question: Callable[[Predictor], Result]) -> Result:
        """Something else of the version in production."""
        return await self.version().ask(question)

    async def ready(self, timeout_s: float) -> None:
        """Raises `TimeoutError` unless whoever keeps later events answers in time."""
        async with asyncio.timeout(timeout_s):
            await self.store.ready(self.version().seen)

    async def registered(self) -> list[Version]:
        """All versions, as they were some seconds ago at most."""
        now = asyncio.get_running_loop().time()
        if now > self._listed[0] + LISTED_S:
            self._listed = now, await asyncio.to_thread(self._registry.versions)
        return self._listed[1]

    async def _recommend(self, request: RecommendRequest) -> RecommendAnswer:
        move, candidate = self.versions.trial or (None, None)
        if move is None or candidate is None or not move.tries(request.user_id):
            return await self._settled(request)
        if move.kind == "canary":
            try:
                async with asyncio.timeout(self.settings.timeout_s / 2):  # so that the other half is left
                    return await candidate.recommend(request)
            except Exception as error:
                answer = await self._settled(request)  # if this fails too, it was the load, or the request
                candidate.failed(error)
                return answer
        answer = await self._settled(request)
        self._shadows.add(task := asyncio.create_task(self._compare(candidate, request, answer)))
        task.add_done_callback(self._shadows.discard)
        return answer

    async def _settled(self, request: RecommendRequest) -> RecommendAnswer:
        """By the version in production; what it cannot answer, the one before does."""
        stable, spare = self.version(), self.versions.spare
        try:
            return await stable.recommend(request)
        except BusyError:
            raise
        except Exception as error:
            if spare is None:
                raise
            answer = await spare.recommend(request)
            stable.failed(error)
            return answer

    async def _compare(self, shadow: Loaded, request: RecommendRequest, given: RecommendAnswer) -> None:
        """The shadow's own answer beside the one that was given; under load none is asked for."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                answer = await shadow.recommend(request)
        except (BusyError, ProblemError):  # it is the service that cannot, and not this version
            return
        except Exception as error:
            shadow.failed(error)
            return
        shared = overlap(given.items, answer.items)
        shadow.record.compared(shared)
        self._meters.overlap.labels(shadow.predictor.version).observe(shared)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.settings.poll_s)
            try:
                await self.versions.follow_once()
                await self.versions.judge()
                await self.versions.learn()
            except Exception as error:  # whatever it is: who does not follow any more would tell nobody
                ours = isinstance(error, (UserError, ProblemError))
                log.warning("the present version keeps serving: %s", error, exc_info=None if ours else error)
