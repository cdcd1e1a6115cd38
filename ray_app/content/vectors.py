"""Text vectors of a prepared dataset as its items have them. Read without Ray."""

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_app.baselines.neighbors import item_texts
from ray_app.data.dataset import Dataset
from ray_app.schema import Col

HASH = pa.binary(16)


def text_hash(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def item_content(dataset: Dataset) -> NDArray[np.float16] | None:
    """Text vectors of all items in the order of their index, `[items, dim]`, zeros where an item has no text.

    None where the dataset goes without content.
    """
    if dataset.features is None:
        return None
    table, items = dataset.storage.read_table(dataset.features), dataset.items()
    vectors = vectors_in(table)
    hashes = pa.array([text_hash(text) for text in item_texts(items)], HASH)
    place = pa.compute.index_in(hashes, value_set=table[Col.TEXT_HASH]).fill_null(-1).to_numpy()
    found: NDArray[np.float16] = np.where(place[:, None] >= 0, vectors[place], np.float16(0))
    return found


def vectors_in(table: pa.Table) -> NDArray[np.float16]:
    """The vectors of a table of `schema.features_schema`, `[rows, dim]`."""
    column = table[Col.VECTOR].combine_chunks()
    flat: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)
