"""The versions that a replica holds: what `production.json` asks for, two at most, and what does badly taken back."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import torch

from ray_app.errors import UserError
from ray_app.production import Move, Production
from ray_app.registry import Registry, RegistryError
from ray_app.serve_config import ServeConfig
from ray_app.serving.loaded import Loaded
from ray_app.serving.meters import Meters
from ray_app.serving.predictor import Predictor
from ray_app.serving.schemas import RecommendRequest

RETRY_S = 30.0
"""A version that could not be loaded is tried again after so long: its storage may have been away."""
WARM_UP_EVENTS = 500
log = logging.getLogger(__name__)


class Versions:
    """The one in production, and beside it the one on trial, or else the one before, at hand for a rollback."""

    def __init__(
        self,
        registry: Registry,
        fetch: Callable[[str], Predictor],
        make: Callable[[Predictor], Loaded],
        settings: ServeConfig,
        meters: Meters,
    ) -> None:
        self.loaded: dict[str, Loaded] = {}
        self.refused: dict[str, str] = {}
        self.production: str | None = None
        """The version that answers; not yet the one that is asked for, while that is loaded."""
        self._registry = registry
        self._fetch = fetch
        self._make = make
        self._settings = settings
        self._meters = meters
        self._present = Production()
        self._token: str | None = None
        self._tried_at: dict[str, float] = {}

    @property
    def trial(self) -> tuple[Move, Loaded] | None:
        """What is tried, once it is loaded."""
        move = self._present.trial
        return None if move is None or move.version not in self.loaded else (move, self.loaded[move.version])

    @property
    def spare(self) -> Loaded | None:
        """The version before, while nothing is tried in its place."""
        name = self._present.previous
        return self.loaded.get(name) if name is not None and name != self.production and not self.trial else None

    async def follow_once(self) -> None:
        """Look what is asked for, and have it; load it before the present one is let go. What is damaged is refused."""
        present, token = await asyncio.to_thread(self._registry.production)
        if present != self._present:
            for record in [loaded.record for loaded in self.loaded.values()]:
                record.clear()  # what was before the last move says nothing of what it brought
        self._present, self._token = present, token
        for name in filter(None, (present.version, present.previous)):
            if await self._has(name):
                self._take(name)
                break
        beside = present.trial.version if present.trial else present.previous
        if self.production is not None and beside is not None:
            await self._has(beside)
        for name in set(self.loaded) - {self.production, beside}:
            del self.loaded[name]

    async def judge(self) -> None:
        """Undo the last move if what it brought breaks a rule; other replicas follow as they follow any move."""
        rules, moves = self._settings.rollback, self._present.moves
        if rules is None or not moves or not self._is_watched(moves[-1], timedelta(seconds=rules.watch_s)):
            return
        move, loaded = moves[-1], self.loaded.get(moves[-1].version)
        if loaded is None:
            return
        if (fault := loaded.record.fault(rules)) is not None:
            with suppress(RegistryError):  # another replica was faster
                await asyncio.to_thread(self._registry.back, self._present, self._token, f"by the service: {fault}")
                log.error("version %s is taken back: %s", move.version, fault)
                self._meters.rollbacks.inc()
            await self.follow_once()

    async def learn(self) -> None:
        """Have every version count what customers did since."""
        for loaded in list(self.loaded.values()):
            await loaded.learn()

    def _is_watched(self, move: Move, watch: timedelta) -> bool:
        if self.trial is not None:
            return True
        return self.spare is not None and move.kind == "promoted" and datetime.now(UTC) < move.at + watch

    async def _has(self, name: str) -> bool:
        """Whether the version is there, now at the latest."""
        now = asyncio.get_running_loop().time()
        if name in self.loaded:
            return True
        if name in self._tried_at and now < self._tried_at[name] + RETRY_S:
            return False
        self._tried_at[name] = now
        for other in set(self.loaded) - {self.production}:  # never more than two
            del self.loaded[other]
        try:
            loaded = self._make(await asyncio.to_thread(self._fetch_warm, name))
        except UserError as error:
            log.error("version %s is refused: %s", name, error)
            self.refused[name] = str(error)
            self._meters.loads.labels("refused").inc()
            return False
        await loaded.ask(lambda _: None)  # hear what was said of items
        await loaded.learn()
        self.loaded[name] = loaded
        self.refused.pop(name, None)
        self._tried_at.pop(name)
        self._meters.loads.labels("loaded").inc()
        return True

    def _fetch_warm(self, name: str) -> Predictor:
        torch.set_num_threads(self._settings.torch_threads)
        predictor = self._fetch(name)
        longest = RecommendRequest(history=predictor.sample(WARM_UP_EVENTS))
        for size in (1, self._settings.max_batch):  # the first pass of each kind is slow
            predictor.recommend([longest] * size, [[]] * size)
        return predictor

    def _take(self, name: str) -> None:
        if name != self.production:
            log.info("version %s answers", name)
            self.production = name
            self._meters.answers_with(name)
