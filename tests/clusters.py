"""Ray clusters of tests, each beside any other on the machine: own ports, own folder, gone with its process group."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

RAY = Path(sys.executable).parent / "ray"
PORTS = ("ray-client-server", "dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
"""Those of the agents too: what waits for one left open gives up after 15 or 30 s, and all the cluster with it."""
PATIENCE = {
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "300",
}
"""How long the parts of a cluster wait for each other: half a minute or one by default."""
START_S = 300
ATTEMPTS = 3
STARTED = "Ray runtime started"
"""What `ray start` says when its node is up."""
TAIL = 3000


@dataclass(frozen=True)
class Head:
    """A cluster that `ray start` made."""

    address: str
    """For drivers: RAY_ADDRESS, or `ray.init(address=...)`."""
    jobs_address: str
    """For `ray job submit`."""
    environment: dict[str, str]
    """What its clients need."""
    process: subprocess.Popen[bytes]
    folder: Path

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the dashboard answers to a GET, or to a POST of `body`."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.jobs_address}{path}", data, {"content-type": "application/json"})
        with urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def logs(self) -> str:
        """How it ended, if it did, and the end of what its processes wrote."""
        files = [self.folder / "log", *sorted(self.folder.glob("session_latest/logs/*dashboard*.log"))]
        files += sorted(self.folder.glob("session_latest/logs/raylet.*"))
        parts = [f"--- {file}\n{file.read_text(errors='replace')[-TAIL:]}" for file in files if file.is_file()]
        return "\n".join([f"exit code of ray start: {self.process.poll()}", *parts])


@contextmanager
def running(num_cpus: int, *, accepts_jobs: bool = False) -> Iterator[Head]:
    """A head node; with `accepts_jobs` its dashboard too, which takes seconds and memory of its own."""
    told = []
    for _ in range(ATTEMPTS):
        head = _start(num_cpus, accepts_jobs)
        try:
            if _is_ready(head, accepts_jobs):
                yield head
                return
            told.append(head.logs())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.process.pid, signal.SIGKILL)
            head.process.wait(60)
            shutil.rmtree(head.folder, ignore_errors=True)
    raise AssertionError("no cluster came up:\n" + "\n".join(told))


def _start(num_cpus: int, accepts_jobs: bool) -> Head:
    port, dashboard, *others = _free_ports(2 + len(PORTS))
    # Its own: a cluster that was killed leaves its address in the usual folder, where later ones would wait for it.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"
    environment = kept | PATIENCE | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PATH": path}
    environment["RAY_worker_niceness"] = "0"  # else the tests of other processes would starve its workers
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"]
    command += [f"--num-cpus={num_cpus}", "--object-store-memory=200000000", f"--temp-dir={folder}"]
    command += [f"--{name}-port={number}" for name, number in zip(PORTS, others, strict=True)]
    command += [f"--dashboard-port={dashboard}", f"--include-dashboard={accepts_jobs}", "--no-monitor"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment, process, folder)


def _is_ready(head: Head, accepts_jobs: bool) -> bool:
    """Wait until its node is up, and a job that does nothing is taken; False where it ended instead.

    Its ports answer before that, and on a machine that is busy the raylet gives up on its agents after 15 s, whatever
    PATIENCE says, and takes the head with it: then the next attempt finds everything in the cache of files.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and head.process.poll() is None:
        with contextlib.suppress(OSError, HTTPException):
            if STARTED in (head.folder / "log").read_text(errors="replace"):
                if accepts_jobs:
                    head.ask("/api/jobs/", {"entrypoint": "true"})
                return True
        time.sleep(0.5)
    return False


def _free_ports(count: int) -> list[int]:
    """Ports that nobody else is given before they are used: apart from Ray's own, S3 servers' and the system's."""
    found: list[int] = []
    for port in random.sample(range(23_000, 29_900), 1000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")
