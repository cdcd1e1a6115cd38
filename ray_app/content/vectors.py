"""Vectors of texts and pictures of a prepared dataset as its items have them. Read without Ray."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_app.baselines.neighbors import item_texts
from ray_app.data.dataset import Dataset
from ray_app.schema import Col, features_schema

HASH = pa.binary(16)


def text_hash(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def item_content(dataset: Dataset) -> NDArray[np.float16] | None:
    """Text vectors of all items in the order of their index, `[items, dim]`, zeros where an item has no text.

    None where the dataset goes without texts.
    """
    return _vectors_of(dataset, dataset.features, item_texts)


def item_pictures(dataset: Dataset) -> NDArray[np.float16] | None:
    """Picture vectors, as `item_content`."""
    return _vectors_of(dataset, dataset.picture_features, lambda items: items[Col.IMAGE].to_pylist())


def features_table(digests: Sequence[bytes], vectors: NDArray[np.float16]) -> pa.Table:
    """Rows of `schema.features_schema`."""
    dim = vectors.shape[1]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    return pa.table([pa.array(digests, HASH), lists], schema=features_schema(dim))


def vectors_in(table: pa.Table) -> NDArray[np.float16]:
    """The vectors of a table of `schema.features_schema`, `[rows, dim]`."""
    column = table[Col.VECTOR].combine_chunks()
    flat: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size)


def _vectors_of(
    dataset: Dataset, uri: str | None, said: Callable[[pa.Table], Sequence[str | None]]
) -> NDArray[np.float16] | None:
    """The vectors at `uri` of what is `said` of each item."""
    if uri is None:
        return None
    table = dataset.storage.read_table(uri, [Col.TEXT_HASH, Col.VECTOR])
    vectors = vectors_in(table)
    hashes = pa.array([text_hash(one) if one else None for one in said(dataset.items())], HASH)
    place = pa.compute.index_in(hashes, value_set=table[Col.TEXT_HASH]).fill_null(-1).to_numpy()
    found: NDArray[np.float16] = vectors[place]
    found[place < 0] = 0
    return found
