"""What a real log may bring: every row of it is kept or quarantined with a reason, and nothing ends in a traceback."""

import gzip
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_app.config import StorageConfig
from ray_app.data.prepare import prepare
from ray_app.data_config import DataConfig
from ray_app.errors import DataError, StorageError
from ray_app.schema import PAD, Col
from ray_app.storage import Storage

from .conftest import Prepare, histories, quarantine

FROM_2019 = 1_546_300_800
LEAVE_ONE_OUT = {"kind": "leave_one_out"}


def rows(count: int, user: str = "u", first: int = 0) -> pa.Table:
    """Events a minute apart, all different."""
    numbers = np.arange(first, first + count)
    users = np.char.add(user, (numbers % 7).astype(str))
    items = np.char.add("i", (numbers % 11).astype(str))
    return pa.table({"user_id": users, "item_id": items, "timestamp": FROM_2019 + 60 * numbers})


def write_mess(folder: Path) -> dict[str, dict[str, int]]:
    """A folder with every kind of bad file; the expected reasons by file, "" for rows that are kept."""
    folder.mkdir()
    pq.write_table(rows(100), folder / "good.parquet")

    whole = (folder / "good.parquet").read_bytes()
    (folder / "truncated.parquet").write_bytes(whole[: len(whole) // 2])

    pq.write_table(rows(60, "p"), folder / "pages.parquet", row_group_size=20, compression="snappy")
    broken = bytearray((folder / "pages.parquet").read_bytes())
    start = pq.ParquetFile(folder / "pages.parquet").metadata.row_group(1).column(0).data_page_offset
    broken[start : start + 40] = b"\xff" * 40
    (folder / "pages.parquet").write_bytes(broken)

    lines = ["user_id,item_id,timestamp,price,quantity"]
    lines += ["a,x,2019-01-01 10:00,1.50,1", "a,y", "a,z,2019-01-02,abc,1", 'a,"z,2019-01-02,1,1', "a,z,soon,1,1"]
    lines += [",z,2019-01-03,1,1", "a,,2019-01-03,1,1", "a,z,,1,1", "b,z,2019-01-04,-5,1", "b,free,2019-01-04,0,1"]
    lines += ["b,z,2031-01-01,1,1", "b,z,1969-07-20,1,1", "b,z,2019-01-05,1,0", "b,z,2019-01-05,1,two"]
    lines += ["b,w,2019-01-06,1,1", "b,w,2019-01-06,1,1", "b,w,2019-01-07,1,-1"]
    (folder / "lines.csv").write_text("\n".join(lines))

    names = [
        {"user_id": "用户🙂", "item_id": f"Ñandú-{k}", "timestamp": f"2019-02-0{k + 1}T00:00:00+01:00"}
        for k in range(3)
    ]
    text = [json.dumps(name, ensure_ascii=False) for name in names]
    (folder / "names.jsonl").write_text("\n".join([*text[:2], '{"user_id": "x", "item', text[2]]))

    packed = gzip.compress(
        b"".join(b'{"user_id":"g%d","item_id":"i","timestamp":%d}\n' % (k, FROM_2019) for k in range(9))
    )
    (folder / "packed.jsonl.gz").write_bytes(packed[:-8] + b"")
    (folder / "notes.txt").write_text("not a log")
    return {
        "good.parquet": {"": 100},
        "truncated.parquet": {"unreadable_file": 1},
        "pages.parquet": {"": 40, "unreadable_file": 20},
        "lines.csv": {"": 2, "bad_line": 2, "bad_price": 1, "bad_timestamp": 1, "missing_user": 1, "missing_item": 1,
                      "missing_timestamp": 1, "negative_price": 1, "in_future": 1, "before_1970": 1, "zero_quantity": 1,
                      "bad_quantity": 1, "duplicate": 1, "return": 1, "returned": 1},
        "names.jsonl": {"": 3, "bad_line": 1},
        "packed.jsonl.gz": {"unreadable_file": 1},
    }  # fmt: skip


@pytest.fixture
def mess(tmp_path: Path) -> tuple[Path, dict[str, dict[str, int]]]:
    folder = tmp_path / "mess"
    return folder, write_mess(folder)


@pytest.mark.cluster
def test_every_bad_row_and_file_is_quarantined_with_its_reason(
    ray_cluster: None, prepared: Prepare, mess: tuple[Path, dict[str, dict[str, int]]]
):
    folder, expected = mess
    dataset = prepared(folder, split=LEAVE_ONE_OUT, max_quarantined_fraction=1.0)
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in quarantine(dataset):
        found[Path(str(row[Col.SOURCE])).name][str(row[Col.REASON])] += 1
    refused = {name: {kind: n for kind, n in reasons.items() if kind} for name, reasons in expected.items()}
    assert found == {name: reasons for name, reasons in refused.items() if reasons}
    counts = dataset.manifest.counts
    assert counts.rows_kept == sum(reasons.get("", 0) for reasons in expected.values())
    assert counts.rows_in == counts.rows_kept + counts.rows_quarantined
    whole_files = 2  # counted nowhere, for nobody knows their rows
    assert counts.rows_quarantined == len(quarantine(dataset)) - whole_files
    sources = {Path(source.uri).name: source.rows for source in dataset.manifest.sources}
    assert sources["truncated.parquet"] is None
    assert (sources["pages.parquet"], sources["lines.csv"], sources["names.jsonl"]) == (60, 17, 4)
    assert "notes.txt" not in sources
    assert any("truncated.parquet: not read" in note for note in dataset.manifest.notes)
    assert any("packed.jsonl.gz" in note for note in dataset.manifest.notes)
    assert histories(dataset)["用户🙂"][Col.ITEMS] == ["Ñandú-0", "Ñandú-1", "Ñandú-2"]
    bad_line = next(row for row in quarantine(dataset) if row[Col.REASON] == "bad_line")
    assert (bad_line[Col.ROW], bad_line[Col.RAW]) == (1, "a,y")


def as_stored(values: list[bytes]) -> pa.Array:
    """Text that nobody checked, as Spark and others write it."""
    return pa.array(values).view(pa.string())


@pytest.mark.parametrize("column", [as_stored([b"\xff", b"u", b"u"]), pa.array([b"\xff", b"u", b"u"])])
@pytest.mark.parametrize("name", ["user_id", "timestamp", "event_type"])
def test_text_in_parquet_that_is_not_utf8_costs_its_row(prepared: Prepare, tmp_path: Path, name: str, column: pa.Array):
    """It ended in a traceback, and a column of bytes cost all rows."""
    log = {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": [str(FROM_2019)] * 3}
    if name == "timestamp":
        column = pa.array([b"\xff", *[str(FROM_2019).encode()] * 2]).view(column.type)
    pq.write_table(pa.table(log | {name: column}), tmp_path / "log.parquet")
    dataset = prepared(tmp_path / "log.parquet", split=LEAVE_ONE_OUT, max_quarantined_fraction=0.5)
    assert dataset.manifest.counts.quarantined == {"bad_line": 1}
    assert [(row[Col.ROW], row[Col.RAW]) for row in quarantine(dataset)] == [(0, "not UTF-8")]
    assert histories(dataset)["u"][Col.ITEMS] == ["b", "c"]


def test_dates_whose_order_only_the_end_of_the_log_tells(prepared: Prepare, tmp_path: Path):
    """A look at the beginning took them for month first, and the log was refused."""
    dates = [f"{day}/{month}/2019 10:00" for month in (1, 2) for day in range(1, 29)]
    log = [(f"user-{k:0100}", f"i{k}", date) for date in dates for k in range(200)]
    text = "".join(f"{user},{item},{date}\n" for user, item, date in log)
    assert text.index("13/1") > 1 << 18
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + text)
    pq.write_table(pa.table(dict(zip(("user_id", "item_id", "timestamp"), zip(*log, strict=True), strict=True))),
                   tmp_path / "log.parquet")  # fmt: skip
    for name in ("log.csv", "log.parquet"):
        dataset = prepared(tmp_path / name)
        assert dataset.manifest.counts.rows_kept == len(log)
        assert quarantine(dataset) == []
        assert any("day first" in note for note in dataset.manifest.notes)
        times = histories(dataset)[log[0][0]][Col.TIMES]
        assert (times[0], times[-1]) == ((FROM_2019 + 36_000) * 10**6, (FROM_2019 + 36_000 + 58 * 86_400) * 10**6)


def test_too_much_in_quarantine_stops_before_anything_counts_as_complete(
    prepared: Prepare, mess: tuple[Path, dict[str, dict[str, int]]], tmp_path: Path
):
    with pytest.raises(DataError) as error:
        prepared(mess[0], split=LEAVE_ONE_OUT)
    message = str(error.value)
    assert "data.max_quarantined_fraction (0.05)" in message
    assert "20  unreadable_file" in message
    assert "of the bytes could not be read" in message
    folder = message.rsplit(" ", 1)[-1]
    assert list(Path(folder).glob("part-*.parquet"))
    assert not list(tmp_path.glob("out/shop/datasets/*/manifest.json"))


def test_a_wrong_column_name_is_named_with_its_setting_and_the_columns_there_are(tmp_path: Path):
    (tmp_path / "log.csv").write_text("Customer,SKU,When\n1,2,2019-01-01\n")
    data = DataConfig.model_validate(
        {
            "events": str(tmp_path / "log.csv"),
            "columns": {"user_id": "CustomerID", "item_id": "SKU", "timestamp": "When"},
        }
    )
    with pytest.raises(DataError, match=r"'CustomerID' \(data\.columns\.user_id\); there are: Customer, SKU, When"):
        prepare(Storage(path=str(tmp_path)), "shop", data)


def test_an_empty_folder_is_named(tmp_path: Path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=r"raw: no files there \(data\.events\)"):
        prepare(Storage(path=str(tmp_path)), "shop", DataConfig(events=(str(tmp_path / "raw"),)))


@pytest.mark.s3
def test_a_missing_bucket_is_named(s3: StorageConfig):
    with pytest.raises(StorageError, match="no-such-bucket"):
        prepare(Storage.from_config(s3), "shop", DataConfig(events=("s3://no-such-bucket/raw",)))


def test_one_user_with_a_million_events(prepared: Prepare, tmp_path: Path):
    count = 1_000_000
    log = {
        "user_id": np.append(np.full(count, 1), np.arange(2, 22)),
        "item_id": np.append(np.arange(count) % 50_000, np.arange(20)),
        "timestamp": FROM_2019 + np.append(np.arange(count), np.arange(20)),
    }
    pq.write_table(pa.table(log), tmp_path / "log.parquet", row_group_size=100_000)
    dataset = prepared(tmp_path / "log.parquet", split=LEAVE_ONE_OUT, max_user_events=500)
    counts = dataset.manifest.counts
    assert counts.quarantined == {"user_over_cap": count - 502}
    robot = histories(dataset)[1]
    assert robot[Col.NUM_TRAIN] == 500
    assert robot[Col.TIMES] == [(FROM_2019 + k) * 1_000_000 for k in range(count - 502, count)]
    assert (
        "1 users have more events than data.max_user_events in a part; the oldest were left out."
        in dataset.manifest.notes
    )


def late_items(folder: Path) -> Path:
    late = {"user_id": ["u0"] * 2, "item_id": ["new", "newer"], "timestamp": [FROM_2019 + 3 * 86_400] * 2}
    pq.write_table(pa.concat_tables([rows(200), pa.table(late)]), folder / "log.parquet")
    return folder / "log.parquet"


def test_items_only_in_the_test_part_and_a_catalogue_without_some_items(prepared: Prepare, tmp_path: Path):
    log, split = late_items(tmp_path), {"validation_days": 1, "test_days": 1}
    (tmp_path / "items.csv").write_text("item_id,title\nnew,Just in\ni3,Three\nghost,Never sold\n")
    alone = prepared(log, split=split)
    assert alone.manifest.counts.unknown_item_events == 2
    assert alone.num_items == 11
    known = prepared(log, split=split, items=str(tmp_path / "items.csv"))
    assert known.manifest.counts.unknown_item_events == 1
    titles = {row[Col.ITEM]: row[Col.TITLE] for row in known.items().to_pylist()}
    assert (titles["new"], titles["i3"], titles["ghost"], titles["i4"]) == ("Just in", "Three", "Never sold", None)
    assert "newer" not in titles
    assert "Items of the log that are not in the catalogue: 10." in known.manifest.notes
    assert "No event lies in the validation part." in known.manifest.notes
    raw = next(t for t in map(known.storage.read_table, known.part_uris) if "u0" in t[Col.USER].to_pylist())
    user = next(row for row in raw.to_pylist() if row[Col.USER] == "u0")
    assert user[Col.ITEMS][-2:] == [known.items()[Col.ITEM].to_pylist().index("new") + 1, PAD]


def test_files_that_differ_in_schema_and_in_the_type_of_ids(prepared: Prepare, tmp_path: Path):
    raw = tmp_path / "raw"
    raw.mkdir()
    time = [FROM_2019, FROM_2019 + 1]
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": [10.0, 20.0], "timestamp": time}), raw / "a.parquet")
    (raw / "b.csv").write_text("price,timestamp,item_id,user_id\n1.5,2019-03-01,10,1\n2.5,2019-03-01,20,x\n")
    dataset = prepared(raw, split=LEAVE_ONE_OUT)
    assert (dataset.user_type, dataset.item_type) == (pa.string(), pa.int64())
    assert {user: row[Col.ITEMS] for user, row in histories(dataset).items()} == {"1": [10, 10], "2": [20], "x": [20]}
    assert dataset.manifest.notes[:2] == [
        f"'price' (data.columns.price) is missing in 1 files, for example {raw / 'a.parquet'}.",
        "user_id: integers in some files, text in others; all were read as text.",
    ]


@pytest.mark.parametrize("broken", [b"", b"PAR1 and nothing else"])
def test_a_log_of_which_no_file_can_be_read(prepared: Prepare, tmp_path: Path, broken: bytes):
    """Without a file there was no work, which Ray Data does not take."""
    (tmp_path / "log.parquet").write_bytes(broken)
    with pytest.raises(DataError, match=r"has no event|100\.0% of the bytes could not be read"):
        prepared(tmp_path / "log.parquet")


def test_order_ids_in_json_keep_all_their_digits(prepared: Prepare, tmp_path: Path):
    """Numbers of twenty digits became floats, and neighbouring orders one."""
    line = '{"user_id": 1, "item_id": %d, "timestamp": 1546300800, "order_id": 1234567890123456789%d}\n'
    (tmp_path / "log.jsonl").write_text("".join(line % (k, k) for k in range(3)))
    dataset = prepared(tmp_path / "log.jsonl", split=LEAVE_ONE_OUT)
    assert histories(dataset)[1][Col.ORDERS] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no event"),
        ("1,2,2019-01-01,-1\n", "has no event"),
        ("1,2,2019-01-01,1\n2,2,2019-01-02,1\n", "nothing to train on: lower data.split.validation_days"),
    ],
)
def test_a_log_without_anything_to_train_on(prepared: Prepare, tmp_path: Path, text: str, message: str):
    (tmp_path / "log.csv").write_text(f"user_id,item_id,timestamp,quantity\n{text}")
    with pytest.raises(DataError, match=message):
        prepared(tmp_path / "log.csv")


def test_a_catalogue_that_is_mostly_broken_stops_too(prepared: Prepare, tmp_path: Path):
    pq.write_table(rows(50), tmp_path / "log.parquet")
    (tmp_path / "items.csv").write_text("item_id,title\ni1,One\n,Two\n,Three\n")
    with pytest.raises(DataError, match=r"the catalogue: 2 of 3 rows were refused(.|\n)*2  missing_item"):
        prepared(tmp_path / "log.parquet", items=str(tmp_path / "items.csv"), split=LEAVE_ONE_OUT)


def test_order_numbers_with_a_temporal_split_are_refused_at_once(tmp_path: Path):
    with pytest.raises(DataError, match="leave_one_out"):
        prepare(Storage(path=str(tmp_path)), "shop", DataConfig(events=("x",), timestamp_unit="order"))


def test_undeclared_order_numbers_tell_what_to_set(prepared: Prepare, tmp_path: Path):
    pq.write_table(rows(50).set_column(2, "timestamp", pa.array(range(50))), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"50  bad_timestamp .*data\.timestamp_unit: order"):
        prepared(tmp_path / "log.parquet")
