"""Storage: the same behavior on a local folder and on a real S3 server, and errors that name the setting."""

import errno
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from ray_app.config import Config, StorageConfig, dump
from ray_app.errors import StorageError
from ray_app.s3_errors import explain
from ray_app.storage import Storage, join
from tests.conftest import S3

ACCESS_KEY, SECRET_KEY, BUCKET = "testkey", "testsecret", "retail"


def names(storage: Storage, uri: str) -> list[str]:
    """Listed files, relative to the storage's folder."""
    return [entry.uri.removeprefix(storage.path).lstrip("/") for entry in storage.list_files(uri)]


# --- reading and writing


def test_what_was_written_is_read(storage: Storage) -> None:
    uri = join(storage.root("shop"), "models", "größe 1+1%.bin")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"second"
    assert storage.exists(uri)
    assert storage.exists(storage.root("shop"))
    assert not storage.exists(join(storage.path, "sho"))
    with storage.open_input(uri) as file:
        file.seek(3)
        assert file.read() == b"ond"


def test_large_files_survive_the_upload_in_parts(storage: Storage) -> None:
    data = os.urandom(20_000_000)
    uri = join(storage.path, "large.bin")
    storage.write_bytes(uri, data)
    assert storage.read_bytes(uri) == data
    assert storage.list_files(uri)[0].size == len(data)


def test_a_reader_never_sees_half_a_file(storage: Storage) -> None:
    uri = join(storage.path, "flipping.bin")
    versions = [bytes([letter]) * size for letter, size in ((65, 300_000), (66, 700_000))]
    storage.write_bytes(uri, versions[0])
    done = threading.Event()

    def read() -> int:
        reads = 0
        while not done.is_set():
            assert storage.read_bytes(uri) in versions
            reads += 1
        return reads

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for turn in range(40):
            storage.write_bytes(uri, versions[turn % 2])
        done.set()
        assert all(reader.result() > 0 for reader in readers)


def test_a_failed_local_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage.from_config(StorageConfig(path=str(tmp_path)))
    uri = join(storage.path, "x")
    storage.write_bytes(uri, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        storage.write_bytes(uri, b"new")
    assert storage.read_bytes(uri) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_tables(storage: Storage) -> None:
    table = pa.table({"user": ["a", "b"], "items": [[1, 2], []]})
    uri = join(storage.path, "part-00000.parquet")
    storage.write_table(uri, table)
    assert storage.read_table(uri) == table
    assert storage.read_table(uri, columns=["user"]) == table.select(["user"])
    with storage.open_input(uri) as file:
        assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
    filesystem, path = storage.filesystem(uri)
    assert pq.read_table(path, filesystem=filesystem) == table


def test_a_table_that_is_not_one(storage: Storage) -> None:
    uri = join(storage.path, "part.parquet")
    storage.write_bytes(uri, b"PAR1 and nothing else")
    with pytest.raises(StorageError, match=r"part\.parquet: cannot be read as parquet"):
        storage.read_table(uri)


def test_a_write_that_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    """Its temporary file stayed."""
    (tmp_path / "folder" / "below").mkdir(parents=True)
    with pytest.raises(StorageError):
        Storage().write_bytes(str(tmp_path / "folder"), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# --- conditional writes


def test_create_leaves_an_existing_file_alone(storage: Storage) -> None:
    uri = join(storage.path, "manifest.json")
    assert storage.create(uri, b"first") is True
    assert storage.create(uri, b"second") is False
    assert storage.read_bytes(uri) == b"first"


def test_of_racing_creates_exactly_one_wins(storage: Storage) -> None:
    for turn in range(10):
        uri, barrier = join(storage.path, f"{turn}.json"), threading.Barrier(4)

        def create(letter: bytes, uri: str = uri, barrier: threading.Barrier = barrier) -> bytes | None:
            barrier.wait()
            return letter if storage.create(uri, letter) else None

        with ThreadPoolExecutor(4) as pool:
            winners = [letter for letter in pool.map(create, [b"a", b"b", b"c", b"d"]) if letter]
        assert winners == [storage.read_bytes(uri)]


def test_replace_needs_the_version_that_was_read(storage: Storage) -> None:
    uri = join(storage.path, "production.json")
    storage.write_bytes(uri, b"v1")
    _, first = storage.read_versioned(uri)
    assert storage.replace(uri, b"v2", first) is True
    assert storage.replace(uri, b"v3", first) is False
    data, second = storage.read_versioned(uri)
    assert (data, second != first) == (b"v2", True)
    storage.delete_tree(uri)
    assert storage.replace(uri, b"v4", second) is False
    assert not storage.exists(uri)


def test_no_update_is_lost_under_compare_and_set(storage: Storage) -> None:
    uri = join(storage.path, "counter")
    storage.write_bytes(uri, b"0")

    def add_one(_: int) -> None:
        while True:
            data, version = storage.read_versioned(uri)
            if storage.replace(uri, str(int(data) + 1).encode(), version):
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_one, range(24)))
    assert storage.read_bytes(uri) == b"24"
    assert names(storage, storage.path) == ["counter"]


@contextmanager
def relay_that_loses_an_answer(server: str) -> Iterator[str]:
    """A server in front of `server` that passes everything on, but swallows the answer to the first PUT."""
    host, port = server.removeprefix("http://").split(":")
    lost = threading.Event()

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as behind:
            while request := client.recv(65536):
                behind.sendall(request)
                if b"\r\n\r\n" in request and b"expect: 100-continue" in request.lower():
                    client.sendall(behind.recv(65536))
                    behind.sendall(client.recv(65536))
                answer = behind.recv(65536)
                if request.startswith(b"PUT") and not lost.is_set():
                    lost.set()
                    return
                client.sendall(answer)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert lost.is_set()
    finally:
        listener.close()


@pytest.mark.s3
def test_a_create_whose_answer_was_lost_still_counts_as_won(s3_server: S3) -> None:
    """boto3 sends it again and is told that the file exists: it is our own."""
    with relay_that_loses_an_answer(s3_server.server.endpoint) as endpoint:
        storage = Storage.from_config(s3_server.config(endpoint=endpoint))
        uri = join(storage.path, "manifest.json")
        assert storage.create(uri, b"mine") is True
        assert storage.create(uri, b"mine") is False


# --- listing and folders


@pytest.fixture
def tree(storage: Storage) -> Storage:
    for name in (
        "logs/2024-01/a.parquet",
        "logs/2024-01/b.csv",
        "logs/2024-02/c.parquet",
        "logs/2024-02/deep/d.parquet",
        "logs/2024-02/_SUCCESS",
        "logs/2024-02/.crc",
        "logs/_temporary/e.parquet",
        "logs2/f.parquet",
    ):
        storage.write_bytes(join(storage.path, name), name.encode())
    return storage


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("logs", "2024-01/a.parquet 2024-01/b.csv 2024-02/c.parquet 2024-02/deep/d.parquet"),
        ("logs/", "2024-01/a.parquet 2024-01/b.csv 2024-02/c.parquet 2024-02/deep/d.parquet"),
        ("logs/2024-01/b.csv", "2024-01/b.csv"),
        ("logs/2024-02/_SUCCESS", "2024-02/_SUCCESS"),
        ("logs/*/*.parquet", "2024-01/a.parquet 2024-02/c.parquet"),
        ("logs/**/*.parquet", "2024-01/a.parquet 2024-02/c.parquet 2024-02/deep/d.parquet"),
        ("logs/2024-0[2-9]", "2024-02/c.parquet 2024-02/deep/d.parquet"),
        ("logs/2024-0[!2]/?.*", "2024-01/a.parquet 2024-01/b.csv"),
        ("logs/2024-02/**", "2024-02/c.parquet 2024-02/deep/d.parquet"),
        ("logs/*.parquet", ""),
        ("log", ""),
        ("nothing/*", ""),
    ],
)
def test_listing(tree: Storage, pattern: str, expected: str) -> None:
    assert names(tree, join(tree.path, pattern.rstrip("/")) + ("/" if pattern.endswith("/") else "")) == [
        f"logs/{name}" for name in expected.split()
    ]


def test_a_listing_tells_size_and_change(tree: Storage) -> None:
    uri = join(tree.path, "logs/2024-01/a.parquet")
    (before,) = tree.list_files(uri)
    assert before.size == len("logs/2024-01/a.parquet")
    assert tree.list_files(uri) == [before]
    assert before in tree.list_files(join(tree.path, "logs"))
    tree.write_bytes(uri, b"LOGS/2024-01/A.PARQUET")
    (after,) = tree.list_files(uri)
    assert (after.size, after.etag != before.etag) == (before.size, True)


def test_a_file_with_wildcards_in_its_name_is_found_by_it(storage: Storage) -> None:
    storage.write_bytes(join(storage.path, "sales[1].csv"), b"")
    storage.write_bytes(join(storage.path, "sales1.csv"), b"")
    assert names(storage, join(storage.path, "sales[1].csv")) == ["sales[1].csv"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_globs_at_the_root_do_not_depend_on_where_one_stands(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name was taken for hidden when an underscore stood where the path of the working directory ends."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a_b.csv").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "a")
    _, first, *rest = tmp_path.parts
    pattern = "/".join([f"{scheme}/{first[:-1]}?", *rest, "*.csv"])
    assert [entry.uri for entry in Storage().list_files(pattern)] == [str(tmp_path / "a_b.csv")]


def test_a_listing_is_not_upset_by_a_file_being_written(tmp_path: Path) -> None:
    """It failed when a temporary file vanished between the look into the folder and the look at the file."""
    storage, done = Storage(), threading.Event()
    uri = str(tmp_path / "flipping.bin")
    storage.write_bytes(uri, b"x")

    def write() -> None:
        while not done.is_set():
            storage.write_bytes(uri, b"x")

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write) for _ in range(3)]
        try:
            for _ in range(3000):
                assert [entry.uri for entry in storage.list_files(str(tmp_path))] == [uri]
        finally:
            done.set()
        for writer in writers:
            writer.result()


def test_a_folder_that_cannot_be_read_is_not_taken_for_empty() -> None:
    """Its files were left out without a word."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "a.csv").write_bytes(b"")
        (Path(folder) / "locked").mkdir(mode=0)
        with without_privileges():
            with pytest.raises(StorageError, match="Permission denied; check the path"):
                Storage().list_files(folder)
            with pytest.raises(StorageError, match="Permission denied; check the path"):
                Storage().exists(f"{folder}/locked/x")


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything; nobody may not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.s3
def test_listings_of_several_pages(s3: StorageConfig) -> None:
    storage = Storage.from_config(s3)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: storage.write_bytes(join(storage.path, f"{n:04}"), b""), range(1010)))
    assert names(storage, storage.path) == [f"{n:04}" for n in range(1010)]
    storage.delete_tree(storage.path)
    assert not storage.exists(storage.path)


def test_delete_takes_the_folder_and_not_its_namesakes(tree: Storage) -> None:
    tree.delete_tree(join(tree.path, "logs"))
    tree.delete_tree(join(tree.path, "logs"))
    assert names(tree, tree.path) == ["logs2/f.parquet"]
    tree.delete_tree(join(tree.path, "logs2/f.parquet"))
    assert not tree.exists(join(tree.path, "logs2"))


def test_a_folder_is_deleted_while_something_still_writes_into_it(tmp_path: Path) -> None:
    """Such a writer gives its temporary file another name, and the deletion failed on the name that was gone."""
    storage = Storage()
    for _ in range(20):
        folder, deleted = tmp_path / "staging", threading.Event()
        storage.write_bytes(str(folder / "first"), b"")

        def write(folder: Path = folder, deleted: threading.Event = deleted) -> None:
            for number in range(50):
                with suppress(StorageError):  # its folder may vanish at any moment
                    storage.write_bytes(str(folder / str(number)), b"x")

        with ThreadPoolExecutor(4) as pool:
            writers = [pool.submit(write) for _ in range(4)]
            time.sleep(0.005)
            storage.delete_tree(str(folder))
        for writer in writers:
            writer.result()
        storage.delete_tree(str(folder))
        assert not folder.exists()


def test_folders_up_and_down(storage: Storage, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub").mkdir(parents=True)
    (source / "model.safetensors").write_bytes(b"weights")
    (source / "sub" / "_state.json").write_bytes(b"{}")
    storage.upload_folder(source, join(storage.path, "checkpoint"))
    storage.write_bytes(join(storage.path, "checkpoint2", "other"), b"")
    storage.download_folder(join(storage.path, "checkpoint/"), target)
    found = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == {"model.safetensors": b"weights", "sub/_state.json": b"{}"}


def test_folders_that_are_not_there(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing to upload"):
        storage.upload_folder(tmp_path / "none", storage.path)
    with pytest.raises(StorageError, match="no such folder"):
        storage.download_folder(join(storage.path, "none"), tmp_path)


@pytest.mark.parametrize(("uri", "parts", "expected"), [
    ("s3://b", ("x", "y/z"), "s3://b/x/y/z"),
    ("s3://b/p/", ("/x/",), "s3://b/p/x"),
    ("/", ("x",), "/x"),
    ("runs", ("", "x"), "runs/x"),
    ("runs/", (), "runs/"),
])  # fmt: skip
def test_join(uri: str, parts: tuple[str, ...], expected: str) -> None:
    assert join(uri, *parts) == expected


def test_local_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run in other folders than the driver, so a relative path is settled where the storage is made."""
    monkeypatch.chdir(tmp_path)
    storage = Storage.from_config(StorageConfig(path="runs"))
    assert storage.path == str(tmp_path / "runs")
    storage.write_bytes("my file.txt", b"x")
    assert storage.read_bytes(f"file://{tmp_path}/my%20file.txt") == b"x"
    assert storage.list_files("*.txt")[0].uri == str(tmp_path / "my file.txt")


# --- credentials, secrets, pickling


@pytest.mark.s3
def test_credentials_from_the_environment(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.server.endpoint)
    config = s3_server.config(endpoint=None, region=None, access_key_id=None, secret_access_key=None)
    storage = Storage.from_config(config)
    uri = join(storage.path, "x")
    storage.write_bytes(uri, b"boto3")
    with storage.open_input(uri) as file:
        assert file.read() == b"boto3"


@pytest.mark.s3
def test_secrets_stay_secret(s3: StorageConfig) -> None:
    storage = Storage.from_config(s3)
    for text in (
        repr(storage),
        str(storage),
        str(dump(storage)),
        Config(storage=s3).to_yaml(),
        storage.model_dump_json(),
    ):
        assert SECRET_KEY not in text
    assert ACCESS_KEY not in repr(storage)


def test_a_storage_in_use_travels(storage: Storage) -> None:
    uri = join(storage.path, "x")
    storage.write_bytes(uri, b"here")
    storage.filesystem(uri)
    there = pickle.loads(pickle.dumps(storage))
    assert there == storage
    assert there.read_bytes(uri) == b"here"


@pytest.mark.cluster
@pytest.mark.s3
def test_a_worker_uses_the_drivers_storage(s3: StorageConfig, ray_cluster: None) -> None:
    import ray

    @ray.remote
    def copy(storage: Storage, source: str, target: str) -> None:
        storage.write_table(target, storage.read_table(source))

    storage = Storage.from_config(s3)
    source, target = join(storage.path, "a.parquet"), join(storage.path, "b.parquet")
    storage.write_table(source, pa.table({"x": [1]}))
    ray.get(copy.remote(storage, source, target))
    assert storage.read_table(target) == pa.table({"x": [1]})


# --- what goes wrong


USES: dict[str, Callable[[Storage, str], object]] = {
    "read": lambda storage, uri: storage.read_bytes(uri),
    "write": lambda storage, uri: storage.write_bytes(uri, b""),
    "create": lambda storage, uri: storage.create(uri, b""),
    "list": lambda storage, uri: storage.list_files(uri),
    "open": lambda storage, uri: storage.open_input(uri),
}


def failure(use: str, config: StorageConfig, uri: str) -> str:
    """The error's text; it has to come within 10 s and to name the URI."""
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        USES[use](Storage.from_config(config), uri)
    assert time.monotonic() - started < 10
    assert caught.value.exit_code == 3
    assert uri in str(caught.value)
    assert SECRET_KEY not in str(caught.value)
    return str(caught.value)


@pytest.mark.s3
@pytest.mark.parametrize("use", USES)
class TestWrongSettings:
    def test_missing_bucket(self, s3_server: S3, use: str) -> None:
        text = failure(use, s3_server.config(), "s3://no-such-bucket/x")
        assert "NoSuchBucket" in text
        assert "check the bucket name" in text

    def test_wrong_secret(self, s3_server: S3, use: str) -> None:
        text = failure(use, s3_server.config(secret_access_key="wrong"), f"s3://{BUCKET}/x")
        assert "SignatureDoesNotMatch" in text
        assert "storage.secret_access_key" in text

    def test_wrong_key(self, s3_server: S3, use: str) -> None:
        text = failure(use, s3_server.config(access_key_id="wrong"), f"s3://{BUCKET}/x")
        assert "InvalidAccessKeyId" in text
        assert "storage.access_key_id" in text

    def test_nobody_listens(self, s3_server: S3, use: str) -> None:
        text = failure(use, s3_server.config(endpoint="http://127.0.0.1:1"), f"s3://{BUCKET}/x")
        assert "http://127.0.0.1:1 cannot be reached" in text
        assert "storage.endpoint" in text


@pytest.mark.s3
@pytest.mark.parametrize("url", ["localhost:9000", "http://[x"])
def test_an_endpoint_that_is_no_url(s3_server: S3, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 raises a bare `ValueError`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    text = failure("list", s3_server.config(endpoint=None), f"s3://{BUCKET}/x")
    assert f"{url} is not the URL of a server" in text
    assert "AWS_ENDPOINT_URL" in text


class BreaksOff(BaseHTTPRequestHandler):
    """An S3 server that lists one object and always breaks off when it is fetched."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.send_header("ETag", '"e"')
        self.end_headers()

    def do_GET(self) -> None:
        if "list-type=2" not in self.path:
            self.do_HEAD()
            self.wfile.write(b"x" * 10)
            self.close_connection = True
            return
        key = "<Contents><Key>folder/a</Key><Size>1000</Size><ETag>e</ETag></Contents>"
        body = f"<ListBucketResult>{key}<IsTruncated>false</IsTruncated></ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_download_that_always_breaks_off(tmp_path: Path) -> None:
    """boto3 gives up with an error of another family."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BreaksOff) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {
            "endpoint": f"http://127.0.0.1:{server.server_port}",
            "access_key_id": "a",
            "secret_access_key": "b",
        }
        storage = Storage.model_validate(settings)
        with pytest.raises(StorageError, match="s3://b/folder/a: broke off again and again"):
            storage.download_folder("s3://b/folder", tmp_path)
        with pytest.raises(StorageError, match="s3://b/folder/a: "):
            storage.read_bytes("s3://b/folder/a")
        server.shutdown()
    assert not list(tmp_path.iterdir())


def test_a_download_to_a_place_that_is_none(storage: Storage, tmp_path: Path) -> None:
    storage.write_bytes(join(storage.path, "folder", "a"), b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="File exists"):
        storage.download_folder(join(storage.path, "folder"), tmp_path / "file")


@pytest.mark.s3
def test_a_server_that_never_answers(s3_server: S3) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        text = failure("list", s3_server.config(endpoint=endpoint), f"s3://{BUCKET}/x")
    assert f"{endpoint} cannot be reached" in text
    assert "storage.endpoint" in text


def test_no_credentials_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    text = failure("list", StorageConfig(endpoint="http://127.0.0.1:1"), f"s3://{BUCKET}/x")
    assert "storage.access_key_id" in text
    assert "AWS_SECRET_ACCESS_KEY" in text


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("uri", ["gs://bucket/x", "https://host/x"])
def test_unknown_scheme(use: str, uri: str) -> None:
    assert "unknown scheme" in failure(use, StorageConfig(), uri)


def test_unusable_names(s3: StorageConfig) -> None:
    assert "write s3:// instead" in failure("read", s3, "s3a://bucket/x")
    assert "no bucket in it" in failure("read", s3, "s3://")
    assert "check the bucket name" in failure("read", s3, "s3://not a bucket/x")
    assert "not a pattern of file names" in failure("list", s3, f"{s3.path}/[z-a].csv")
    assert "File name too long" in failure("list", StorageConfig(), "x" * 300)


def test_a_missing_file(storage: Storage) -> None:
    uri = join(storage.path, "none")
    for use in ("read", "open"):
        with pytest.raises(StorageError, match="does not exist") as caught:
            USES[use](storage, uri)
        assert uri in str(caught.value)


def test_a_path_that_leads_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    text = failure("write", StorageConfig(), str(tmp_path / "file" / "x"))
    assert "check the path and its permissions" in text


@pytest.mark.parametrize("uri", ["/", "s3://bucket", "s3://bucket/"])
def test_roots_are_not_deleted(uri: str) -> None:
    with pytest.raises(StorageError, match="refused to delete"):
        Storage().delete_tree(uri)


@pytest.mark.parametrize(
    ("code", "setting"),
    [
        ("AccessDenied", "the bucket's policy"),
        ("ExpiredToken", "get new ones"),
        ("PermanentRedirect", "storage.region"),
        ("AuthorizationHeaderMalformed", "storage.region"),
        ("RequestTimeTooSkewed", "clock"),
        ("SlowDown", "Reduce your request rate"),
    ],
)
def test_codes_that_the_test_server_does_not_give(code: str, setting: str) -> None:
    answer = {"Error": {"Code": code, "Message": "Reduce your request rate"}, "ResponseMetadata": {}}
    text = explain(ClientError(answer, "PutObject"), "s3://b/k", None)  # type: ignore[arg-type]
    assert text.startswith("s3://b/k: ")
    assert setting in text
    assert f"({code} from AWS)" in text
