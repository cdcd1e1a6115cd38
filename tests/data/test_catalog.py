import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_app.data.catalog import CATALOG_SCHEMA, Catalog, read_catalog
from ray_app.data.quarantine import tally
from ray_app.data.raw_files import find_sources
from ray_app.data.sources import inspect
from ray_app.data_config import DataConfig
from ray_app.schema import Col
from ray_app.storage import Storage


def read(*files: Path, **columns: str) -> Catalog:
    storage, data = Storage(), DataConfig.model_validate({"item_columns": columns})
    found = find_sources(storage, [str(file) for file in files], "auto", "data.items")
    return read_catalog(storage, inspect(storage, found, ("available_from",)), data)


def test_columns_of_any_type_become_text_numbers_and_times(tmp_path: Path):
    table = {
        "sku": [1, 2],
        "name": ["Tea", ""],
        "tags": [["hot", "green"], None],
        "price": ["2.50", "?"],
        "since": [20101201, 5],
    }
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    catalog = read(tmp_path / "items.parquet", item_id="sku", title="name", category="tags", available_from="since")
    assert catalog.table.schema == CATALOG_SCHEMA
    nothing = dict.fromkeys(CATALOG_SCHEMA.names)
    assert catalog.table.to_pylist() == [
        nothing
        | {Col.ITEM: "1", Col.TITLE: "Tea", Col.CATEGORY: "hot, green", Col.PRICE: 2.5}
        | {Col.AVAILABLE_FROM: 1_291_161_600_000_000},
        nothing | {Col.ITEM: "2"},
    ]
    assert (catalog.integers, catalog.unread, catalog.rows_in) == (True, 2, 2)


def test_pictures_have_a_place_and_are_not_read(tmp_path: Path):
    """A path beside the file that names it, of several the first; where a file holds pictures, the row of each."""
    paths = [["a.jpg", "b.jpg"], [], None, ["s3://shop/c.jpg"]]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"item_id": f"a{n}", "image": p}) + "\n" for n, p in enumerate(paths))
    )
    (tmp_path / "b.csv").write_text("item_id,image\nb0,../d.jpg\nb1,\nb2,/e.jpg\n")
    held = tmp_path / "c.parquet"
    pq.write_table(pa.table({"item_id": ["c0", "c1"], "image": [b"bytes", None]}), held)
    pq.write_table(pa.table({"item_id": ["d0"], "image": ["f.jpg"]}), tmp_path / "d.parquet")
    table = read(*(tmp_path / name for name in ("a.jsonl", "b.csv", "c.parquet", "d.parquet"))).table
    assert dict(zip(*(table[name].to_pylist() for name in (Col.ITEM, Col.IMAGE)), strict=True)) == {
        **{"a0": f"{tmp_path}/a.jpg", "a1": None, "a2": None, "a3": "s3://shop/c.jpg"},
        **{"b0": f"{tmp_path.parent}/d.jpg", "b1": None, "b2": "/e.jpg"},
        **{"c0": f"{held}#image[0]", "c1": f"{held}#image[1]", "d0": f"{tmp_path}/f.jpg"},
    }


def test_of_several_rows_for_an_item_the_last_wins(tmp_path: Path):
    (tmp_path / "a.csv").write_text('item_id,title\nx,"old, x"\n,nameless\ny,why\nbad,line,here\n')
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"item_id": i, "title": t}) + "\n" for i, t in ("xX", "zZ")))
    catalog = read(tmp_path / "a.csv", tmp_path / "b.jsonl")
    assert dict(zip(*(catalog.table[name].to_pylist() for name in (Col.ITEM, Col.TITLE)), strict=True)) == {
        "y": "why",
        "x": "X",
        "z": "Z",
    }
    assert tally(catalog.refused) == {"duplicate": 1, "missing_item": 1, "bad_line": 1}
    assert catalog.rows_in == 6
    refused = {row[Col.REASON]: row for row in catalog.refused.to_pylist()}
    assert refused["duplicate"][Col.SOURCE].endswith("a.csv")
    assert (refused["duplicate"][Col.ROW], refused["missing_item"][Col.ROW], refused["bad_line"][Col.ROW]) == (0, 1, 3)
    assert refused["missing_item"][Col.RAW] == "item_id=, title=nameless"


def test_dates_put_the_day_first_where_the_log_of_dates_says_so(tmp_path: Path):
    """They were always read with the month first."""
    (tmp_path / "a.csv").write_text("item_id,available_from\nx,31/1/2010\ny,1/2/2010\n")
    catalog = read(tmp_path / "a.csv")
    day = 86_400_000_000
    first, second = catalog.table[Col.AVAILABLE_FROM].to_pylist()
    assert second - first == day
    assert catalog.unread == 0


@pytest.mark.parametrize(("ids", "integers"), [("1\n2\n", True), ("1\nx\n", False), ("01\n", False)])
def test_whether_ids_are_integers(tmp_path: Path, ids: str, integers: bool):
    (tmp_path / "a.csv").write_text(f"item_id\n{ids}")
    assert read(tmp_path / "a.csv").integers is integers
