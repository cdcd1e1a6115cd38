import pyarrow as pa

from ray_app.data.categories import category_numbers


def test_each_item_has_the_numbers_of_its_categories():
    numbers = category_numbers(pa.table({"category": ["Drama, War", None, "War", "War, War", ""]}))
    assert numbers is not None
    assert numbers.offsets.tolist() == [0, 0, 2, 2, 3, 4, 4]  # of padding first
    assert numbers.values.tolist() == [0, 1, 1, 1]


def test_a_catalogue_without_categories_has_none():
    assert category_numbers(pa.table({"category": pa.nulls(3, pa.string())})) is None
