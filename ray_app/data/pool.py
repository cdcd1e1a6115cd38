"""Work on sequence parts by a pool of actors: what is costly to load is loaded once per actor, or once without Ray."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray

from ray_app.train_config import TrainConfig

Work = Callable[[str], Iterator[pa.Table]]
"""Takes the URI of a part and gives tables."""
Value = TypeVar("Value")
_URI = "uri"


def map_parts(
    uris: list[str], load: Callable[..., Work], settings: dict[str, Any], train: TrainConfig
) -> Iterator[pa.Table]:
    """What `load(**settings)` makes of each part, in the order of the parts.

    The pool begins with one actor and grows to `train.num_workers`, so that it also runs where fewer are free. Actors
    read the parts themselves: no reader waits for a CPU that they hold. Where no Ray is connected there is no pool, and
    this process does the work.
    """
    if ray.is_initialized():
        yield from _by_actors(uris, load, settings, train)
        return
    work = load(**settings)
    for uri in uris:
        yield from work(uri)


def _by_actors(
    uris: list[str], load: Callable[..., Work], settings: dict[str, Any], train: TrainConfig
) -> Iterator[pa.Table]:
    import ray.data  # noqa: PLC0415 (takes seconds)

    parts = ray.data.from_items([{_URI: uri} for uri in uris], override_num_blocks=len(uris))
    tables = parts.map_batches(
        _Actor,
        fn_constructor_args=(load, settings),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=train.num_workers),
        num_cpus=train.cpus_per_worker,
        num_gpus=1 if train.use_gpu else None,
    )
    tables.context.execution_options.preserve_order = True
    tables.context.enable_progress_bars = False
    for table in tables.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
        assert isinstance(table, pa.Table)
        yield table


class Shared(Generic[Value]):
    """A large value among the settings: held once by a machine, and not by each actor."""

    def __init__(self, value: Value) -> None:
        self._value: Any = ray.put(value) if ray.is_initialized() else value

    def get(self) -> Value:
        """The value, on any machine."""
        found: Value = ray.get(self._value) if isinstance(self._value, ray.ObjectRef) else self._value
        return found


class _Actor:
    def __init__(self, load: Callable[..., Work], settings: dict[str, Any]) -> None:
        self._work = load(**settings)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for uri in batch[_URI]:
            yield from self._work(str(uri))
