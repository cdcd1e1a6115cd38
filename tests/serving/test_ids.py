"""Ids of numbers and of strings, found and added; texts that are written anew."""

from typing import Any

import pyarrow as pa
import pytest

from ray_app.schema import PAD
from ray_app.serving.ids import Ids
from ray_app.serving.texts import Texts


@pytest.mark.parametrize(
    ("column", "added", "unknown"),
    [
        (pa.chunked_array([[30, -7], [2**40]], pa.int64()), 5, 31),
        (pa.chunked_array([[30, 2**64 - 1]], pa.uint64()), 5, 31),
        (pa.chunked_array([["b", "a"], ["ä"]]), "new", "c"),
        (pa.chunked_array([[]], pa.int64()), 5, 31),
    ],
)
def test_every_id_is_found_under_its_index(column: "pa.ChunkedArray[Any]", added: Any, unknown: Any) -> None:
    ids = Ids(column)
    given = column.to_pylist()
    assert len(ids) == len(given)
    assert [ids[index] for index in range(1, 1 + len(ids))] == given
    assert [ids.find(one) for one in given] == list(range(1, 1 + len(ids)))
    assert ids.find(unknown) == ids.find(added) == PAD
    index = ids.add(added)
    assert (index, len(ids), ids[index], ids.find(added)) == (1 + len(given), 1 + len(given), added, index)
    assert [ids.find(one) for one in given] == list(range(1, 1 + len(given)))


def test_texts_are_written_anew_and_behind_the_last() -> None:
    texts = Texts(pa.chunked_array([["one", None], ["three"]]))
    assert [texts[index] for index in (1, 2, 3, 4)] == ["one", None, "three", None]
    texts[2], texts[3], texts[4] = "two", None, "four"
    assert [texts[index] for index in (1, 2, 3, 4)] == ["one", "two", None, "four"]
