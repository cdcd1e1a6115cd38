"""Public logs (`interactions.parquet`: user_id, position, item_id) as leave-one-out sequences in memory.

Their catalogues (`items.parquet`) as `prepare` would have them, and the vectors of their texts.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ray_app.baselines import item_texts
from ray_app.config import Config, StorageConfig
from ray_app.content.encoder import encoder_folder, load_encoder
from ray_app.schema import Col, sequences_schema
from ray_app.storage import Storage


def load_sequences(folder: Path) -> tuple[pa.Table, int, np.ndarray]:
    """Sequences (last event test, second to last validation), the number of items, and train counts `[num_items]`."""
    log = pq.read_table(folder / "interactions.parquet").sort_by([("user_id", "ascending"), ("position", "ascending")])
    users, user = np.unique(log["user_id"].to_numpy(), return_inverse=True)
    items, item = np.unique(log["item_id"].to_numpy(), return_inverse=True)
    lengths = np.bincount(user)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    position = np.arange(len(item)) - np.repeat(offsets[:-1], lengths)

    def lists(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, kind))

    columns = {
        Col.USER: pa.array(users),
        Col.ITEMS: lists(item + 1, pa.int32()),
        Col.TIMES: lists(position, pa.int64()),
        Col.WEIGHTS: lists(np.ones(len(item)), pa.float32()),
        Col.ORDERS: lists(position, pa.int32()),
        Col.NUM_TRAIN: pa.array(lengths - 2, pa.int32()),
        Col.NUM_VALIDATION: pa.array(np.ones(len(users)), pa.int32()),
    }
    table = pa.table(columns, schema=sequences_schema(pa.array(users).type))
    in_train = position < np.repeat(lengths - 2, lengths)
    return table, len(items), np.bincount(item[in_train], minlength=len(items))


def read_items(folder: Path, config: Config) -> pa.Table:
    """The catalogue as `prepare` would have it: row i is item index i + 1."""
    table = pq.read_table(folder / "items.parquet").sort_by("item_id")
    names = config.data.item_columns.model_dump()

    def column(ours: str) -> pa.Array:
        theirs = names[ours]
        values = table[theirs].to_pylist() if theirs in table.column_names else [None] * len(table)
        return pa.array([", ".join(value) if isinstance(value, list) else value for value in values], pa.string())

    return pa.table(
        {Col.ITEM: table["item_id"]} | {n: column(n) for n in (Col.TITLE, Col.DESCRIPTION, Col.BRAND, Col.CATEGORY)}
    )


def read_content(folder: Path, config: Config, vectors: Path) -> np.ndarray:
    """Text vectors of the catalogue, read from `vectors` (.npy), which is written where it is not there yet."""
    if not vectors.exists():
        assert config.content is not None, "the configuration has no content section"
        texts = item_texts(read_items(folder, config))
        with encoder_folder(Storage.from_config(StorageConfig()), config.content) as encoder:
            found = load_encoder(encoder, config.content, torch.device("cpu")).encode(texts)
        vectors.parent.mkdir(parents=True, exist_ok=True)
        np.save(vectors, np.where(np.array([bool(text) for text in texts])[:, None], found, np.float16(0)))
    read: np.ndarray = np.load(vectors)
    return read
