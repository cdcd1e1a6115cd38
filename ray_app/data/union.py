"""Several prepared source logs as one: catalogues side by side, users side by side, sources weighed by temperature.

Shops share no item ids, so an item keeps its source's number before its id; what carries meaning from one catalogue to
the next is content. A source of n train events counts as n^(1/temperature): by the weight of its events in the loss,
which in expectation is what sampling users at that rate would do, and leaves no event unread.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_app.config import fingerprint
from ray_app.data.dataset import ITEMS, MANIFEST, Counts, Cutoffs, Dataset, IdTypes, Manifest, Part, open_dataset
from ray_app.data.pool import map_parts
from ray_app.errors import DataError
from ray_app.schema import PAD, SCHEMA_VERSION, Col, items_schema, sequences_schema
from ray_app.storage import Storage, join
from ray_app.train_config import TrainConfig


class Shift(NamedTuple):
    """How a part of one source becomes a part of the union."""

    name: str
    source: int
    first_item: int
    """Index of the source's first item, less one."""
    weight: float


def unite(name: str, sources: Sequence[Dataset], temperature: float, train: TrainConfig) -> Dataset:
    """One dataset of several, found if it was made before; of one source, that source.

    Raises:
        DataError: sources of different splits.
    """
    if len(sources) == 1:
        return sources[0]
    storage = sources[0].storage
    kinds = {source.manifest.data["split"]["kind"] for source in sources}
    if len(kinds) > 1:
        raise DataError(
            f"pretrain: sources are split in different ways ({', '.join(sorted(kinds))}); give all one kind"
        )
    key = fingerprint(SCHEMA_VERSION, [source.manifest.fingerprint for source in sources], temperature)
    uri = join(storage.root(name), "datasets", key)
    if storage.exists(join(uri, MANIFEST)):
        return open_dataset(storage, uri)
    storage.delete_tree(uri)
    storage.write_table(join(uri, ITEMS), _items(sources))
    weights = source_weights([source.manifest.counts.train_events for source in sources], temperature)
    shifts, parts = _plan(sources, weights)
    for _ in map_parts(list(shifts), Shifting, {"storage": storage, "uri": uri, "shifts": shifts}, train):
        pass  # each part is written by the actor that made it
    manifest = _manifest(key, sources, parts, temperature)
    storage.write_bytes(join(uri, MANIFEST), manifest.model_dump_json(indent=1).encode())
    return Dataset(storage, uri, manifest)


def source_weights(train_events: Sequence[int], temperature: float) -> list[float]:
    """Weight of each source's events: n^(1/temperature) / n, up to what leaves the weight of all together as it was."""
    events = np.array(train_events, np.float64)
    wanted = events ** (1 / temperature)
    weights: list[float] = (wanted / wanted.sum() * events.sum() / events).tolist()
    return weights


class Shifting:
    """An actor: rewrites parts of sources as parts of the union."""

    def __init__(self, storage: Storage, uri: str, shifts: dict[str, Shift]) -> None:
        self._storage, self._uri, self._shifts = storage, uri, shifts

    def __call__(self, uri: str) -> Iterator[pa.Table]:
        """One row: the name of the part that was written."""
        shift = self._shifts[uri]
        self._storage.write_table(join(self._uri, shift.name), shifted(self._storage.read_table(uri), shift))
        yield pa.table({"part": [shift.name]})


def shifted(table: pa.Table, shift: Shift) -> pa.Table:
    """A part of a source with the union's item indices, weights and user ids."""

    def lists(name: str, values: pa.Array) -> pa.Array:
        column = table[name].combine_chunks()
        return pa.ListArray.from_arrays(column.offsets, values)

    items = pc.list_flatten(table[Col.ITEMS]).combine_chunks().to_numpy()
    weights = pc.list_flatten(table[Col.WEIGHTS]).combine_chunks().to_numpy()
    columns = {
        Col.USER: _numbered(table[Col.USER], shift.source),
        Col.ITEMS: lists(Col.ITEMS, pa.array(np.where(items == PAD, PAD, items + shift.first_item), pa.int32())),
        Col.WEIGHTS: lists(Col.WEIGHTS, pa.array(weights * shift.weight, pa.float32())),
    }
    schema = sequences_schema(pa.string())
    return pa.table([columns.get(field.name, table[field.name]) for field in schema], schema=schema)


def _numbered(ids: pa.ChunkedArray, source: int) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(str(source), ids.cast(pa.string()), "/")


def _items(sources: Sequence[Dataset]) -> pa.Table:
    schema = items_schema(pa.string())
    tables = []
    for number, source in enumerate(sources):
        items = source.items()
        ids = _numbered(items[Col.ITEM], number)
        tables.append(items.set_column(items.schema.get_field_index(Col.ITEM), schema.field(Col.ITEM), ids))
    joined = pa.concat_tables(tables)
    index = pa.array(np.arange(1, len(joined) + 1), pa.int32())
    return joined.set_column(0, schema.field(Col.ITEM_INDEX), index).cast(schema)


def _plan(sources: Sequence[Dataset], weights: Sequence[float]) -> tuple[dict[str, Shift], list[Part]]:
    shifts: dict[str, Shift] = {}
    parts: list[Part] = []
    first_item = 0
    for number, (source, weight) in enumerate(zip(sources, weights, strict=True)):
        for uri, part in zip(source.part_uris, source.manifest.parts, strict=True):
            name = part.path.replace("part-", f"part-{number}-")
            shifts[uri] = Shift(name, number, first_item, weight)
            parts.append(part.model_copy(update={"path": name}))
        first_item += source.num_items
    return shifts, parts


def _manifest(key: str, sources: Sequence[Dataset], parts: list[Part], temperature: float) -> Manifest:
    manifests = [source.manifest for source in sources]
    counts = [manifest.counts.model_dump(exclude={"quarantined"}) for manifest in manifests]
    reasons = {reason for manifest in manifests for reason in manifest.counts.quarantined}
    quarantined = {reason: sum(m.counts.quarantined.get(reason, 0) for m in manifests) for reason in sorted(reasons)}
    last = [max((c for c in cutoffs if c is not None), default=None) for cutoffs in zip(
        *((m.cutoffs.validation_start, m.cutoffs.test_start) for m in manifests), strict=True)]  # fmt: skip
    return Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint=key,
        data=manifests[0].data | {"temperature": temperature},
        sources=[record for manifest in manifests for record in manifest.sources],
        counts=Counts(**{name: sum(c[name] for c in counts) for name in counts[0]}, quarantined=quarantined),
        catalog=None,
        id_types=IdTypes(user_id="string", item_id="string"),
        cutoffs=Cutoffs(validation_start=last[0], test_start=last[1]),
        notes=[f"source {number}: {source.uri}" for number, source in enumerate(sources)],
        parts=parts,
    )
