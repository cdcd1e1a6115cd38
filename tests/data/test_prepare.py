"""`prepare` from files to a finished dataset, on a real Ray cluster or in this process."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.progress import Progress

from ray_app.config import StorageConfig
from ray_app.data.dataset import Dataset, open_dataset
from ray_app.data.prepare import prepare
from ray_app.data_config import DataConfig
from ray_app.errors import DataError
from ray_app.schema import Col, items_schema, sequences_schema
from ray_app.storage import Storage, join

from .conftest import Prepare, histories, quarantine

DAY_S = 86_400
START_S = 1_500_000_000
SPLIT = {"validation_days": 10, "test_days": 10}


def random_log(seed: int, rows: int = 3000, users: int = 60, items: int = 40, days: int = 100) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "user_id": rng.integers(users, size=rows),
            "item_id": np.char.add("sku-", rng.integers(items, size=rows).astype(str)),
            "timestamp": START_S + np.sort(rng.integers(days * DAY_S, size=rows)),
            "quantity": rng.choice([1.0, 2.0, -1.0], size=rows, p=[0.8, 0.15, 0.05]),
        }
    )


def files_below(storage: Storage, uri: str) -> dict[str, bytes]:
    return {file.uri[len(uri) :]: storage.read_bytes(file.uri) for file in storage.list_files(uri)}


def write_three_ways(log: pa.Table, folder: Path) -> None:
    """A third each of parquet in small row groups, CSV, and JSON lines."""
    import pyarrow.csv

    third = log.num_rows // 3
    pq.write_table(log.slice(0, third), folder / "a.parquet", row_group_size=100)
    pyarrow.csv.write_csv(log.slice(third, third), folder / "b.csv")
    lines = (json.dumps(row) + "\n" for row in log.slice(2 * third).to_pylist())
    (folder / "c.jsonl").write_text("".join(lines))


@pytest.mark.cluster
def test_the_same_log_in_any_format_on_any_storage(
    ray_cluster: None, prepared: Prepare, storage: Storage, tmp_path: Path
):
    log, whole, mixed = random_log(0), tmp_path / "whole", tmp_path / "mixed"
    whole.mkdir()
    mixed.mkdir()
    pq.write_table(log, whole / "log.parquet")
    write_three_ways(log, mixed)
    storage.upload_folder(mixed, join(storage.path, "raw"))
    with Progress(disable=True) as progress:
        config = DataConfig.model_validate({"events": join(storage.path, "raw"), "split": SPLIT})
        elsewhere = prepare(storage, "shop", config, progress)
        assert [task.description for task in progress.tasks] == ["reading", "sorting", "writing"]
        assert progress.finished
    one = prepared(whole, split=SPLIT)
    counts = one.manifest.counts
    assert elsewhere.manifest.counts == counts
    assert histories(elsewhere) == histories(one)
    assert elsewhere.items() == one.items()
    assert [source.rows for source in elsewhere.manifest.sources] == [1000, 1000, 1000]
    returns = int((np.asarray(log["quantity"]) < 0).sum())
    assert counts.quarantined["return"] == returns
    assert 0 < counts.quarantined["returned"] < returns
    assert counts.rows_in == 3000 == counts.rows_kept + counts.rows_quarantined
    assert len(quarantine(elsewhere)) == counts.rows_quarantined


def test_what_a_dataset_holds(prepared: Prepare, tmp_path: Path):
    log = random_log(1)
    pq.write_table(log, tmp_path / "log.parquet")
    dataset = prepared(tmp_path / "log.parquet", split=SPLIT)
    manifest, counts = dataset.manifest, dataset.manifest.counts
    last = int(np.asarray(log["timestamp"])[np.asarray(log["quantity"]) > 0].max())
    assert manifest.cutoffs.test_start == (last - 10 * DAY_S) * 1_000_000
    assert manifest.cutoffs.validation_start == (last - 20 * DAY_S) * 1_000_000
    assert (dataset.user_type, dataset.item_type) == (pa.int64(), pa.string())
    items = dataset.items()
    assert items.schema == items_schema(pa.string())
    assert items[Col.ITEM].to_pylist() == sorted(items[Col.ITEM].to_pylist())
    assert items[Col.ITEM_INDEX].to_pylist() == list(range(1, dataset.num_items + 1))
    assert sum(items[Col.TRAIN_COUNT].to_pylist()) == counts.train_events
    assert len(dataset.part_uris) == 16
    tables = [dataset.storage.read_table(uri) for uri in dataset.part_uris]
    for part, table in zip(manifest.parts, tables, strict=True):
        assert table.schema == sequences_schema(pa.int64())
        train = table[Col.NUM_TRAIN].to_pylist()
        assert (part.users, part.train_events) == (table.num_rows, sum(train))
        assert part.train_targets == sum(max(0, n - 1) for n in train)
    rows = [row for table in tables for row in table.to_pylist()]
    assert counts.users == len(rows) == 60
    for row in rows:
        times, bounds = row[Col.TIMES], (manifest.cutoffs.validation_start, manifest.cutoffs.test_start)
        assert times == sorted(times)
        assert row[Col.NUM_TRAIN] == sum(time < bounds[0] for time in times)
        assert row[Col.NUM_VALIDATION] == sum(bounds[0] <= time < bounds[1] for time in times)
    assert manifest.data["split"]["test_days"] == 10
    assert not dataset.storage.list_files(join(dataset.uri, "staging"))
    assert open_dataset(dataset.storage, dataset.uri).manifest == manifest


def test_nothing_before_a_cutoff_depends_on_what_comes_after(prepared: Prepare, tmp_path: Path):
    """Vocabulary, counts and train sequences stay the same to the byte when all that follows is scrambled."""
    log = random_log(2)
    cutoffs = {name: f"{np.datetime64(START_S + day * DAY_S, 's')}" for name, day in
               (("validation_start", 60), ("test_start", 80))}  # fmt: skip
    early = np.asarray(log["timestamp"]) < START_S + 60 * DAY_S
    rng = np.random.default_rng(3)
    scrambled = {
        "user_id": rng.integers(1000, size=log.num_rows),
        "item_id": np.char.add("future-", rng.integers(1000, size=log.num_rows).astype(str)),
        "timestamp": rng.permutation(np.asarray(log["timestamp"])[~early].repeat(9)[: log.num_rows]),
        "quantity": rng.choice([1.0, 5.0, -1.0, -2.0], size=log.num_rows),
    }
    late = {name: np.where(early, np.asarray(log[name]), values) for name, values in scrambled.items()}
    # Returns after the cutoff of things bought before it, which must not reach back.
    late["item_id"][~early][:300] = np.asarray(log["item_id"])[early][:300]
    datasets = []
    for name, table in (("a", log), ("b", pa.table(late))):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        datasets.append(prepared(tmp_path / f"{name}.parquet", split=cutoffs, max_quarantined_fraction=0.5))
    first, second = datasets
    assert first.manifest.counts.test_events != second.manifest.counts.test_events
    read = first.storage.read_bytes
    assert read(join(first.uri, "items.parquet")) == read(join(second.uri, "items.parquet"))

    def train(dataset: Dataset) -> dict[object, object]:
        lists = (Col.ITEMS, Col.TIMES, Col.WEIGHTS, Col.ORDERS)
        rows = histories(dataset).items()
        return {user: [row[name][: row[Col.NUM_TRAIN]] for name in lists] for user, row in rows if row[Col.NUM_TRAIN]}

    assert train(first) == train(second)


def test_a_second_call_finds_the_first_ones_work(prepared: Prepare, tmp_path: Path):
    pq.write_table(random_log(4), tmp_path / "log.parquet")
    first = prepared(tmp_path / "log.parquet", split=SPLIT)
    before = {file: Path(file.uri).stat().st_mtime_ns for file in first.storage.list_files(first.uri)}
    started = time.process_time()
    assert prepared(tmp_path / "log.parquet", split=SPLIT) == first
    assert time.process_time() - started < 0.5
    assert before == {file: Path(file.uri).stat().st_mtime_ns for file in first.storage.list_files(first.uri)}
    assert prepared(tmp_path / "log.parquet", split=SPLIT, max_user_events=7).uri != first.uri
    pq.write_table(random_log(5), tmp_path / "log.parquet")
    assert prepared(tmp_path / "log.parquet", split=SPLIT).uri != first.uri


def test_a_run_that_was_cut_short_is_repeated(prepared: Prepare, tmp_path: Path):
    """Without its manifest a dataset does not count, and what lies about does not get into the next one."""
    pq.write_table(random_log(6), tmp_path / "log.parquet")
    whole = prepared(tmp_path / "log.parquet", split=SPLIT)
    files = files_below(whole.storage, whole.uri)
    whole.storage.delete_tree(join(whole.uri, "manifest.json"))
    whole.storage.delete_tree(join(whole.uri, "sequences/part-00003.parquet"))
    whole.storage.write_bytes(join(whole.uri, "quarantine/part-read-99999-000.parquet"), b"leftover")
    whole.storage.write_bytes(join(whole.uri, "staging/events-00000-000.parquet"), b"leftover")
    with pytest.raises(DataError, match="no complete dataset"):
        open_dataset(whole.storage, whole.uri)
    assert prepared(tmp_path / "log.parquet", split=SPLIT) == whole
    assert files_below(whole.storage, whole.uri) == files


KILLED = """
import sys
from ray_app.config import DataConfig
from ray_app.data.prepare import prepare
from ray_app.storage import Storage
prepare(Storage(path=sys.argv[1]), "shop", DataConfig(events=sys.argv[2], split={"kind": "leave_one_out"}))
"""


def test_a_job_killed_in_the_middle_is_completed_by_the_next(prepared: Prepare, tmp_path: Path):
    log = random_log(7, rows=60_000, users=3000, items=500)
    pq.write_table(log.drop_columns("quantity"), tmp_path / "log.parquet")
    job = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "out"), str(tmp_path / "log.parquet")])
    try:
        deadline = time.monotonic() + 280
        while not list(tmp_path.glob("out/shop/datasets/*/staging/users-*")):
            assert job.poll() is None, "the job ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        job.kill()
        job.wait()
    assert not list(tmp_path.glob("out/shop/datasets/*/manifest.json"))
    dataset = prepared(tmp_path / "log.parquet", split={"kind": "leave_one_out"}, now=None)
    assert list(tmp_path.glob("out/shop/datasets/*")) == [Path(dataset.uri)]
    assert dataset.manifest.counts.rows_in == 60_000
    assert dataset.manifest.counts.test_events == dataset.manifest.counts.users == 3000


def test_another_version_of_the_manifest_is_refused(tmp_path: Path):
    storage = Storage.from_config(StorageConfig(path=str(tmp_path)))
    storage.write_bytes(str(tmp_path / "manifest.json"), b'{"schema_version": 0}')
    with pytest.raises(DataError, match="not a manifest of this version"):
        open_dataset(storage, str(tmp_path))
