"""Events and changes of items: kept once, in order, and not lost when a process is killed."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ray_app.errors import UserError
from ray_app.serving.customers import Event
from ray_app.serving.events import NEWEST, Change, EventStore, NewRow
from ray_app.serving.store import NAMESPACE, ActorStore, LocalStore
from tests.conftest import REPOSITORY

S = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "deep" / "state.sqlite")


def test_events_are_read_back_by_user_in_the_order_of_their_times(path: str):
    store = EventStore(path)
    assert store.append([NewRow("u", "b", 5 * S), NewRow("v", "é", 1), NewRow("u", "a", 2 * S, "view")]) == 3
    assert store.read(["v", "nobody", "u"], 0).events == [[Event("é", 1)], [], [Event("a", 2 * S), Event("b", 5 * S)]]
    assert EventStore(path).read(["v"], 0).events == [[Event("é", 1)]], "also by the next process"


def test_what_is_sent_again_counts_once(path: str):
    store = EventStore(path)
    rows = [NewRow("u", "a", 7 * S + 1), NewRow("u", "a", 9 * S, id="x")]
    assert store.append(rows) == 2
    assert store.append([*rows, NewRow("u", "a", 7 * S + 2), NewRow("u", "b", 0, id="x")]) == 0
    assert store.append([NewRow("v", "a", 7 * S), NewRow("v", "b", 0, id="x"), NewRow("u", "a", 8 * S)]) == 3


def test_the_newest_events_are_read(path: str):
    store = EventStore(path)
    store.append([NewRow("u", "a", n * S) for n in range(NEWEST + 5)])
    events = store.read(["u"], 0).events[0]
    assert (len(events), events[0].time, events[-1].time) == (NEWEST, 5 * S, (NEWEST + 4) * S)


def test_changes_are_told_once_and_the_last_counts(path: str):
    store = EventStore(path)
    store.change([Change("a", "item", "{}"), Change("a", "available", "false")])
    first = store.read([], 0)
    assert first.changes == [Change("a", "item", "{}"), Change("a", "available", "false")]
    assert store.read([], first.revision) == ([], [], first.revision)
    store.change([Change("a", "item", '{"title": 1}')])
    assert store.read([], first.revision).changes == [Change("a", "item", '{"title": 1}')]
    assert set(store.read([], 0).changes) == {Change("a", "available", "false"), Change("a", "item", '{"title": 1}')}


def test_a_write_that_fails_leaves_nothing(path: str):
    store = EventStore(path)
    with pytest.raises(Exception, match="NOT NULL"):
        store.append([NewRow("u", "a", 1), NewRow("u", None, 2)])  # type: ignore[arg-type]
    assert store.read(["u"], 0).events == [[]]
    assert store.append([NewRow("u", "a", 1)]) == 1


def test_a_file_that_is_something_else_is_refused(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"no database" * 1000)
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot be used for events \(serve.state_path\)"):
            EventStore(str(wrong))


def test_a_process_killed_in_the_middle_loses_nothing_that_it_acknowledged(path: str):
    code = (
        "import sys\nfrom ray_app.serving.events import EventStore, NewRow\nstore = EventStore(sys.argv[1])\n"
        "for n in range(10**9):\n    store.append([NewRow('u', str(n), n)])\n    print(n, flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 50:
            pass
        writer.send_signal(signal.SIGKILL)
        acknowledged = [51 + n for n, _ in enumerate(writer.stdout)]
    kept = {event.item for event in EventStore(path).read(["u"], 0).events[0]}
    assert {str(n) for n in [*range(51), *acknowledged]} <= kept


def test_many_at_once_in_one_process(path: str):
    async def scene() -> list[int]:
        store = LocalStore(path)
        counts = await asyncio.gather(*(store.append([NewRow("u", str(n), n)]) for n in range(50)))
        await store.change([Change("a", "available", "true")])
        state = await store.read(["u"], 0)
        assert len(state.events[0]) == 50
        assert state.revision == 1
        return counts

    assert asyncio.run(scene()) == [1] * 50
    assert threading.active_count() < 50


@pytest.mark.cluster
def test_an_actor_that_is_killed_comes_back_with_everything(ray_cluster: None, path: str):
    import ray

    async def scene() -> None:
        one, two = ActorStore("test", path), ActorStore("test", path)
        actor = ray.get_actor("events-test", NAMESPACE)
        try:
            assert await one.append([NewRow("u", "a", 1)]) == 1
            assert (await two.read(["u"], 0)).events == [[Event("a", 1)]], "replicas share one"
            await two.change([Change("a", "available", "false")])
            os.kill(await actor.__ray_call__.remote(lambda _: os.getpid()), signal.SIGKILL)
            assert await one.append([NewRow("u", "b", 2)]) == 1
            state = await two.read(["u"], 0)
            assert state.events == [[Event("a", 1), Event("b", 2)]]
            assert state.changes == [Change("a", "available", "false")]
        finally:
            ray.kill(actor)

    start = time.monotonic()
    asyncio.run(scene())
    assert time.monotonic() - start < 180
