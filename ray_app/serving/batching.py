"""Requests that wait together are answered together; one that comes alone is answered at once."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
TURNS = 3
"""Of the event loop before a batch is taken: requests that have arrived are read meanwhile and come along.

Without it the first of many is answered alone, and all others wait for it. One that comes alone waits microseconds.
"""


class BusyError(Exception):
    """Too many wait."""


class Batcher(Generic[Question, Answer]):
    """Takes whatever waits when the last batch is done: batches grow with the load, and nobody waits for company."""

    def __init__(
        self,
        work: Callable[[list[Question]], Awaitable[list[Answer]]],
        max_batch: int,
        max_waiting: int,
        max_wait_s: float = math.inf,
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._waiting: deque[tuple[Question, asyncio.Future[Answer], float]] = deque()
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, question: Question) -> Answer:
        """The answer.

        Raises:
            BusyError: too many wait already, or its turn came too late.
        """
        if len(self._waiting) >= self._max_waiting:
            raise BusyError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, future, loop.time() + self._max_wait_s))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._answer_all())
        try:
            return await future
        finally:
            # Its error knows this frame, and this frame it: in a flood of refusals, which wait long enough to count as
            # old, a search for garbage would come upon them late, and memory grow by all that the requests held.
            del future

    async def _answer_all(self) -> None:
        while self._waiting:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if asked := self._next(asyncio.get_running_loop().time()):
                await self._answer(asked)

    def _next(self, now: float) -> list[tuple[Question, asyncio.Future[Answer]]]:
        """The next batch, without those that were given up or waited too long: nobody would wait for their answers."""
        asked: list[tuple[Question, asyncio.Future[Answer]]] = []
        while self._waiting and len(asked) < self._max_batch:
            question, future, deadline = self._waiting.popleft()
            if future.done():
                continue
            if now > deadline:
                future.set_exception(BusyError())
            else:
                asked.append((question, future))
        return asked

    async def _answer(self, asked: list[tuple[Question, "asyncio.Future[Answer]"]]) -> None:
        try:
            answers = await self._work([question for question, _ in asked])
        except Exception as error:
            if len(asked) > 1:  # so that one that cannot be answered takes no other with it
                for one in asked:
                    await self._answer([one])
            elif not asked[0][1].done():
                asked[0][1].set_exception(error)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)
