"""Ray clusters of tests, each beside any other on the machine: own ports, own folder, gone with its process group."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

RAY = Path(sys.executable).parent / "ray"


@dataclass(frozen=True)
class Head:
    """A cluster that `ray start` made."""

    address: str
    """For drivers: RAY_ADDRESS, or `ray.init(address=...)`."""
    jobs_address: str
    """For `ray job submit`."""
    environment: dict[str, str]
    """What its clients need."""
    pid: int


@contextmanager
def running(num_cpus: int, *, accepts_jobs: bool = False) -> Iterator[Head]:
    """A head node; with `accepts_jobs` its dashboard too, which takes seconds and memory of its own."""
    port, dashboard = _free_port(), _free_port()
    # Its own: a cluster that was killed leaves its address in the usual folder, where later ones would wait for it.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"
    environment = kept | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PATH": path}
    environment["RAY_worker_niceness"] = "0"  # else the tests of other processes would starve its workers
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"]
    command += [f"--num-cpus={num_cpus}", "--object-store-memory=200000000", f"--temp-dir={folder}"]
    command += [f"--ray-client-server-port={_free_port()}", f"--dashboard-agent-listen-port={_free_port()}"]
    command += [f"--dashboard-port={dashboard}", f"--include-dashboard={accepts_jobs}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        jobs_address = f"http://127.0.0.1:{dashboard}"
        if accepts_jobs:
            _wait_for(lambda: urlopen(f"{jobs_address}/api/version", timeout=5).close(), process, folder / "log")
        else:
            _wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), process, folder / "log")
        yield Head(f"127.0.0.1:{port}", jobs_address, environment, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    """A port that nobody else is given before it is used: above Ray's for workers, below those of the system."""
    while True:
        port = random.randrange(29_100, 32_700)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def _wait_for(answers: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            answers()
            return
        time.sleep(0.5)
    raise AssertionError(f"the cluster does not answer: {log.read_text()}")
