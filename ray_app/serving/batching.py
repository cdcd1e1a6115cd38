"""Requests that wait together are answered together; one that comes alone is answered at once."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class BusyError(Exception):
    """Too many wait already."""


class Batcher(Generic[Question, Answer]):
    """Takes whatever waits when the last batch is done: batches grow with the load, and nobody waits for company."""

    def __init__(
        self, work: Callable[[list[Question]], Awaitable[list[Answer]]], max_batch: int, max_waiting: int
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, question: Question) -> Answer:
        """The answer.

        Raises:
            BusyError: too many wait already.
        """
        if len(self._waiting) >= self._max_waiting:
            raise BusyError
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._answer_all())
        return await future

    async def _answer_all(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
            asked = [(question, future) for question, future in taken if not future.done()]  # else it was given up
            if asked:
                await self._answer(asked)

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
