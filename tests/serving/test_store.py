"""What every store of later events promises, on SQLite and on a real Redis server alike."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import redis_server
from redis_server import DURABLE, RedisServer

from ray_app.serve_config import ServeConfig
from ray_app.serving.customers import Event
from ray_app.serving.events import NEWEST, Change, NewRow
from ray_app.serving.redis_store import RedisStore
from ray_app.serving.store import LocalStore, Store

S = 1_000_000
Open = Callable[[], AbstractAsyncContextManager[Store]]
NAMES = map("shop-{}".format, itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server.running(tmp_path_factory.mktemp("redis"), *DURABLE) as found:
        yield found


@pytest.fixture(params=["sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same store as often as one likes, as replicas do."""
    name = next(NAMES)

    @asynccontextmanager
    async def open_store() -> AsyncIterator[Store]:
        store: Store = LocalStore(str(tmp_path / "deep" / "state.sqlite"))
        if request.param == "redis":
            url = request.getfixturevalue("server").url
            store = await RedisStore.connect(ServeConfig(redis=url), name, None)
        try:
            yield store
        finally:
            await store.close()

    return open_store


def played(opened: Open, scene: Callable[[Store], Awaitable[None]]) -> None:
    async def play() -> None:
        async with opened() as store:
            await scene(store)

    asyncio.run(play())


def test_events_are_read_back_by_user_in_the_order_of_their_times(opened: Open):
    async def scene(store: Store) -> None:
        rows = [NewRow("u", "b", 5 * S), NewRow("v", "é", 1), NewRow("u", "a", 2 * S, "view")]
        assert await store.append(rows) == 3
        read = await store.read(["v", "nobody", "u"], 0)
        assert read == ([[Event("é", 1)], [], [Event("a", 2 * S, "view"), Event("b", 5 * S)]], [], 0)
        async with opened() as another:
            assert (await another.read(["v"], 0)).events == [[Event("é", 1)]], "also by whoever comes later"

    played(opened, scene)


def test_news_are_told_in_the_order_in_which_they_came_and_once_to_each(opened: Open):
    async def scene(store: Store) -> None:
        assert await store.news("") == ([], "")
        rows = [NewRow("u", "b", 5 * S), NewRow("v", "é", 1), NewRow("u", "a", 2 * S, "view", "x")]
        await store.append(rows[:2])
        first = await store.news("")
        await store.append(rows)
        second = await store.news(first.cursor)
        assert [row[:4] for row in first.rows] == [("u", "b", 5 * S, None), ("v", "é", 1, None)]
        assert [row[:4] for row in second.rows] == [("u", "a", 2 * S, "view")]
        assert await store.news(second.cursor) == ([], second.cursor)
        async with opened() as another:
            assert [row.item for row in (await another.news("")).rows] == ["b", "é", "a"]

    played(opened, scene)


def test_of_old_news_only_the_latest_are_kept(opened: Open, monkeypatch: pytest.MonkeyPatch):
    for module in ("events", "redis_store"):
        monkeypatch.setattr(f"ray_app.serving.{module}.KEPT", 300)

    async def scene(store: Store) -> None:
        for n in range(10):
            await store.append([NewRow("u", str(100 * n + m), (100 * n + m) * S) for m in range(100)])
        kept = [int(row.item) for row in (await store.news("")).rows]
        assert kept == list(range(1000 - len(kept), 1000))
        assert 300 <= len(kept) < 500  # Redis lets go of whole blocks
        assert len((await store.read(["u"], 0)).events[0]) == 1000

    played(opened, scene)


def test_what_is_sent_again_counts_once(opened: Open):
    async def scene(store: Store) -> None:
        rows = [NewRow("u", "a", 7 * S + 1), NewRow("u", "a", 9 * S, id="x")]
        assert await store.append(rows) == 2
        assert await store.append([*rows, NewRow("u", "a", 7 * S + 2), NewRow("u", "b", 0, id="x")]) == 0
        assert await store.append([NewRow("v", "a", 7 * S), NewRow("v", "b", 0, id="x"), NewRow("u", "a", 8 * S)]) == 3
        assert (await store.read(["u"], 0)).events == [[Event("a", 7 * S + 1), Event("a", 8 * S), Event("a", 9 * S)]]

    played(opened, scene)


def test_the_newest_events_are_read(opened: Open):
    async def scene(store: Store) -> None:
        await store.append([NewRow("u", "a", n * S) for n in range(NEWEST + 5)])
        [events] = (await store.read(["u"], 0)).events
        assert (len(events), events[0].time, events[-1].time) == (NEWEST, 5 * S, (NEWEST + 4) * S)

    played(opened, scene)


def test_times_are_kept_to_the_microsecond(opened: Open):
    async def scene(store: Store) -> None:
        times = [time.time_ns() // 1000, 4_102_444_800 * S + 1]  # today; 2100
        await store.append([NewRow("u", "a", us) for us in times])
        assert [event.time for event in (await store.read(["u"], 0)).events[0]] == times

    played(opened, scene)


def test_changes_are_told_once_and_the_last_counts(opened: Open):
    async def scene(store: Store) -> None:
        described, sold = Change("a", "item", "{}"), Change("a", "available", "false")
        await store.change([described, sold])
        first = await store.read([], 0)
        assert first.changes == [described, sold]
        assert await store.read([], first.revision) == ([], [], first.revision)
        anew = Change("a", "item", '{"title": 1}')
        await store.change([anew])
        assert (await store.read([], first.revision)).changes == [anew]
        assert (await store.read([], 0)).changes == [sold, anew]
        await store.change([anew])
        assert (await store.read([], (await store.read([], first.revision)).revision - 1)).changes == [anew]

    played(opened, scene)


def test_nobody_misses_a_change_that_others_write_at_the_same_time(opened: Open):
    async def scene(store: Store) -> None:
        heard: list[str] = []

        async def listen() -> None:
            seen = 0
            while len(heard) < 60:
                state = await store.read([], seen)
                heard.extend(change.item for change in state.changes)
                seen = state.revision
                await asyncio.sleep(0)

        async with opened() as one, opened() as two:
            say = [(one, two)[n % 2].change([Change(str(n), "available", "true")]) for n in range(60)]
            async with asyncio.timeout(30):
                await asyncio.gather(listen(), *say)
        assert sorted(heard, key=int) == [str(n) for n in range(60)]

    played(opened, scene)


def test_a_write_that_fails_leaves_nothing(opened: Open):
    async def scene(store: Store) -> None:
        with pytest.raises(UnicodeEncodeError):
            await store.append([NewRow("u", "a", 1), NewRow("u", "\ud800", 2)])
        assert (await store.read(["u"], 0)).events == [[]]
        assert await store.append([NewRow("u", "a", 1)]) == 1

    played(opened, scene)


def test_many_at_once(opened: Open):
    async def scene(store: Store) -> None:
        counts = await asyncio.gather(*(store.append([NewRow("u", str(n), n)]) for n in range(50)))
        assert counts == [1] * 50
        assert len((await store.read(["u"], 0)).events[0]) == 50

    played(opened, scene)
