"""Sequence parts as a stream of Arrow tables, in order: by Ray Data on a cluster, or directly."""

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from ray_app.data.sequences import COLUMNS
from ray_app.storage import Storage

BATCH_USERS = 65_536


def read_tables(storage: Storage, uris: list[str]) -> Iterator[pa.Table]:
    """Read the parts one after another in this process."""
    for uri in uris:
        yield storage.read_table(uri, COLUMNS)


def stream_tables(storage: Storage, uris: list[str]) -> Iterator[pa.Table]:
    """Read the parts through Ray Data, ahead of the consumer and in parallel, in the order given.

    Parts are read by our own function and not by `read_parquet`: that starts a pool of footer readers on every
    execution, and it would not keep to the order. The tasks reserve no CPU, since training may hold them all. Where no
    Ray is connected, this process reads them.
    """
    import ray  # noqa: PLC0415 (the plain loop runs without it)

    if not uris:
        return
    if not ray.is_initialized():
        yield from read_tables(storage, uris)
        return
    import ray.data  # noqa: PLC0415 (takes seconds)

    parts = ray.data.from_items([{"uri": uri} for uri in uris], override_num_blocks=len(uris))
    tables = parts.map_batches(
        partial(_read, storage),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0,
        compute=ray.data.TaskPoolStrategy(size=min(4, len(uris))),
    )
    tables.context.execution_options.preserve_order = True
    tables.context.enable_progress_bars = False
    yield from tables.iter_batches(batch_size=BATCH_USERS, batch_format="pyarrow", prefetch_batches=1)


def _read(storage: Storage, batch: pa.Table) -> Iterator[pa.Table]:
    for uri in batch["uri"].to_pylist():
        yield storage.read_table(uri, COLUMNS)
