"""Text vectors of a prepared dataset: encoded once by Ray Data actors, and kept under its `features/`.

Each distinct text is encoded once, whoever has it: what any dataset of the same project holds of the same encoder is
taken over, so that tomorrow's log costs its new items alone. Killed in the middle, it goes on with what is missing.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from ray_app.baselines.neighbors import item_texts
from ray_app.content.encoder import TextEncoder, encoder_folder, encoder_key, load_encoder, settled
from ray_app.content.vectors import HASH, text_hash, vectors_in
from ray_app.data.dataset import FEATURES, Dataset
from ray_app.data.pool import Shared, map_parts
from ray_app.data_config import ContentConfig
from ray_app.errors import DataError
from ray_app.schema import Col, features_schema
from ray_app.storage import Storage, join
from ray_app.train_config import TrainConfig

TEXTS_PER_PART = 2048
"""What a killed run loses of each actor, at most."""
VECTORS = "vectors.parquet"


def with_content(
    dataset: Dataset, content: ContentConfig | None, train: TrainConfig, progress: Progress | None = None
) -> Dataset:
    """The dataset with the vectors of its items' texts, which are found or made; where there is no content, as it is.

    Raises:
        ConfigError: there is no such encoder, or no library to read it.
        DataError: the encoder cannot be read, or no item has a text.
    """
    if content is None:
        return dataset
    storage, content = dataset.storage, settled(content)
    with encoder_folder(storage, content) as folder:
        key = encoder_key(folder, content.max_tokens)
        uri = join(dataset.uri, FEATURES, key)
        found = replace(dataset, features=join(uri, VECTORS))
        if storage.exists(join(uri, VECTORS)):
            return found
        texts = {text_hash(text): text for text in item_texts(dataset.items()) if text}
        if not texts:
            raise DataError(
                f"{dataset.uri}: no item has a title, description, brand or category, so there is nothing to encode; "
                "look at data.items and data.item_columns, or leave content out"
            )
        known = _known(storage, dataset, key)
        missing = {digest: text for digest, text in texts.items() if digest not in known}
        if missing:
            load_encoder(folder, content, torch.device("cpu"))  # a sentence here, a dead actor there
            known |= _encode(storage, uri, missing, content, train, progress)
    table = _table(list(texts), np.stack([known[digest] for digest in texts]))
    storage.write_table(join(uri, VECTORS), table)
    for entry in storage.list_files(join(uri, "part-*.parquet")):
        storage.delete_tree(entry.uri)
    return found


class Encoding:
    """An actor: loads the encoder once, then encodes and writes one part of the texts after another."""

    def __init__(
        self, storage: Storage, uri: str, texts: Shared[dict[bytes, str]], content: ContentConfig, train: TrainConfig
    ) -> None:
        torch.set_num_threads(train.cpus_per_worker)
        self._storage, self._uri = storage, uri
        self._texts = texts.get()
        self._digests = sorted(self._texts, key=lambda digest: -len(self._texts[digest]))
        with encoder_folder(storage, content) as folder:
            device = torch.device("cuda" if train.use_gpu else "cpu")
            self._encoder: TextEncoder = load_encoder(folder, content, device)

    def __call__(self, start: str) -> Iterator[pa.Table]:
        """The part that begins at text number `start`, in the order of their lengths, after it was written."""
        digests = self._digests[int(start) : int(start) + TEXTS_PER_PART]
        table = _table(digests, self._encoder.encode([self._texts[digest] for digest in digests]))
        name = hashlib.sha256(b"".join(digests)).hexdigest()[:16]
        self._storage.write_table(join(self._uri, f"part-{name}.parquet"), table)
        yield table


def _encode(
    storage: Storage,
    uri: str,
    texts: dict[bytes, str],
    content: ContentConfig,
    train: TrainConfig,
    progress: Progress | None,
) -> dict[bytes, NDArray[np.float16]]:
    settings = {"storage": storage, "uri": uri, "texts": Shared(texts), "content": content, "train": train}
    bar = progress.add_task("content: texts encoded", total=len(texts)) if progress else None
    found: dict[bytes, NDArray[np.float16]] = {}
    for table in map_parts([str(start) for start in range(0, len(texts), TEXTS_PER_PART)], Encoding, settings, train):
        found |= _rows(table)
        if progress and bar is not None:
            progress.advance(bar, table.num_rows)
    return found


def _known(storage: Storage, dataset: Dataset, key: str) -> dict[bytes, NDArray[np.float16]]:
    """What was encoded before: parts of a run that was killed, and all datasets of the project."""
    siblings = dataset.uri.rpartition("/")[0]
    found: dict[bytes, NDArray[np.float16]] = {}
    for entry in storage.list_files(join(siblings, "*", FEATURES, key, "*.parquet")):
        found |= _rows(storage.read_table(entry.uri))
    return found


def _table(digests: list[bytes], vectors: NDArray[np.float16]) -> pa.Table:
    dim = vectors.shape[1]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    return pa.table([pa.array(digests, HASH), lists], schema=features_schema(dim))


def _rows(table: pa.Table) -> dict[bytes, NDArray[np.float16]]:
    return dict(zip(table[Col.TEXT_HASH].to_pylist(), vectors_in(table), strict=True))
