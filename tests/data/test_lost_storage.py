"""A storage that fails while a file is read: the job stops, and nothing is taken for a broken file."""

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from s3_server import running

from ray_app.config import StorageConfig
from ray_app.data.files import Piece, read_piece
from ray_app.errors import StorageError
from ray_app.storage import Storage, join

ROWS = 1_000_000


@pytest.mark.s3
def test_a_server_lost_in_the_middle_of_a_file_is_no_broken_file(tmp_path: Path) -> None:
    """Its rows were quarantined as unreadable, and the next run found a data set without them."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(tmp_path / "s3"))
        storage = Storage.from_config(
            StorageConfig(
                path=f"s3://{server.bucket}/raw",
                endpoint=server.endpoint,
                region="us-east-1",
                access_key_id=server.access_key_id,
                secret_access_key=server.secret_access_key,
            )
        )
        uri = join(storage.path, "events.parquet")
        storage.write_table(uri, pa.table({"user_id": np.random.default_rng(0).random(ROWS)}))
        rows = read_piece(storage, Piece(0, uri, "parquet", 0, ROWS, (0, 1)), ["user_id"], [])
        assert len(next(rows).rows) > 0
        stack.close()
        with pytest.raises(StorageError, match=r"events\.parquet: cannot be read to its end: AWS Error"):
            list(rows)
