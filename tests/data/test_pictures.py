"""Labelled pictures prepared for real: every one is kept or quarantined with a reason, from a disk and from S3."""

import json
from collections import Counter
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_app.config import Config, parse_config
from ray_app.data.picture_set import PICTURES_SCHEMA, PictureSet
from ray_app.data.pictures import open_pictures, prepare_pictures
from ray_app.errors import DataError, StorageError
from ray_app.schema import Col
from ray_app.storage import Storage, join

COLORS = {"apple": (200, 30, 30), "fig": (90, 20, 120), "lime": (60, 200, 40)}


def picture(label: str, seed: int, form: str = "JPEG", size: tuple[int, int] = (40, 40), mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(seed).normal(0, 20, (size[1], size[0], 3))
    pixels = (np.array(COLORS[label]) + noise).clip(0, 255).astype(np.uint8)
    sink = BytesIO()
    Image.fromarray(pixels).convert(mode).save(sink, form)
    return sink.getvalue()


def put(storage: Storage, *path: str, data: bytes | str) -> str:
    uri = join(storage.path, "in", *path)
    storage.write_bytes(uri, data if isinstance(data, bytes) else data.encode())
    return uri


def config(storage: Storage, *events: str, limit: float = 1.0, **pictures: object) -> Config:
    uris = [join(storage.path, "in", event) for event in events]
    tree = {"data": {"events": uris, "max_quarantined_fraction": limit}, "pictures": pictures}
    return parse_config(tree | {"task": {"kind": "classify"}, "classifier": {}})


def contents(found: PictureSet, part: str) -> list[dict]:
    tables = [found.storage.read_table(uri) for uri in found.uris(part)]
    assert all(table.schema.equals(PICTURES_SCHEMA) for table in tables)
    assert sum(map(len, tables)) == found.size(part)
    return [row | {"label": found.manifest.classes[row["label"]]} for row in pa.concat_tables(tables).to_pylist()]


def quarantined(found: PictureSet | str, storage: Storage) -> list[dict]:
    uri = found if isinstance(found, str) else found.uri
    return [
        row for file in storage.list_files(join(uri, "quarantine")) for row in storage.read_table(file.uri).to_pylist()
    ]


def write_mess(storage: Storage) -> None:
    """Folders in which every kind of bad picture lies beside good ones."""
    for label in COLORS:
        for number in range(6):
            put(storage, "shop", "train", label, f"{number}.jpg", data=picture(label, number))
        for number in range(2):
            put(storage, "shop", "test", label, f"{number}.png", data=picture(label, 100 + number, "PNG"))
    whole = picture("apple", 7, size=(90, 90))
    put(storage, "shop", "train", "apple", "cut.jpg", data=whole[: len(whole) // 2])
    put(storage, "shop", "train", "apple", "page.jpg", data="<html>not found</html>")
    put(storage, "shop", "train", "fig", "empty.png", data="")
    put(storage, "shop", "train", "fig", "large.png", data=picture("fig", 8, "PNG", (400, 300)))
    put(storage, "shop", "train", "fig", "print.jpg", data=picture("fig", 9, size=(50, 90), mode="CMYK"))
    put(storage, "shop", "train", "lime", "moves.gif", data=picture("lime", 10, "GIF"))
    put(storage, "shop", "train", "lonely.jpg", data=picture("lime", 11))
    put(storage, "shop", "test", "kiwi", "0.jpg", data=picture("lime", 12))
    put(storage, "shop", "README.txt", data="pictures")


@pytest.mark.cluster
def test_folders_of_every_kind_of_picture(ray_cluster: None, storage: Storage):
    write_mess(storage)
    settings = config(storage, "shop", stored_side=64, max_pixels=100_000)
    found = prepare_pictures(storage, "shop", settings)
    manifest = found.manifest
    assert manifest.classes == ["apple", "fig", "lime"]
    assert manifest.counts.model_dump() == {
        "pictures_in": 32,
        "train": 18,
        "validation": 2,
        "test": 6,
        "quarantined": {
            "not_a_picture": 2,
            "truncated_picture": 1,
            "too_many_pixels": 1,
            "missing_label": 1,
            "untrained_label": 1,
        },
    }
    refused = {row[Col.SOURCE].rpartition("/")[2]: row[Col.REASON] for row in quarantined(found, storage)}
    assert refused == {
        "cut.jpg": "truncated_picture",
        "page.jpg": "not_a_picture",
        "empty.png": "not_a_picture",
        "large.png": "too_many_pixels",
        "lonely.jpg": "missing_label",
        "0.jpg": "untrained_label",
    }
    train = contents(found, "train") + contents(found, "validation")
    assert Counter(row["label"] for row in train) == {"apple": 6, "fig": 7, "lime": 7}
    assert sum(manifest.train_counts) == manifest.counts.train
    assert {row["key"] for row in contents(found, "test")} == {
        join(storage.path, "in", "shop", "test", label, f"{n}.png") for label in COLORS for n in range(2)
    }
    for row in train:
        image = Image.open(BytesIO(row["image"]))
        assert (image.mode, min(image.size) <= 64) == ("RGB", True)
        assert np.abs(np.asarray(image).mean((0, 1)) - COLORS[row["label"]]).max() < 12
    original = storage.read_bytes(join(storage.path, "in", "shop", "train", "fig", "0.jpg"))
    assert original in {row["image"] for row in train}
    assert any("1 files that do not end as pictures do" in note for note in manifest.notes)
    written = {file.uri: file.etag for file in storage.list_files(found.uri)}
    assert prepare_pictures(storage, "shop", settings) == found
    assert {file.uri: file.etag for file in storage.list_files(found.uri)} == written
    assert not any("staging" in uri for uri in written)
    with pytest.raises(DataError, match=r"5 of 32 rows were refused.*max_quarantined_fraction \(0\.1\)"):
        prepare_pictures(storage, "shop", config(storage, "shop", limit=0.1, stored_side=64, max_pixels=100_000))


def test_tables_with_bytes_and_tables_with_paths(storage: Storage, tmp_path):
    rows = [(label, picture(label, number)) for number in range(10) for label in COLORS]
    labels, images = zip(*rows, strict=True)
    table = pa.table(
        {"name": labels, "pic": images, "kind": ["sour" if name == "lime" else "sweet" for name in labels]}
    )
    sink = BytesIO()
    pq.write_table(table, sink, row_group_size=7)
    put(storage, "tables", "bytes.parquet", data=sink.getvalue())
    put(storage, "tables", "pics", "a.png", data=picture("apple", 50, "PNG"))
    lines = ["pic,name,kind,part", "pics/a.png,apple,sweet,", "pics/none.png,fig,,", "http://x.org/b.jpg,fig,,"]
    lines += ["pics,fig,,", ",fig,,", "pics/a.png,,,", "pics/a.png,apple,sweet,later", "too,few"]
    put(storage, "tables", "paths.csv", data="\n".join(lines))
    put(storage, "tables", "more.jsonl", data=json.dumps({"pic": "pics/a.png", "name": "apple", "kind": "sweet"}))
    columns = {"image": "pic", "label": "name", "group": "kind"}
    found = prepare_pictures(storage, "shop", config(storage, "tables", columns=columns))
    counts = found.manifest.counts
    assert counts.quarantined == {
        "unreadable_path": 3,
        "missing_picture": 1,
        "missing_label": 1,
        "unknown_part": 1,
        "bad_line": 1,
    }
    assert counts.pictures_in == 30 + 8 + 1
    assert (counts.test, counts.validation) == (7, 3)  # of 31 different ones, and one stands there twice
    assert found.manifest.groups == ["sour", "sweet"]
    assert found.manifest.group_of_class == [1, 1, 0]
    rows_of = {record.uri.rpartition("/")[2]: record.rows for record in found.manifest.sources}
    assert rows_of == {"bytes.parquet": 30, "more.jsonl": 1, "paths.csv": 8}
    kept = [row | {"part": part} for part in ("train", "validation", "test") for row in contents(found, part)]
    assert sorted(row["image"] for row in kept) == sorted([*images, *[picture("apple", 50, "PNG")] * 2])
    twice = [row for row in kept if row["image"] == picture("apple", 50, "PNG")]
    assert [row["key"] for row in twice] == ["pics/a.png"] * 2
    assert len({row["part"] for row in twice}) == len({row["hash"] for row in twice}) == 1
    assert kept[0]["key"].startswith(join(storage.path, "in", "tables", "bytes.parquet#"))


def test_settings_that_cannot_work(tmp_path):
    storage = Storage(path=str(tmp_path))
    put(storage, "t.csv", data="image,name\na.jpg,apple\n")
    with pytest.raises(DataError, match=r"no column 'label' \(pictures\.columns\.label\); there are: image, name"):
        prepare_pictures(storage, "shop", config(storage, "t.csv"))
    with pytest.raises(DataError, match="no complete dataset there"):
        open_pictures(storage, join(storage.path, "shop", "datasets", "0"))
    with pytest.raises(StorageError, match="unknown scheme"):
        prepare_pictures(storage, "shop", parse_config(config(storage).model_dump() | {"data": {"events": "x://y"}}))
