"""A prepared dataset written out by hand, for tests that need no Ray."""

import json
from collections import Counter

import pyarrow as pa

from ray_app.config import dump
from ray_app.data.dataset import Dataset, open_dataset
from ray_app.data_config import DataConfig
from ray_app.schema import SCHEMA_VERSION, items_schema, sequences_schema
from ray_app.storage import Storage, join

DAY_US = 86_400_000_000
Event = tuple[int, float, int]
"""Item index, day, ordinal of the order."""


def write_dataset(
    storage: Storage, uri: str, users: dict[str, list[Event]], items: list[dict], unit: str = "auto", parts: int = 2
) -> Dataset:
    """Users with their events, in files of sequences; the last event of each is its test part."""
    rows = [
        {
            "user_id": user,
            "items": [item for item, _, _ in events],
            "times": [int(day * (1 if unit == "order" else DAY_US)) for _, day, _ in events],
            "weights": [1.0] * len(events),
            "orders": [order for _, _, order in events],
            "num_train": max(len(events) - 1, 0),
            "num_validation": 0,
        }
        for user, events in users.items()
    ]
    records = []
    for number in range(parts):
        part = rows[number::parts]
        path = f"sequences/part-{number}.parquet"
        storage.write_table(join(uri, path), pa.Table.from_pylist(part, sequences_schema(pa.string())))
        records.append({"path": path, "users": len(part), "train_events": 0, "train_targets": 0})
    id_type = pa.string() if isinstance(items[0]["item_id"], str) else pa.int64()
    trained = Counter(item for events in users.values() for item, _, _ in events[:-1])
    described = [{"item_index": n, "train_count": trained[n], **item} for n, item in enumerate(items, 1)]
    storage.write_table(join(uri, "items.parquet"), pa.Table.from_pylist(described, items_schema(id_type)))
    events = sum(map(len, users.values()))
    counts = {"rows_in": events, "rows_kept": events, "rows_quarantined": 0, "quarantined": {}, "users": len(users)}
    counts |= {"items": len(items), "train_events": 0, "validation_events": 0, "test_events": 0}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": uri.rpartition("/")[2],
        "data": dump(DataConfig(timestamp_unit=unit)),
        "sources": [],
        "counts": counts | {"unknown_item_events": 0},
        "catalog": None,
        "id_types": {"user_id": "string", "item_id": str(id_type)},
        "cutoffs": {"validation_start": None, "test_start": None},
        "notes": [],
        "parts": records,
    }
    storage.write_bytes(join(uri, "manifest.json"), json.dumps(manifest).encode())
    return open_dataset(storage, uri)
