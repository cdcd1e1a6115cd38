"""The shuffle: events of all files regrouped by user, on storage, so that memory holds one bucket and not the log.

Each chunk of the log writes files that hold one row group per bucket of users; a bucket is read by gathering its row
group from every file. Names depend on the work alone: whoever repeats it overwrites its own.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_app.data.files import open_parquet
from ray_app.data.ids import bucket_of
from ray_app.schema import Col
from ray_app.storage import Storage


class StagedFile(NamedTuple):
    """A staged file and the buckets that its row groups belong to, in order."""

    uri: str
    buckets: tuple[int, ...]


def stage(storage: Storage, uri: str, events: pa.Table, num_buckets: int) -> StagedFile:
    """Write events (`logs.EVENTS_SCHEMA`) grouped by the bucket of their user, in their order inside each bucket."""
    bucket = bucket_of(pa.concat_arrays(events[Col.USER].chunks), num_buckets)
    order = np.argsort(bucket, kind="stable")
    events = events.take(pa.array(order))
    present, start = np.unique(bucket[order], return_index=True)
    bounds = [*start.tolist(), len(order)]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, events.schema, compression="zstd") as writer:
        for first, last in pairwise(bounds):
            writer.write_table(events.slice(first, last - first), row_group_size=last - first)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())
    return StagedFile(uri, tuple(present.tolist()))


def gather(storage: Storage, parts: Iterable[tuple[str, int]], schema: pa.Schema) -> pa.Table:
    """One bucket: the given (staged file, row group) pairs, in order."""
    tables = [schema.empty_table()]
    for uri, group in parts:
        with open_parquet(storage, uri) as file:
            tables.append(file.read_row_group(group, use_threads=False))
    return pa.concat_tables(tables)
