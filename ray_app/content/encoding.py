"""Vectors that a frozen network makes of many texts or pictures: by Ray Data actors, a part after another."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from ray_app.content.vectors import vectors_in
from ray_app.data.dataset import FEATURES, Dataset
from ray_app.data.pool import Shared, map_parts
from ray_app.models.device import device_of
from ray_app.schema import Col
from ray_app.storage import Storage, join
from ray_app.train_config import TrainConfig

VECTORS = "vectors.parquet"
PARTS = "part-*.parquet"
Vectors = dict[bytes, NDArray[np.float16]]
"""By the hash of what they were made of."""


class Encoder(Protocol):
    """Settings of a network, which are sent to every actor."""

    def load(self, device: torch.device) -> Callable[[Sequence[str]], pa.Table]:
        """The network in memory: takes texts, or places of pictures, and gives a row for each."""


class Encoding:
    """An actor: loads the network once, then encodes and writes one part after another."""

    def __init__(
        self, storage: Storage, uri: str, parts: Shared[list[list[str]]], encoder: Encoder, train: TrainConfig
    ) -> None:
        torch.set_num_threads(train.cpus_per_worker)
        self._storage, self._uri = storage, uri
        self._parts = parts.get()
        self._encode = encoder.load(device_of(train.use_gpu))

    def __call__(self, number: str) -> Iterator[pa.Table]:
        """The rows of part `number`, after they were written."""
        sources = self._parts[int(number)]
        table = self._encode(sources)
        name = hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]
        self._storage.write_table(join(self._uri, PARTS.replace("*", name)), table)
        yield table


def encode(
    storage: Storage,
    uri: str,
    parts: list[list[str]],
    encoder: Encoder,
    train: TrainConfig,
    told: str,
    progress: Progress | None,
) -> Iterator[pa.Table]:
    """The rows of all parts; what a killed run wrote stays below `uri`."""
    settings = {"storage": storage, "uri": uri, "parts": Shared(parts), "encoder": encoder, "train": train}
    bar = progress.add_task(f"content: {told} encoded", total=sum(map(len, parts))) if progress else None
    for table in map_parts([str(number) for number in range(len(parts))], Encoding, settings, train):
        yield table
        if progress and bar is not None:
            progress.advance(bar, table.num_rows)


def known_vectors(dataset: Dataset, key: str, column: str) -> Vectors:
    """What was encoded before: parts of a run that was killed, and all datasets of the project."""
    siblings, storage = dataset.uri.rpartition("/")[0], dataset.storage
    found: Vectors = {}
    for name in (PARTS, VECTORS):
        for entry in storage.list_files(join(siblings, "*", FEATURES, key, name)):
            found |= by_hash(storage.read_table(entry.uri), column)
    return found


def by_hash(table: pa.Table, column: str) -> Vectors:
    """The vectors that are there."""
    there = table.filter(pa.compute.is_valid(table[Col.VECTOR]))
    return dict(zip(there[column].to_pylist(), vectors_in(there), strict=True))


def finish(storage: Storage, uri: str, table: pa.Table) -> None:
    """Write all vectors in one file, and let go of the parts."""
    storage.write_table(join(uri, VECTORS), table)
    for entry in storage.list_files(join(uri, PARTS)):
        storage.delete_tree(entry.uri)
