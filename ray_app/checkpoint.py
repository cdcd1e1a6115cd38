"""A checkpoint folder: tensors in safetensors, settings in JSON, and a manifest with the hash of every file."""

import hashlib
import json
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ray_app.errors import UserError
from ray_app.storage import Storage, join

CONFIG_FILE = "config.json"
MANIFEST_FILE = "manifest.json"
PACKAGES = ("ray", "torch", "numpy", "pyarrow", "safetensors")


class CheckpointError(UserError):
    """A checkpoint is damaged, incomplete, or made for another model."""

    exit_code = 5


def seal(folder: Path, config: dict[str, Any], **facts: Any) -> None:
    """Write `config.json` and, last, `manifest.json` with the SHA-256 of every file and where it all came from.

    Args:
        folder: holds the other files already.
        config: the resolved configuration, without secrets.
        facts: what else the manifest should say (dataset fingerprint, metrics, ...).
    """
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1))
    files = {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST_FILE, None)
    manifest = {"files": files, "versions": _versions(), "git_commit": _git_commit(), **facts}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1))


def publish(storage: Storage, folder: Path, uri: str) -> None:
    """Upload a sealed folder, the manifest last: what has a manifest is complete."""
    sealed = folder / MANIFEST_FILE
    manifest = sealed.read_bytes()
    sealed.unlink()
    storage.upload_folder(folder, uri)
    storage.write_bytes(join(uri, MANIFEST_FILE), manifest)


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved configuration that the checkpoint was made with.

    Raises:
        CheckpointError: the folder has none, or it is damaged.
    """
    return _read(folder, CONFIG_FILE)


def read_manifest(storage: Storage, uri: str) -> dict[str, Any]:
    """The manifest of the checkpoint at `uri`, of which nothing else is fetched.

    Raises:
        CheckpointError: it is damaged, or that of something else.
        StorageError: there is none.
    """
    path = join(uri, MANIFEST_FILE)
    return _with_files(_parse(storage.read_bytes(path), path), uri)


def verify(folder: Path) -> dict[str, Any]:
    """Check every file's hash and return the manifest.

    Raises:
        CheckpointError: a file is missing or has other bytes than when it was sealed.
    """
    manifest = _with_files(_read(folder, MANIFEST_FILE), folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, though the checkpoint's manifest lists it")
        if _sha256(path) != expected:
            raise CheckpointError(f"{path}: its bytes differ from the manifest; fetch the checkpoint again")
    return manifest


@contextmanager
def fetched(storage: Storage, uri: str) -> Iterator[Path]:
    """A local copy of a folder, for as long as the context lasts; a `CheckpointError` in it names `uri` instead."""
    with tempfile.TemporaryDirectory() as name:
        storage.download_folder(uri, name)
        try:
            yield Path(name)
        except CheckpointError as error:
            raise CheckpointError(error.message.replace(name, uri)) from error


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{folder}: not a checkpoint, it has no {name}")
    return _parse(path.read_bytes(), path)


def _parse(text: bytes, path: Path | str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: damaged, not a JSON object")
    return found


def _with_files(manifest: dict[str, Any], folder: Path | str) -> dict[str, Any]:
    if "files" not in manifest:
        raise CheckpointError(f"{folder}: not a checkpoint, its {MANIFEST_FILE} is that of something else")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@lru_cache
def _git_commit() -> str | None:
    """The commit of this code, or None where it is not run from a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
