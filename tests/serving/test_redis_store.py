"""A real Redis server that is killed, forgetful, alone, or somewhere else."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import redis_server
from redis_server import DURABLE
from s3_server import free_ports

from ray_app.config import ServeConfig, parse_config
from ray_app.errors import ConfigError, UserError
from ray_app.serving.events import Change, NewRow, State
from ray_app.serving.problems import ProblemError
from ray_app.serving.redis_store import RedisStore
from tests.conftest import REPOSITORY

WRITER = """
import asyncio, sys
from ray_app.serve_config import ServeConfig
from ray_app.serving.events import NewRow
from ray_app.serving.redis_store import RedisStore

async def main():
    store = await RedisStore.connect(ServeConfig(redis=sys.argv[1]), "shop", None)
    for n in range(10**9):
        await store.append([NewRow("u", str(n), n)])
        print(n, flush=True)

asyncio.run(main())
"""


async def connected(url: str, password: str | None = None, **settings: object) -> RedisStore:
    return await RedisStore.connect(ServeConfig.model_validate({"redis": url, **settings}), "shop", password)


def read(url: str, **settings: object) -> State:
    async def ask() -> State:
        store = await connected(url, **settings)
        try:
            return await store.read(["u"], 0)
        finally:
            await store.close()

    return asyncio.run(ask())


def test_a_server_killed_in_the_middle_loses_nothing_that_was_acknowledged(tmp_path: Path):
    with redis_server.running(tmp_path / "kept", *DURABLE) as server:
        command = [sys.executable, "-c", WRITER, server.url]
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as writer:
            assert writer.stdout is not None
            while int(writer.stdout.readline()) < 50:
                pass
            server.kill()
            acknowledged = [51 + n for n, _ in enumerate(writer.stdout)]
        assert writer.returncode, "a write that was not kept is not acknowledged"
    with redis_server.running(tmp_path / "kept", *DURABLE) as server:
        kept = {event.item for event in read(server.url).events[0]}
    assert {str(n) for n in [*range(51), *acknowledged]} <= kept


def test_a_server_that_is_away_is_a_503_and_is_found_again(tmp_path: Path):
    async def scene() -> None:
        with redis_server.running(tmp_path / "kept", *DURABLE) as server:
            store = await connected(server.url)
            await store.append([NewRow("u", "a", 1)])
            server.kill()
        for question in (store.read([], 0), store.append([NewRow("u", "b", 2)]), store.change([Change("a", "b", "c")])):
            with pytest.raises(ProblemError, match="cannot be read or kept now") as away:
                await question
            assert (away.value.status, away.value.headers) == (503, {"Retry-After": "1"})
        with redis_server.running(tmp_path / "kept", *DURABLE, port=server.port):
            await store.append([NewRow("u", "b", 2)])
            assert [event.item for event in (await store.read(["u"], 0)).events[0]] == ["a", "b"]
        await store.close()

    asyncio.run(scene())


def test_what_a_server_forgets_is_refused_or_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with (
        redis_server.running(tmp_path / "none") as forgetful,
        pytest.raises(UserError, match=r"keeps nothing on disk as it comes.*appendonly yes --appendfsync always"),
    ):
        read(forgetful.url)
    with redis_server.running(tmp_path / "later", "--appendonly", "yes") as server:
        read(server.url)
        assert "appendfsync is everysec" in caplog.text
    caplog.clear()
    with redis_server.running(tmp_path / "hosted", "--appendonly", "yes", "--rename-command", "CONFIG", "") as server:
        read(server.url)
        assert "appendfsync is not told" in caplog.text
    caplog.clear()
    with redis_server.running(tmp_path / "durable", *DURABLE) as server:
        read(server.url)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_write_that_must_be_copied_is_not_acknowledged_by_one_server_alone(tmp_path: Path):
    async def scene() -> None:
        with redis_server.running(tmp_path / "first", "--repl-diskless-sync", "no") as first:
            store = await connected(first.url, redis_replicas=1)
            with pytest.raises(ProblemError, match="0 of 1 copies have it; send it again"):
                await store.append([NewRow("u", "a", 1)])
            follow = ("--replicaof", "127.0.0.1", str(first.port))
            with redis_server.running(tmp_path / "second", *follow) as second:
                for _ in range(30):  # until the second has caught up with the first
                    try:
                        assert await store.append([NewRow("u", "a", 1)]) == 0, "sent again it counts once"
                        break
                    except ProblemError:
                        await asyncio.sleep(0.1)
                assert await store.append([NewRow("u", "b", 2)]) == 1
                first.kill()
                copy = await connected(second.url, redis_replicas=1)
                assert [event.item for event in (await copy.read(["u"], 0)).events[0]] == ["a", "b"]
                await copy.close()
            await store.close()

    asyncio.run(scene())


def test_passwords(tmp_path: Path):
    async def scene() -> None:
        with redis_server.running(tmp_path / "r", *DURABLE, "--requirepass", "secret") as server:
            store = await connected(server.url, password="secret")
            assert await store.append([NewRow("u", "a", 1)]) == 1
            await store.close()
            for wrong in (None, "wrong"):
                with pytest.raises(UserError, match=r"refuses the password; set RETAIL_REDIS_PASSWORD") as fault:
                    await connected(server.url, password=wrong)
                assert "secret" not in str(fault.value)

    asyncio.run(scene())


def test_faults_are_told_in_words():
    [port] = free_ports(1)
    with pytest.raises(UserError, match=rf"redis://127.0.0.1:{port}/0: no Redis answers there \(serve.redis\)"):
        read(f"redis://127.0.0.1:{port}/0")
    for wrong in ("redis://:secret@host:6379/0", "http://host", "host:6379"):
        with pytest.raises(ConfigError, match=r"serve\.redis: .*should be redis://host:6379/0.*RETAIL_REDIS_PASSWORD"):
            parse_config({"serve": {"redis": wrong}})
    assert parse_config({"serve": {"redis": "rediss://user@host:6379/0"}}).serve.redis is not None
