"""Public logs (`interactions.parquet`: user_id, position, item_id) as leave-one-out sequences in memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_app.schema import Col, sequences_schema


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
