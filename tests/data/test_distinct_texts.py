import pyarrow as pa

from ray_app.data.distinct_texts import first_of_equals
from ray_app.data.picture_split import INDEX_SCHEMA, REPEATED, divide
from ray_app.data.split import TEST
from ray_app.picture_config import TextsConfig


def index(rows: list[tuple[str, int, str]]) -> pa.Table:
    """Label, part and text of each row."""
    labels, parts, texts = zip(*rows, strict=True)
    hashes = [text.encode().ljust(16) for text in texts]
    return pa.table([labels, [None] * len(rows), pa.array(parts, pa.int8()), hashes], schema=INDEX_SCHEMA)


def test_of_equal_texts_the_first_with_the_most_frequent_label_is_kept():
    rows = [("b", -1, "x"), ("a", -1, "x"), ("a", -1, "x"), ("b", -1, "y"), ("a", -1, "y"), ("a", -1, "z")]
    kept, notes = first_of_equals(index(rows))
    assert kept.tolist() == [False, True, False, False, True, True]  # of y's labels, the first by name
    assert notes == ["2 texts stand there under several labels; the most frequent one counts."]


def test_each_part_that_somebody_decided_keeps_its_own():
    kept, notes = first_of_equals(index([("a", 0, "x"), ("a", 2, "x"), ("a", 2, "x")]))
    assert kept.tolist() == [True, True, False]
    assert notes == []


def test_a_label_that_others_outvote_everywhere_is_no_class():
    rows = [(label, -1, f"{label}{number}") for label in "ab" for number in range(10)]
    found = divide(index([*rows, ("c", -1, "a0"), ("a", -1, "a0"), ("a", -1, "a0")]), TextsConfig())
    assert found.classes == ["a", "b"]
    assert (found.part == REPEATED).tolist() == [False] * 20 + [True] * 3
    assert found.label[found.part == REPEATED].tolist() == [-1] * 3
    every = divide(index([*rows, ("c", -1, "a0")]), TextsConfig(distinct=False))
    assert not (every.part == REPEATED).any()


def test_an_undecided_copy_of_a_test_text_is_a_repeated_one():
    """It counted as another text, since its part was another, and was trained on."""
    rows = [(label, -1, f"{label}{number}") for label in "ab" for number in range(20)]
    found = divide(index([*[(label, 2, text) for label, _, text in rows[::4]], *rows]), TextsConfig())
    assert (found.part[:10] == TEST).all()
    assert (found.part[10::4] == REPEATED).all()
    assert (found.part[10:] == TEST).sum() == 0
    assert "10 texts name no part, but equal ones do: they are where those are." in found.notes
