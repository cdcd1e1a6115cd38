"""Work on sequence parts by a pool of actors: what is costly to load is loaded once per actor."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from ray_app.config import TrainConfig

URI = "uri"
Worker = Callable[..., Callable[[pa.Table], Iterator[pa.Table]]]
"""A class whose instances take a table with one row, the `URI` of a part, and give tables."""


def map_parts(uris: list[str], worker: Worker, settings: dict[str, Any], train: TrainConfig) -> Iterator[pa.Table]:
    """What `worker(**settings)` makes of each part, in the order of the parts.

    The pool begins with one actor and grows to `train.num_workers`, so that it also runs where fewer are free. Actors
    read the parts themselves, and no reader waits for a CPU that they hold.
    """
    import ray

    parts = ray.data.from_items([{URI: uri} for uri in uris], override_num_blocks=len(uris))
    tables = parts.map_batches(
        worker,
        fn_constructor_kwargs=settings,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=train.num_workers),
        num_cpus=train.cpus_per_worker,
        num_gpus=1 if train.use_gpu else None,
    )
    tables.context.execution_options.preserve_order = True
    tables.context.enable_progress_bars = False
    yield from tables.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
