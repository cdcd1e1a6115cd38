from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_app.data.files import Piece, RawBatch
from ray_app.data.picture_sources import Named, find_pictures, rows_of
from ray_app.data_config import DataConfig
from ray_app.errors import DataError
from ray_app.picture_config import PictureColumns
from ray_app.storage import Storage


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def found(*patterns: Path | str, **settings: str):
    return find_pictures(Storage(), DataConfig(events=tuple(map(str, patterns)), **settings))


def said(pictures: list[Named]) -> dict[str, tuple[str | None, str | None]]:
    return {Path(picture.uri).name: (picture.label, picture.part) for picture in pictures}


def test_folders_name_labels_and_parts(tmp_path: Path):
    write(tmp_path, "train/apple/1.jpg", "train/fig/2.PNG", "Validation/fig/3.webp", "test/fruit/fig/4.jpeg", "5.jpg")
    write(tmp_path, "apple/test/6.jpg", "apple/notes.txt", "test-strips/7.jpg")
    sources = found(tmp_path)
    assert said(sources.pictures) == {
        "1.jpg": ("apple", "train"),
        "2.PNG": ("fig", "train"),
        "3.webp": ("fig", "Validation"),
        "4.jpeg": ("fig", "test"),
        "5.jpg": (None, None),
        "6.jpg": ("apple", "test"),
        "7.jpg": ("test-strips", None),
    }
    assert sources.tables == []
    assert len(sources.entries) == 7
    assert sources.notes == [f"{tmp_path}: 1 files that do not end as pictures do were passed over."]
    assert [(folder.uri, folder.rows) for folder in sources.folders] == [(str(tmp_path), 7)]


def test_a_part_may_be_the_folder_that_was_given(tmp_path: Path):
    write(tmp_path, "val/apple/1.jpg", "train/apple/2.jpg")
    pictures = found(tmp_path / "val", tmp_path / "train" / "*" / "*.jpg").pictures
    assert said(pictures) == {"1.jpg": ("apple", "val"), "2.jpg": ("apple", "train")}


def test_pictures_beside_tables_are_the_tables(tmp_path: Path):
    write(tmp_path, "labels.csv", "images/1.jpg", "2.jpg")
    sources = found(tmp_path)
    assert [Path(file.entry.uri).name for file in sources.tables] == ["labels.csv"]
    assert sources.pictures == []
    assert said(found(tmp_path / "**" / "*.jpg").pictures)["1.jpg"] == ("images", None)


def test_what_changes_changes_the_sources(tmp_path: Path):
    write(tmp_path, "apple/1.jpg", "fig/2.jpg")
    before = found(tmp_path)
    (tmp_path / "fig" / "2.jpg").write_text("other")
    assert found(tmp_path).entries != before.entries
    assert found(tmp_path).folders != before.folders


def test_nothing_to_read(tmp_path: Path):
    write(tmp_path, "a/1.txt")
    for pattern, words in ((tmp_path, "has a known ending"), (tmp_path / "b", "no files there")):
        with pytest.raises(DataError, match=words):
            found(pattern)
    with pytest.raises(DataError, match="folder of folders named by label"):
        found()


def rows(uri: str, columns: dict[str, list], form: str = "parquet") -> list[tuple[Named, bytes | None]]:
    table = pa.table(columns)
    batch = RawBatch(table, np.arange(10, 10 + table.num_rows))
    return list(rows_of(batch, Piece(0, uri, form), PictureColumns()))


def test_bytes_are_known_by_file_and_row():
    (first, data), (second, nothing) = rows("s3://b/test.parquet", {"image": [b"x", None], "label": ["a", None]})
    assert (first.uri, first.key, first.part, data) == ("s3://b/test.parquet#10",) * 2 + ("test", b"x")
    assert (second.uri, second.label, nothing) == (None, None, None)


def test_paths_lie_beside_their_table():
    paths = ["a.jpg", "./deep/../b.jpg", "../c.jpg", "/abs/d.jpg", "s3://other/e.jpg", " "]
    columns = {"image": paths, "label": [1, 2, 3, 4, 5, 6]}
    on_s3 = [named.uri for named, _ in rows("s3://b/x/labels.csv", columns)]
    assert on_s3 == ["s3://b/x/a.jpg", "s3://b/x/b.jpg", "s3://b/c.jpg", "/abs/d.jpg", "s3://other/e.jpg", None]
    here = [named.uri for named, _ in rows("/data/x/labels.csv", columns)]
    assert here[:3] == ["/data/x/a.jpg", "/data/x/b.jpg", "/data/c.jpg"]
    assert [named.key for named, _ in rows("/d/l.csv", columns)][:2] == paths[:2]
    assert [named.label for named, _ in rows("/d/l.csv", columns)][:2] == ["1", "2"]


def test_structs_hold_bytes_or_paths():
    """As the datasets of Hugging Face write them."""
    images = [{"bytes": b"x", "path": "1.jpg"}, {"bytes": None, "path": "2.jpg"}, None]
    found = rows(
        "/d/train-00000-of-00002-ab12.parquet", {"image": images, "label": ["a"] * 3, "key": ["k", None, None]}
    )
    assert [(named.key, named.uri, data) for named, data in found] == [
        ("k", "/d/train-00000-of-00002-ab12.parquet#10", b"x"),
        ("2.jpg", "/d/2.jpg", None),
        ("/d/train-00000-of-00002-ab12.parquet#12", None, None),
    ]
    assert {named.part for named, _ in found} == {"train"}


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("/d/val.jsonl.gz", "val"),
        ("s3://b/test/0.parquet", "test"),
        ("/d/train_3.csv", "train"),
        ("/d/training-day.csv", None),
        ("/test/d/x.csv", None),
    ],
)
def test_the_file_of_a_table_may_name_the_part(uri: str, part: str | None):
    assert rows(uri, {"image": ["x"], "label": ["a"]}, "csv")[0][0].part == part
    own = {"image": ["x"], "label": ["a"], "part": ["test"]}
    assert rows(uri, own, "csv")[0][0].part == "test"
