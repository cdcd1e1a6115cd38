import pyarrow as pa
import pytest

from ray_app.data import vocabulary
from ray_app.data.catalog import CATALOG_SCHEMA
from ray_app.data.vocabulary import encode, make_vocabulary
from ray_app.schema import PAD, Col, items_schema, sequences_schema


def counted(**counts: int) -> pa.Table:
    return pa.table({Col.ITEM: list(counts), Col.TRAIN_COUNT: list(counts.values())})


CATALOG = pa.Table.from_pylist([{Col.ITEM: "b", Col.TITLE: "Bread"}, {Col.ITEM: "z", Col.PRICE: 2.5}], CATALOG_SCHEMA)


@pytest.mark.parametrize("merged_rows", [0, 1 << 20])
def test_counts_of_all_buckets_add_up_in_the_order_of_ids(merged_rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vocabulary, "_MERGED_ROWS", merged_rows)
    items = make_vocabulary([counted(c=1, a=2), counted(a=3), counted(b=0)], None, True, pa.string())
    assert items.schema == items_schema(pa.string())
    assert items[Col.ITEM].to_pylist() == ["a", "b", "c"]
    assert items[Col.TRAIN_COUNT].to_pylist() == [5, 0, 1]
    assert items[Col.ITEM_INDEX].to_pylist() == [1, 2, 3]


def test_the_catalogue_describes_items_and_adds_its_own_where_it_is_known_beforehand():
    items = make_vocabulary([counted(b=1, a=1)], CATALOG, True, pa.string())
    assert items[Col.ITEM].to_pylist() == ["a", "b", "z"]
    assert items[Col.TITLE].to_pylist() == [None, "Bread", None]
    assert items[Col.PRICE].to_pylist() == [None, None, 2.5]
    assert make_vocabulary([counted(b=1)], CATALOG, False, pa.string())[Col.ITEM].to_pylist() == ["b"]


def test_integers_are_ordered_as_numbers():
    counts = pa.table({Col.ITEM: [10, 9], Col.TRAIN_COUNT: [1, 1]})
    catalog = pa.Table.from_pylist([{Col.ITEM: "9", Col.TITLE: "Nine"}], CATALOG_SCHEMA)
    items = make_vocabulary([counts], catalog, True, pa.int64())
    assert items[Col.ITEM].to_pylist() == [9, 10]
    assert items[Col.TITLE].to_pylist() == ["Nine", None]


def test_nothing_counted_gives_an_empty_vocabulary():
    assert make_vocabulary([], None, True, pa.int64()).num_rows == 0


def test_encoding_marks_items_outside_the_vocabulary():
    final = sequences_schema(pa.string())
    schema = final.set(1, pa.field(Col.ITEMS, pa.list_(pa.string())))
    rows = [
        {Col.USER: user, Col.ITEMS: items, Col.TIMES: times, Col.WEIGHTS: times, Col.ORDERS: times}
        | {Col.NUM_TRAIN: 1, Col.NUM_VALIDATION: 0}
        for user, items, times in (("u", ["b", "new"], [1, 2]), ("v", ["a"], [1]))
    ]
    table, unknown = encode(pa.Table.from_pylist(rows, schema), pa.array(["a", "b"]), final)
    assert table.schema == final
    assert table[Col.ITEMS].to_pylist() == [[2, PAD], [1]]
    assert unknown == 1
    empty, unknown = encode(schema.empty_table(), pa.array(["a"]), final)
    assert (empty.num_rows, unknown) == (0, 0)
