import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_app.data.files import Piece
from ray_app.data.raw_files import RawFile, find_sources
from ray_app.data.sources import Source, check_columns, cut, inspect
from ray_app.data_config import Columns
from ray_app.errors import DataError
from ray_app.storage import FileEntry, Storage


@pytest.fixture
def disk(tmp_path: Path) -> Storage:
    return Storage(path=str(tmp_path / "out"))


def names(found: list[RawFile]) -> list[str]:
    return [Path(file.entry.uri).name for file in found]


def test_folders_globs_and_names_each_file_once(disk: Storage, tmp_path: Path):
    for name in ("b.csv", "a.parquet", "deep/c.jsonl.gz", "README.md", "_SUCCESS", "d.TSV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_sources(disk, (str(tmp_path), str(tmp_path / "*.csv"), str(tmp_path / "b.csv")), "auto", "data.events")
    assert names(found) == ["a.parquet", "b.csv", "d.TSV", "c.jsonl.gz"]
    assert [file.format for file in found] == ["parquet", "csv", "csv", "jsonl"]
    assert names(find_sources(disk, (str(tmp_path / "README.md"),), "csv", "data.events")) == ["README.md"]


def test_nothing_to_read_names_the_place(disk: Storage, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for pattern in ("empty", "absent", "*.csv"):
        with pytest.raises(DataError, match=f"{pattern.replace('*', '.')}: no files there.*data.events"):
            find_sources(disk, (str(tmp_path / pattern),), "auto", "data.events")
    with pytest.raises(DataError, match=r"data\.events is not set"):
        find_sources(disk, (), "auto", "data.events")
    (tmp_path / "empty" / "x.xls").write_text("x")
    with pytest.raises(DataError, match=r"data\.format"):
        find_sources(disk, (str(tmp_path / "empty"),), "auto", "data.events")


def test_a_look_into_files_of_every_kind(disk: Storage, tmp_path: Path):
    pq.write_table(pa.table({"u": range(10), "t": range(10)}), tmp_path / "a.parquet", row_group_size=4)
    (tmp_path / "b.csv").write_text("u;t\n1;13/1/2010\n2;1/2/2010\n")
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"u": 1, "x": k}) for k in range(3)))
    (tmp_path / "d.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    (tmp_path / "e.csv.gz").write_text("not gzip")
    (tmp_path / "f.csv").write_text("")
    (tmp_path / "g.csv").write_bytes(b"u,t\r1,2\r")
    (tmp_path / "h.jsonl").write_text('{"u": 1, "\\ud800": 2}\n')
    found = inspect(disk, find_sources(disk, (str(tmp_path),), "auto", "data.events"), "t")
    assert [source.columns for source in found] == [("u", "t"), ("u", "t"), ("u", "x"), (), (), (), (), ("u", "?")]
    assert found[0].row_groups == (4, 4, 2)
    assert found[1].day_places == (1, 0)
    assert [source.problem is None for source in found] == [True] * 3 + [False] * 4 + [True]


def source(*columns: str, uri: str = "log.csv") -> Source:
    return Source(FileEntry(uri, 400, ""), "csv", columns)


def test_a_column_that_no_file_has_is_named_with_its_setting():
    columns = Columns(user_id="CustomerID", price="UnitPrice")
    with pytest.raises(DataError) as error:
        check_columns([source("Customer", "item_id", "timestamp")], columns, "data.columns", ("user_id", "item_id"))
    assert str(error.value).splitlines() == [
        "no column 'CustomerID' (data.columns.user_id); there are: Customer, item_id, timestamp",
        "no column 'UnitPrice' (data.columns.price); there are: Customer, item_id, timestamp",
    ]


def test_a_column_that_some_files_lack_is_noted():
    files = [source("user_id", "item_id", "price"), source("user_id", "item_id", uri="old.csv")]
    notes = check_columns(files, Columns(), "data.columns", ("user_id", "item_id"))
    assert notes == ["'price' (data.columns.price) is missing in 1 files, for example old.csv."]


def test_small_files_share_a_chunk_and_large_ones_are_cut_at_row_groups():
    entry = FileEntry("x", 4000, "")
    files = [
        *[Source(entry, "csv", ("u",))] * 3,  # about 100 rows each
        Source(entry, "parquet", ("u",), (150, 150, 10)),
        Source(entry, "parquet", (), problem="truncated"),
        Source(entry, "parquet", ("u",), ()),
    ]
    assert cut(files, 200) == [
        [Piece(0, "x", "csv", num_rows=100), Piece(1, "x", "csv", num_rows=100)],
        [Piece(2, "x", "csv", num_rows=100)],
        [Piece(3, "x", "parquet", 0, 150, (0, 1))],
        [Piece(3, "x", "parquet", 150, 160, (1, 3))],
    ]
