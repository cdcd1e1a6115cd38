"""What a trained classifier says of the pictures or texts of a part: computed once by Ray Data actors, and kept.

Evaluation, predictions, report and promotion all read the same answers. Killed in the middle, they go on with the files
that are missing.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from ray_app.checkpoint import MANIFEST_FILE
from ray_app.config import Config, fingerprint
from ray_app.data.picture_set import PartName, PictureSet
from ray_app.data.picture_shard import chosen
from ray_app.data.pool import map_parts
from ray_app.models.device import device_of
from ray_app.storage import Storage, join
from ray_app.tasks.classifier import load_classifier

_VERSION = 3
"""Raise it when the same model gives other answers."""
KEY, LABEL, PROBABILITIES = "key", "label", "probabilities"


@dataclass(frozen=True)
class Answers:
    """Of each picture or text of a part, in the order of its files."""

    keys: list[str]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    """`[pictures, classes]`, in the order of the set's classes."""


def answers_of(
    pictures: PictureSet,
    model_uri: str,
    config: Config,
    part: PartName = "test",
    progress: Progress | None = None,
) -> Answers:
    """What the published model at `model_uri` says, found or computed.

    A class that the model does not know has probability 0, and what it says of classes that the set does not have is
    left out: a model of another set is given every advantage.

    Raises:
        CheckpointError: the model is incomplete, damaged, or does not fit.
    """
    storage, folder = pictures.storage, _folder(pictures, model_uri, config)
    if missing := _missing(pictures, folder, part):
        load_classifier(storage, model_uri)  # a fault becomes a sentence here, and a dead actor there
        settings = {"pictures": pictures, "model_uri": model_uri, "config": config, "folder": folder, "part": part}
        bar = progress.add_task(f"{pictures.kind} looked at", total=pictures.size(part)) if progress else None
        for table in map_parts(missing, Answering, settings, config.train):
            if progress and bar is not None:
                progress.advance(bar, table["pictures"][0].as_py())
    return _joined([storage.read_table(_place(folder, uri)) for uri in pictures.uris(part)], pictures.num_classes)


def answer_here(pictures: PictureSet, model_uri: str, config: Config, part: PartName = "test") -> None:
    """Compute what is missing in this process, which holds CPUs that a pool would wait for; raises as `answers_of`."""
    folder = _folder(pictures, model_uri, config)
    if missing := _missing(pictures, folder, part):
        answering = Answering(pictures, model_uri, config, folder, part)
        for uri in missing:
            list(answering(uri))


def _folder(pictures: PictureSet, model_uri: str, config: Config) -> str:
    manifest = pictures.storage.read_bytes(join(model_uri, MANIFEST_FILE))
    inputs = (_VERSION, hashlib.sha256(manifest).hexdigest(), pictures.manifest.fingerprint)
    return join(pictures.storage.root(config.name), "answers", fingerprint(*inputs))


def _place(folder: str, uri: str) -> str:
    return join(folder, uri.rpartition("/")[2])


def _missing(pictures: PictureSet, folder: str, part: PartName) -> list[str]:
    return [uri for uri in pictures.uris(part) if not pictures.storage.exists(_place(folder, uri))]


class Answering:
    """An actor: loads the classifier once, then answers one file after another."""

    def __init__(
        self, pictures: PictureSet, model_uri: str, config: Config, folder: str, part: PartName = "test"
    ) -> None:
        torch.set_num_threads(config.train.cpus_per_worker)
        self._storage: Storage = pictures.storage
        self._folder = folder
        self._device = device_of(config.train.use_gpu)
        self._classifier = load_classifier(pictures.storage, model_uri)
        known = {name: column for column, name in enumerate(self._classifier.classes)}
        columns = [(place, known[name]) for place, name in enumerate(pictures.manifest.classes) if name in known]
        self._places, self._columns = np.array(columns, np.int64).reshape(-1, 2).T
        self._num_classes = pictures.num_classes
        self._column = pictures.column
        self._rows = {join(pictures.uri, file.path): file.rows for file in pictures.files(part)}

    def __call__(self, uri: str) -> Iterator[pa.Table]:
        """How many pictures the file has, after the answers were written."""
        table = chosen(self._storage.read_table(uri, [KEY, self._column, LABEL]), self._rows[uri])
        said = self._classifier.probabilities(table[self._column].to_pylist(), self._device)
        found = np.zeros((len(said), self._num_classes), np.float32)
        found[:, self._places] = said[:, self._columns]
        lists = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), self._num_classes)
        answers = table.select([KEY, LABEL]).append_column(PROBABILITIES, lists)
        self._storage.write_table(_place(self._folder, uri), answers)
        yield pa.table({"pictures": [table.num_rows]})


def _joined(tables: list[pa.Table], num_classes: int) -> Answers:
    flat: list[NDArray[Any]] = [
        pa.concat_arrays(table[PROBABILITIES].chunks).flatten().to_numpy(zero_copy_only=False) for table in tables
    ]
    keys = [key for table in tables for key in table[KEY].to_pylist()]
    labels = np.concatenate([table[LABEL].to_numpy() for table in tables]).astype(np.int64)
    return Answers(keys, labels, np.concatenate(flat).reshape(-1, num_classes))
