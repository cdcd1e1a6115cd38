"""Names of labels, and the rows that they get beside a model that knows some of them."""

import pyarrow as pa
import torch

from ray_app.content.labels import label_names, label_rows, rows_by_name

ITEMS = pa.table(
    {
        "brand": ["Ada, Inc.", None, "Bo", "Ada, Inc."],
        "category": ["tea, hot", "tea", None, ""],
        "price": pa.array([1.0, 2.0, None, 30.0]),
    }
)


def test_labels_are_named_after_their_columns():
    assert label_names(ITEMS, ("brand", "category")) == [
        ["brand=Ada, Inc.", "category=hot", "category=tea"],
        ["category=tea"],
        ["brand=Bo"],
        ["brand=Ada, Inc."],
    ]
    assert label_names(ITEMS, ()) == [[], [], [], []]


def test_prices_are_tenths_of_their_own_catalogue():
    assert label_names(ITEMS, ("price",)) == [["price=1 of 10"], ["price=6 of 10"], [], ["price=10 of 10"]]
    dearer = ITEMS.set_column(2, "price", pa.array([100.0, 200.0, None, 3000.0]))
    assert label_names(dearer, ("price",)) == label_names(ITEMS, ("price",))
    hundred = pa.table({"price": pa.array([float(n) for n in range(100)])})
    found = [names[0] for names in label_names(hundred, ("price",))]
    assert [found.count(f"price={n} of 10") for n in range(1, 11)] == [10] * 10
    unpriced = ITEMS.set_column(2, "price", pa.nulls(4, pa.float64()))
    assert not any(label_names(unpriced, ("price",)))


def test_known_labels_come_first_and_are_found_again_by_name():
    rows, there = label_rows([["b", "c"], [], ["a", "d", "b"]])
    assert rows.of_item.tolist() == [[1, 2, 4], [4, 4, 4], [0, 3, 1]]
    assert (rows.num_known, rows.num_new, there) == (0, 4, [])
    known = rows_by_name([["b", "c"], [], ["a", "d", "b"]], rows.of_item)
    assert known == {"a": 0, "b": 1, "c": 2, "d": 3}
    other, there = label_rows([["x", "d"], ["b", "w"]], known)
    assert (other.num_known, other.num_new, there) == (2, 2, [1, 3])
    assert torch.equal(other.of_item, torch.tensor([[3, 1], [0, 2]]))
    assert rows_by_name([["x", "d"], ["b", "w"]], other.of_item) == {"b": 0, "d": 1, "w": 2, "x": 3}
