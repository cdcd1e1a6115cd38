"""Files on a local or mounted disk: whole-file writes that are atomic, and compare-and-set under a lock."""

import errno
import fcntl
import glob
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from pyarrow import fs

from ray_app.errors import StorageError
from ray_app.uri import FileEntry, local_path

STRAGGLERS_S = 10.0
"""How long a folder is removed again and again while something still writes into it."""


class LocalFiles:
    """What `Storage` needs, for plain paths and `file://`. Methods raise `StorageError`."""

    def filesystem(self, uri: str) -> tuple[fs.FileSystem, str]:
        """The Arrow filesystem and the absolute path inside it."""
        return fs.LocalFileSystem(), str(_path(uri))

    def full(self, uri: str) -> str:
        """`uri` as the entries of files below it begin."""
        return str(_path(uri))

    def read(self, uri: str) -> tuple[bytes, str]:
        """Content and version; the version is a hash of the content."""
        with _errors(uri):
            data = _path(uri).read_bytes()
        return data, _version(data)

    def write(self, uri: str, data: bytes) -> None:
        """Write a temporary file beside the target, then put it in the target's place."""
        with _errors(uri), _beside(_path(uri)) as temporary:
            _write_through(temporary, data)
            temporary.replace(_path(uri))

    def create(self, uri: str, data: bytes) -> bool:
        """A hard link fails when its name is taken, and shows the whole content when it is not."""
        with _errors(uri), _beside(_path(uri)) as temporary:
            _write_through(temporary, data)
            try:
                os.link(temporary, _path(uri))
            except FileExistsError:
                return False
            return True

    def replace(self, uri: str, data: bytes, version: str) -> bool:
        """Compare and write under a lock that every other `replace` of this file takes too."""
        path = _path(uri)
        with _errors(uri), suppress(FileNotFoundError), _lock(path):
            if _version(path.read_bytes()) == version:
                self.write(uri, data)
                return True
        return False

    def is_file(self, uri: str) -> bool:
        """Whether a file has exactly this name."""
        with _errors(uri):
            return _path(uri).is_file()

    def find_folder(self, uri: str) -> list[FileEntry]:
        """Every file below a folder; none when there is no such folder."""
        with _errors(uri):
            return _entries(_walk(_path(uri)))

    def find_file(self, uri: str) -> FileEntry:
        """The entry of one file."""
        with _errors(uri):
            return _entry(_path(uri))

    def find_glob(self, uri: str) -> list[FileEntry]:
        """Files that the pattern names, and files below folders that it names."""
        with _errors(uri):
            found = {Path(name) for name in glob.glob(str(_path(uri)), recursive=True)}  # noqa: PTH207 (Path.glob refuses absolute patterns)
            files = {path for path in found if path.is_file()}
            return _entries(files.union(*(_walk(path) for path in found - files)))

    def delete_tree(self, uri: str) -> None:
        """Remove a file, or a folder and all below it; nothing happens when there is none."""
        path = _path(uri)
        if path == Path(path.anchor):
            raise StorageError(f"{uri}: refused to delete the root of the disk")
        with _errors(uri):
            if path.is_dir() and not path.is_symlink():
                _remove_tree(path)
            else:
                path.unlink(missing_ok=True)

    def upload(self, source: Path, uri: str) -> None:
        """Copy one file in; a reader sees all of it or nothing."""
        with _errors(uri):
            _copy(source, _path(uri))

    def download(self, uri: str, target: Path) -> None:
        """Copy one file out."""
        with _errors(uri):
            _copy(_path(uri), target)


def _path(uri: str) -> Path:
    # Absolute, since a Ray worker's working directory is not the driver's; symbolic links keep their names.
    return Path(os.path.abspath(Path(local_path(uri)).expanduser()))  # noqa: PTH100 (Path.absolute keeps "..")


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _entry(path: Path) -> FileEntry:
    stat = path.stat()
    return FileEntry(str(path), stat.st_size, f"{stat.st_mtime_ns:x}-{stat.st_size:x}")


def _entries(paths: Iterable[Path]) -> list[FileEntry]:
    """Their entries, without files that vanish while they are listed: temporary ones, beside a file being written."""
    entries = []
    for path in paths:
        with suppress(FileNotFoundError):
            entries.append(_entry(path))
    return entries


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, onerror=_unless_absent):
        yield from (path for name in names if (path := Path(parent, name)).is_file())


def _unless_absent(error: OSError) -> None:
    """A folder that cannot be read is no empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name for a file that is to take the place of `path`; nothing is left under that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:100]}.{uuid4().hex}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write_through(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy(source: Path, target: Path) -> None:
    with _beside(target) as temporary:
        shutil.copyfile(source, temporary)
        temporary.replace(target)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    # flock, not lockf: it also keeps threads of one process apart. The file stays: removing it would free two holders.
    with path.with_name(f".{path.name[:100]}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"{uri}: does not exist") from error
    except OSError as error:
        raise StorageError(f"{uri}: {error.strerror or error}; check the path and its permissions") from error


def _remove_tree(path: Path) -> None:
    """Remove a folder that a task of a killed job may still be writing into: such a task ends within seconds."""
    deadline = time.monotonic() + STRAGGLERS_S
    while path.is_dir():
        try:
            shutil.rmtree(path)
        except OSError as error:
            # Absent: a temporary file, which has taken its place under another name.
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
