"""What SQLite keeps is not lost when a process or the actor is killed; what any store promises: `test_store.py`."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ray_app.errors import UserError
from ray_app.serving.customers import Event
from ray_app.serving.events import Change, EventStore, NewRow
from ray_app.serving.store import FEW, NAMESPACE, ActorStore
from tests.conftest import REPOSITORY


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "deep" / "state.sqlite")


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


async def answers(store: ActorStore) -> bool:
    import ray

    with contextlib.suppress(ray.exceptions.RayActorError):
        await store.ready(0)
        return True
    return False


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
            many = ["u", *map(str, range(FEW))]
            assert (await two.read(many, 0)).events == [*state.events, *([[]] * FEW)], "by the actor"
            ray.kill(actor)
            assert await two.read(["u"], 0) == state, "on its node the file is read without it"
            while await answers(two):  # a kill takes a while to be known
                assert time.monotonic() - start < 180
        finally:
            ray.kill(actor)
            await asyncio.gather(one.close(), two.close())

    start = time.monotonic()
    asyncio.run(scene())
    assert time.monotonic() - start < 180
