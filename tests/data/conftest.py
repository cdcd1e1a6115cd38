"""Logs written to disk and prepared for real."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data_config import DataConfig
from ray_app.schema import Col
from ray_app.storage import Storage, join

Prepare = Callable[..., Dataset]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """`prepared(events, key=value)`: the dataset of a log with these settings; on Ray where a test asks for it too."""

    def run(events: Path | list[Path], **data: object) -> Dataset:
        paths = [str(path) for path in (events if isinstance(events, list) else [events])]
        config = DataConfig.model_validate({"events": paths, "now": "2020-01-01T00:00:00Z"} | data)
        return prepare(Storage(path=str(tmp_path / "out")), "shop", config)

    return run


def quarantine(dataset: Dataset) -> list[dict[str, object]]:
    """All refused rows, in the order of file and row."""
    files = dataset.storage.list_files(join(dataset.uri, "quarantine"))
    rows = [row for file in files for row in dataset.storage.read_table(file.uri).to_pylist()]
    return sorted(rows, key=lambda row: (row[Col.SOURCE], -1 if row[Col.ROW] is None else row[Col.ROW]))


def histories(dataset: Dataset) -> dict[object, dict[str, object]]:
    """Every user's row, with item ids in place of indices (None for an unknown item)."""
    ids = [None, *dataset.items()[Col.ITEM].to_pylist()]
    table = pa.concat_tables([dataset.storage.read_table(uri) for uri in dataset.part_uris])
    rows = {row[Col.USER]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows, "a user stands in two places"
    return {user: row | {Col.ITEMS: [ids[k] for k in row[Col.ITEMS]]} for user, row in rows.items()}
