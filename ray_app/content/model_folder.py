"""The files of a model of the transformers library, wherever they lie: a folder, S3, the hub."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray_app.checkpoint import fetched
from ray_app.errors import ConfigError
from ray_app.picture_config import PRETRAINED
from ray_app.storage import Storage
from ray_app.uri import scheme

HF = "hf:"
WEIGHTS = ".safetensors"
READ_FILES = ("*.json", "*.txt", "*.model", f"*{WEIGHTS}", "1_Pooling/*.json")
"""Of a folder: weights (no pickle), what surrounds them, and how the vectors of tokens become that of the text."""


@contextmanager
def model_folder(storage: Storage, name: str, key: str) -> Iterator[Path]:
    """The files of `hf:NAME` in a local folder, for as long as the context lasts; `key` is the setting that names it.

    Raises:
        ConfigError: there is no such model.
        StorageError: it cannot be fetched.
    """
    place = name.removeprefix(HF)
    if scheme(place) == "s3":
        with fetched(storage, place) as folder:
            yield folder
    elif Path(place).is_dir():
        yield Path(place)
    else:
        yield _from_hub(place, key)


def absolute(name: str) -> str:
    """With an absolute path where `hf:NAME` is a local folder: other processes have another working directory."""
    path = Path(name.removeprefix(HF))
    return f"{HF}{path.resolve()}" if name.startswith(HF) and path.is_dir() else name


def absolute_weights(weights: str | None) -> str | None:
    """The same where weights are a local file, or a folder of ours."""
    if weights in (None, PRETRAINED) or scheme(str(weights)) != "file":
        return weights
    return str(Path(str(weights)).resolve())


def described_in(folder: Path) -> Iterator[Path]:
    """What is read of a folder beside weights, by names in it: all that an encoder is built from."""
    return (path.relative_to(folder) for path in _read_in(folder) if path.suffix != WEIGHTS)


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that is read, by its name in the folder."""
    hashes = {}
    for path in _read_in(folder):
        with path.open("rb") as file:
            hashes[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _read_in(folder: Path) -> list[Path]:
    return sorted({path for pattern in READ_FILES for path in folder.glob(pattern)})


def _from_hub(name: str, key: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415

        return Path(snapshot_download(name, allow_patterns=list(READ_FILES)))
    except ImportError as error:
        raise ConfigError(
            [f"{key}: {name!r} is no folder, and the hub needs pip install 'ray-retail-finetune[text]'"]
        ) from error
    except (OSError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ConfigError([f"{key}: {name!r} is no folder, and the hub did not give it: {line}"]) from error
