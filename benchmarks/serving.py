"""Latency, throughput and CPU time of the service beside the same application on plain uvicorn, in turn in one run.

    python benchmarks/serving.py --config X.yaml [serve.port=8000] [key=value ...]
    RAY_SERVE_ENABLE_HA_PROXY=1 python benchmarks/serving.py --config X.yaml    # any switch of Ray Serve

Closed loop: so many clients, each of which asks again when it was answered. Open loop: requests begin at a fixed rate,
whether or not others were answered, and a time counts from when its request was due: a service that stalls is charged
for all who would have come meanwhile. Requests have the headers of our client. Users are drawn from the log with a
fixed seed; every answer must be a 200. CPU time is that of the server's processes, by what they are, and depends less
than wall time on who else uses the machine.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import numpy as np
import psutil
import uvicorn

from ray_app.config import Config, load_config
from ray_app.serving.api import build_api
from ray_app.serving.client import HEADERS, ID_HEADER, STAYING, Client, ClientError
from ray_app.serving.garbage import search_seldom
from ray_app.serving.meters import Meters
from ray_app.serving.service import Service
from ray_app.serving.store import LocalStore
from ray_app.storage import Storage

JOBS = Path(__file__).parents[1] / "jobs"
CLIENTS = (1, 16, 64)
START_S = 180
TAIL = 4000
"""Characters of the log of a service that did not start."""
KINDS = {"ServeReplica": "replica", "ProxyActor": "proxy", "haproxy": "HAProxy", "EventStore": "events"}
REST = "rest"
Server = tuple[str, psutil.Process]
"""Its address, and the process from which its others come."""
Load = Callable[..., Coroutine[Any, Any, tuple[list["Caller"], float]]]


class Caller:
    """One connection that asks for recommendations, and what its answers took, in milliseconds."""

    def __init__(self, url: str, bodies: list[bytes]) -> None:
        self._address = urlsplit(url)
        self._bodies = bodies
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.times: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.again = 0
        """Requests that were sent anew, since a kept connection was closed before anything came."""

    async def ask(self, due: float) -> None:
        """One request; its time counts from `due`."""
        reader, writer = self._streams or (None, None)
        fresh = reader is None or writer is None or reader.at_eof()  # one that was idle for seconds is closed
        if fresh:
            reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
            self._streams = reader, writer
        writer.write(random.choice(self._bodies))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            if fresh or getattr(error, "partial", b""):
                raise
            # A proxy that gets its settings anew closes what it keeps, as the request comes; clients of HTTP ask again.
            writer.close()
            self._streams = None
            self.again += 1
            await self.ask(due)
            return
        [length] = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-len")]
        await reader.readexactly(length)
        self.times.append((time.perf_counter() - due) * 1000)
        self.statuses[int(head[9:12])] += 1


def request_bodies(url: str) -> list[bytes]:
    host = urlsplit(url).netloc
    bodies = [json.dumps({"user_id": user, "k": 10}).encode() for user in Client(url).call("GET", "/v1/users?k=1000")]
    named = "".join(f"{name}: {value}\r\n" for name, value in (HEADERS | STAYING).items())
    head = f"POST /v1/recommend HTTP/1.1\r\nhost: {host}\r\n{named}{ID_HEADER}: "
    return [f"{head}{uuid4().hex}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


async def closed_loop(url: str, bodies: list[bytes], clients: int, seconds: float) -> tuple[list[Caller], float]:
    callers = [Caller(url, bodies) for _ in range(clients)]
    start = time.perf_counter()

    async def go_on(caller: Caller) -> None:
        while (now := time.perf_counter()) < start + seconds:
            await caller.ask(now)

    await asyncio.gather(*map(go_on, callers))
    return callers, time.perf_counter() - start


async def open_loop(url: str, bodies: list[bytes], rate: float, seconds: float) -> tuple[list[Caller], float]:
    idle: list[Caller] = []
    everyone: list[Caller] = []

    async def ask(due: float) -> None:
        caller = idle.pop() if idle else Caller(url, bodies)
        if not caller.times:
            everyone.append(caller)
        await caller.ask(due)
        idle.append(caller)

    start, asked = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asked.append(asyncio.create_task(ask(due)))
    await asyncio.gather(*asked)
    return everyone, time.perf_counter() - start


@dataclass(frozen=True)
class Measured:
    """One turn of one server."""

    callers: list[Caller]
    seconds: float
    cpu: Counter[str]

    @property
    def rate(self) -> float:
        """Answers per second."""
        return sum(len(caller.times) for caller in self.callers) / self.seconds


def report(name: str, turns: list[Measured]) -> None:
    callers = [caller for turn in turns for caller in turn.callers]
    times = np.concatenate([caller.times for caller in callers])
    p50, p99 = np.quantile(times, [0.5, 0.99])
    statuses = sum((caller.statuses for caller in callers), Counter())
    cpu = sum((turn.cpu for turn in turns), Counter())
    failed, rate = statuses.total() - statuses[200], median(turn.rate for turn in turns)
    spent = ", ".join(f"{kind} {1000 * cpu_s / len(times):.2f}" for kind, cpu_s in cpu.most_common())
    print(
        f"{name:<34} p50 {p50:7.1f} ms  p99 {p99:7.1f} ms  {rate:6.0f}/s  failed {failed}"
        f"  sent anew {sum(caller.again for caller in callers)}"
        f"  CPU ms a request: {spent}",
        flush=True,
    )


def cpu_by_kind(server: psutil.Process) -> Counter[str]:
    """Seconds that the processes of a server have spent."""
    found: Counter[str] = Counter()
    for process in (server, *server.children(recursive=True)):
        with suppress(psutil.Error):
            line = " ".join(process.cmdline()[:1])
            times = process.cpu_times()
            found[next((kind for word, kind in KINDS.items() if word in line), REST)] += times.user + times.system
    return found


def measure(servers: dict[str, Server], rates: list[float], seconds: float, turns: int) -> None:
    """All servers in turn, so that the machine's moods meet each of them alike."""
    bodies = {name: request_bodies(url) for name, (url, _) in servers.items()}
    for name, (url, _) in servers.items():
        asyncio.run(closed_loop(url, bodies[name], CLIENTS[-1], seconds))  # warm-up
    loads: list[tuple[str, Load]] = [(f"{n} clients", partial(closed_loop, clients=n)) for n in CLIENTS]
    loads += [(f"open loop at {rate:g}/s", partial(open_loop, rate=rate)) for rate in rates]
    for label, load in loads:
        found: dict[str, list[Measured]] = {name: [] for name in servers}
        for _ in range(turns):
            for name, (url, server) in servers.items():
                before = cpu_by_kind(server)
                callers, took = asyncio.run(load(url, bodies[name], seconds=seconds))
                found[name].append(Measured(callers, took, cpu_by_kind(server) - before))
        for name, measured in found.items():
            report(f"{name}, {label}", measured)
        ratios = [ours.rate / theirs.rate for ours, theirs in zip(*found.values(), strict=True)]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{label}: {' / '.join(servers)}: median {median(ratios):.3f} ({spread})", flush=True)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            Client(url, attempts=1).call("GET", "/readyz")
            return
        except ClientError:
            assert process.poll() is None, "the service ended"
            assert time.monotonic() < deadline, "the service is not ready"
            time.sleep(0.5)


@contextmanager
def on_ray_serve(config: str, overrides: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    """The service in processes of its own: its address, and the process from which the others come."""
    port = load_config(config, overrides).serve.port
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(JOBS / "serve.py"), "--config", config, "serve.log_requests=false", *overrides]
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(url, process)
            while b"\nserving " not in Path(log.name).read_bytes():  # Serve answers before all of it is settled
                assert process.poll() is None, "the service ended"
                time.sleep(0.5)
            yield url, psutil.Process(process.pid)
        except AssertionError:
            print(Path(log.name).read_text(encoding="utf-8", errors="replace")[-TAIL:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait()


@contextmanager
def plain(config: str, overrides: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    """The same application on uvicorn, in a process of its own, without Ray."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        command = [sys.executable, __file__, "--config", config, "--plain", folder, "--url", url, *overrides]
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            wait_for(url, process)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def serve_plain(config: Config, folder: str, port: int) -> None:
    async def make(meters: Meters) -> Service:
        store = LocalStore(str(Path(folder) / "events.sqlite"))
        return Service(Storage.from_config(config.storage), config.name, store, config.serve, meters)

    search_seldom()
    uvicorn.run(build_api(make, config.serve, None), port=port, log_level="warning", access_log=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--rates", type=float, nargs="*", default=[50, 100, 200], help="of the open loop, per second")
    parser.add_argument("--seconds", type=float, default=3, help="of each turn")
    parser.add_argument("--turns", type=int, default=6, help="of each server, at each load")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    if arguments.plain:
        serve_plain(config, arguments.plain, urlsplit(arguments.url).port or 80)
        return
    random.seed(0)
    overrides = [*arguments.overrides, "serve.log_requests=false"]
    with on_ray_serve(arguments.config, arguments.overrides) as ours, plain(arguments.config, overrides) as theirs:
        servers = {"Ray Serve": ours, "plain uvicorn": theirs}
        measure(servers, arguments.rates, arguments.seconds, arguments.turns)
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
