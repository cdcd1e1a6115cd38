"""Batches: as large as what waits, and no wait for company."""

import asyncio
import gc
import weakref

import pytest

from ray_app.serving.batching import Batcher, BusyError


class Work:
    """Doubles numbers; refuses a batch with 13 in it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await self.go_on.wait()
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


def test_what_arrives_within_a_turn_of_the_loop_comes_along() -> None:
    async def scene() -> None:
        work = Work()
        batcher = Batcher(work, max_batch=4, max_waiting=10)
        first = asyncio.create_task(batcher.ask(1))
        await asyncio.sleep(0)
        assert await asyncio.gather(first, batcher.ask(2)) == [2, 4]
        assert work.batches == [[1, 2]]

    asyncio.run(scene())


def test_one_alone_is_answered_at_once_and_those_that_wait_together():
    async def scene() -> None:
        work = Work()
        batcher = Batcher(work, max_batch=4, max_waiting=10)
        assert await batcher.ask(1) == 2
        work.go_on.clear()
        asked = [asyncio.create_task(batcher.ask(number)) for number in range(8)]
        await asyncio.sleep(0.01)
        work.go_on.set()
        assert await asyncio.gather(*asked) == [2 * number for number in range(8)]
        assert work.batches == [[1], [0, 1, 2, 3], [4, 5, 6, 7]]
        assert len(batcher) == 0

    asyncio.run(scene())


def test_too_many_are_sent_away_and_who_gave_up_is_not_worked_for():
    async def scene() -> None:
        work = Work()
        work.go_on.clear()
        batcher = Batcher(work, max_batch=1, max_waiting=2)
        first = asyncio.create_task(batcher.ask(1))
        await asyncio.sleep(0.01)
        second, third = (asyncio.create_task(batcher.ask(number)) for number in (2, 3))
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError):
            await batcher.ask(4)
        second.cancel()
        await asyncio.sleep(0)
        work.go_on.set()
        assert [await first, await third] == [2, 6]
        assert work.batches == [[1], [3]]

    asyncio.run(scene())


def test_who_cannot_be_answered_takes_no_other_with_it():
    async def scene() -> None:
        work = Work()
        batcher = Batcher(work, max_batch=8, max_waiting=10)
        found = await asyncio.gather(*(batcher.ask(number) for number in (12, 13, 14)), return_exceptions=True)
        assert (found[0], str(found[1]), found[2]) == (24, "thirteen", 28)

    asyncio.run(scene())


def test_who_waited_too_long_is_sent_away_when_its_turn_comes():
    async def scene() -> None:
        work = Work()
        batcher = Batcher(work, max_batch=2, max_waiting=10, max_wait_s=0.05)
        work.go_on.clear()
        asked = [asyncio.create_task(batcher.ask(number)) for number in range(4)]
        await asyncio.sleep(0.1)
        asked.append(asyncio.create_task(batcher.ask(4)))
        await asyncio.sleep(0)
        work.go_on.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert found[0] == 0, "its turn had come"
        assert [type(answer) for answer in found[2:4]] == [BusyError] * 2
        assert found[4] == 8
        assert work.batches == [[0, 1], [4]]

    asyncio.run(scene())


def test_whoever_is_sent_away_leaves_nothing_for_the_search_for_garbage():
    class Question:
        pass

    async def slow(questions: list[Question]) -> list[int]:
        await asyncio.sleep(0.05)
        return [1] * len(questions)

    async def scene() -> None:
        batcher = Batcher(slow, max_batch=1, max_waiting=3, max_wait_s=0.01)
        asked: list[weakref.ref[Question]] = []

        async def ask() -> object:
            question = Question()
            asked.append(weakref.ref(question))
            try:
                return await batcher.ask(question)
            except BusyError:
                return None

        assert await asyncio.gather(*(ask() for _ in range(5))) == [1, None, None, None, None]
        await asyncio.sleep(0)
        assert [one() for one in asked] == [None] * 5

    gc.disable()
    try:
        asyncio.run(scene())
    finally:
        gc.enable()
