"""One door to files: paths and `s3://` URIs, written atomically or under a condition.

Reading goes through Arrow's filesystems, so that a file of any size can be streamed; small writes, conditions and ETags
go through boto3. Credentials come from the configuration, else from the environment, else from the instance's role.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ray_app import uri as uris
from ray_app.config import StorageConfig
from ray_app.errors import StorageError
from ray_app.local_files import LocalFiles
from ray_app.uri import FileEntry, join

if TYPE_CHECKING:
    from ray_app.s3_files import S3Files

__all__ = ["FileEntry", "Storage", "join"]

_TRANSFERS = 8


class Storage(StorageConfig):
    """Where files are, and how they are read and written.

    It holds settings alone and may be pickled to any worker; connections are made where they are used. Every method
    takes a plain path, `file://` or `s3://bucket/key`, and raises `StorageError` naming the URI, the S3 error code and
    the setting to look at. A bucket, key or endpoint that is wrong is reported within 10 s.
    """

    @classmethod
    def from_config(cls, config: StorageConfig) -> Self:
        """The storage that a configuration describes; a local path is made absolute, for workers elsewhere."""
        settings = {name: getattr(config, name) for name in StorageConfig.model_fields}
        if uris.scheme(config.path) == "file":
            settings["path"] = LocalFiles().filesystem(config.path)[1]
        return cls.model_validate(settings)

    def root(self, name: str) -> str:
        """The folder of everything that belongs to the project `name`."""
        return join(self.path, name)

    def filesystem(self, uri: str) -> tuple[fs.FileSystem, str]:
        """The Arrow filesystem that has `uri`, and the path inside it."""
        return self._files(uri).filesystem(uri)

    def read_bytes(self, uri: str) -> bytes:
        """The whole file."""
        return self._files(uri).read(uri)[0]

    def read_versioned(self, uri: str) -> tuple[bytes, str]:
        """The whole file and a token of its version, to be handed to `replace`."""
        return self._files(uri).read(uri)

    def open_input(self, uri: str) -> pa.NativeFile:
        """Open for reading, seekable: only what is asked for is fetched."""
        filesystem, path = self.filesystem(uri)
        try:
            return filesystem.open_input_file(path)
        except FileNotFoundError as error:
            raise StorageError(f"{uri}: does not exist") from error
        except OSError as error:
            raise StorageError(f"{uri}: cannot be opened: {error}") from error

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Write or overwrite: a reader sees the old file, all of the new one, or nothing."""
        self._files(uri).write(uri, data)

    def create(self, uri: str, data: bytes) -> bool:
        """Write only if there is no such file yet; False if there is. Of many at once, exactly one gets True."""
        return self._files(uri).create(uri, data)

    def replace(self, uri: str, data: bytes, version: str) -> bool:
        """Overwrite only if the file still is the `version` of `read_versioned`; False if it changed or is gone.

        Of many that hold the same version, at most one gets True; `write_bytes` in between is not held up.
        """
        return self._files(uri).replace(uri, data, version)

    def exists(self, uri: str) -> bool:
        """Whether `uri` is a file, or a folder with a file somewhere in it (S3 has no empty folders)."""
        files = self._files(uri)
        return files.is_file(uri) or bool(files.find_folder(uri))

    def list_files(self, uri: str) -> list[FileEntry]:
        """Files that a name, a folder (with all below it) or a glob stands for, sorted by URI; none is an empty list.

        In globs `*`, `?` and `[...]` stop at a slash and `**` crosses folders; a folder that matches counts with all
        below it. Files and folders that start with a dot or an underscore are left out, unless named outright. Local
        files come back as absolute paths.
        """
        files = self._files(uri)
        if files.is_file(uri):
            return [files.find_file(uri)]
        if uris.is_glob(uri):
            base, found = uris.literal_folder(files.full(uri)), files.find_glob(uri)
        else:
            base, found = files.full(uri), files.find_folder(uri)
        shown = [entry for entry in found if not _hidden(entry.uri[len(base) :])]
        return sorted(shown, key=lambda entry: entry.uri)

    def delete_tree(self, uri: str) -> None:
        """Remove a file, or a folder and all below it; nothing happens when there is none."""
        self._files(uri).delete_tree(uri)

    def upload_folder(self, local: str | Path, uri: str) -> None:
        """Copy all files below `local` to the same names below `uri`; what else is there stays."""
        files, source = self._files(uri), Path(local)
        found = [Path(entry.uri) for entry in LocalFiles().find_folder(str(source))]
        if not found:
            raise StorageError(f"{source}: nothing to upload to {uri}")
        base = Path(LocalFiles().filesystem(str(source))[1])
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(lambda path: files.upload(path, join(uri, path.relative_to(base).as_posix())), found))

    def download_folder(self, uri: str, local: str | Path) -> None:
        """Copy all files below `uri` to the same names below `local`; what else is there stays."""
        files, target = self._files(uri), Path(local)
        found = [entry.uri for entry in files.find_folder(uri)]
        if not found:
            raise StorageError(f"{uri}: no such folder, or nothing in it")
        depth = len(files.full(uri)) + 1
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(lambda name: files.download(name, target / name[depth:]), found))

    def write_table(self, uri: str, table: pa.Table) -> None:
        """Write one parquet file (zstd), atomically."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.write_bytes(uri, sink.getvalue().to_pybytes())

    def read_table(self, uri: str, columns: list[str] | None = None) -> pa.Table:
        """Read one parquet file, or only some of its columns."""
        with self.open_input(uri) as source:
            try:
                return pq.ParquetFile(source).read(columns=columns)
            except (pa.ArrowException, OSError) as error:
                raise StorageError(f"{uri}: cannot be read as parquet: {error}") from error

    def _files(self, uri: str) -> "LocalFiles | S3Files":
        if uris.scheme(uri) != "s3":
            return LocalFiles()
        from ray_app.s3_files import S3Files  # noqa: PLC0415 (boto3 takes a second of every process that imports it)

        # Its clients, which are costly to make, are those of any other folder on the same server.
        return S3Files(self.model_copy(update={"path": ""}))


def raise_if_storage_failed(error: Exception, uri: str) -> None:
    """Raise `StorageError` if reading `uri` failed for the server, the network or the disk, and not for its content.

    Arrow raises OSError for all of these. What a file holds is wrong every time; a lost connection is not, and must not
    be taken for a broken file.
    """
    if isinstance(error, OSError) and (error.errno is not None or "AWS Error" in str(error)):
        raise StorageError(f"{uri}: cannot be read to its end: {error}") from error


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))
