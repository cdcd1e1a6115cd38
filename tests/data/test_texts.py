"""Labelled texts prepared for real: every row of a catalogue is kept or quarantined with a reason."""

import json
from collections import Counter
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_app.config import Config, parse_config
from ray_app.data.picture_set import SCHEMAS, PictureSet
from ray_app.data.pictures import open_pictures, prepare_pictures
from ray_app.errors import DataError
from ray_app.schema import Col
from ray_app.storage import Storage, join

PARTS = ("train", "validation", "test")
WORDS = ("red", "small", "fresh", "large", "organic", "swiss", "cheap", "light", "old", "new")


def config(storage: Storage, limit: float = 1.0, **texts: object) -> Config:
    data = {"events": join(storage.path, "in"), "max_quarantined_fraction": limit}
    classifier = {"backbone": "hf:any"}
    return parse_config({"data": data, "texts": texts, "task": {"kind": "classify"}, "classifier": classifier})


def put(storage: Storage, name: str, data: bytes | str) -> None:
    storage.write_bytes(join(storage.path, "in", name), data if isinstance(data, bytes) else data.encode())


def contents(found: PictureSet, part: str) -> list[dict]:
    tables = [found.storage.read_table(uri) for uri in found.uris(part)]
    assert all(table.schema.equals(SCHEMAS["texts"]) for table in tables)
    assert sum(map(len, tables)) == found.size(part)
    return [row | {"label": found.manifest.classes[row["label"]]} for row in pa.concat_tables(tables).to_pylist()]


def refused(found: PictureSet) -> list[tuple[str, str]]:
    files = found.storage.list_files(join(found.uri, "quarantine"))
    rows = [row for file in files for row in found.storage.read_table(file.uri).to_pylist()]
    return sorted((row[Col.REASON], row[Col.RAW]) for row in rows)


def test_catalogues_in_three_formats_become_one_set(storage: Storage):
    """Texts of three columns, keys and labels in the retailer's own, groups of labels, equal texts in one part."""
    rows = [
        {"sku": number, "name": f"{word} wine", "about": None, "brand": "Acme", "shelf": "wine", "floor": "drinks"}
        for number, word in enumerate(WORDS)
    ]
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    put(storage, "a.parquet", sink.getvalue())
    lines = [f"{100 + number},{word}  juice,pressed,,juice,drinks" for number, word in enumerate(WORDS)]
    put(storage, "b.csv", "\n".join(["sku,name,about,brand,shelf,floor", *lines, "7", "300,Älpler,,,cheese,food"]))
    others = [{"sku": f"c{n}", "name": f"{word}\ncheese", "shelf": "cheese"} for n, word in enumerate(WORDS)]
    put(storage, "c.jsonl", "\n".join(map(json.dumps, [*others, others[0] | {"sku": "twin"}])))
    columns = {"title": "name", "description": "about", "label": "shelf", "key": "sku", "group": "floor"}
    settings = config(storage, columns=columns)
    found = prepare_pictures(storage, "shop", settings)
    manifest = found.manifest
    assert (found.kind, found.column, manifest.classes) == ("texts", "text", ["cheese", "juice", "wine"])
    assert (manifest.groups, manifest.group_of_class) == (["drinks", "food"], [1, 0, 0])
    assert manifest.counts.quarantined == {"bad_line": 1, "repeated_text": 1}
    assert manifest.counts.pictures_in == 10 + 12 + 11
    assert {record.uri.rpartition("/")[2]: record.rows for record in manifest.sources} == {
        "a.parquet": 10,
        "b.csv": 12,
        "c.jsonl": 11,
    }
    kept = [row for part in PARTS for row in contents(found, part)]
    texts = {row["key"]: (row["text"], row["label"]) for row in kept}
    assert len(texts) == len(kept) == 31
    assert texts["0"] == ("red wine Acme", "wine")
    assert texts["100"] == ("red juice pressed", "juice")
    assert texts["c0"] == ("red cheese", "cheese")
    assert texts["300"] == ("Älpler", "cheese")
    assert (manifest.counts.test, manifest.counts.validation) == (6, 3)
    assert sum(manifest.train_counts) == manifest.counts.train == 22
    written = {file.uri: file.etag for file in storage.list_files(found.uri)}
    assert prepare_pictures(storage, "shop", settings) == open_pictures(storage, found.uri) == found
    assert {file.uri: file.etag for file in storage.list_files(found.uri)} == written
    assert not any("staging" in uri for uri in written)
    every = prepare_pictures(storage, "shop", config(storage, columns=columns, distinct=False))
    assert every.manifest.counts.quarantined == {"bad_line": 1}
    parts = [part for part in PARTS for row in contents(every, part) if row["text"] == "red cheese"]
    assert len(parts) == 2
    assert len(set(parts)) == 1


def test_rows_that_cannot_be_learned_from_are_quarantined(storage: Storage):
    """Null, empty and blank texts, no label, an odd part, a label that only the test part has."""
    rows = [(f"{word} {noun}", noun, part) for part in PARTS for word in WORDS for noun in "ab"]
    rows += [(None, "a", "train"), ("", "a", "train"), (" \t", "b", "test"), ("red d", None, "train")]
    rows += [("red c", "c", "test"), ("odd a", "a", "later"), ("lone e", "e", "train")]
    table = pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=["title", "category", "part"])
    sink = BytesIO()
    pq.write_table(table, sink)
    put(storage, "t.parquet", sink.getvalue())
    found = prepare_pictures(storage, "shop", config(storage))
    counts = found.manifest.counts
    assert counts.quarantined == {"missing_text": 3, "missing_label": 1, "untrained_label": 1, "unknown_part": 1}
    assert (counts.train, counts.validation, counts.test, counts.pictures_in) == (21, 20, 20, 67)
    said = dict(refused(found))
    assert said["untrained_label"].startswith("label=c, key=")
    assert said["unknown_part"].startswith("part 'later'; label=a")
    assert Counter(reason for reason, _ in refused(found)) == counts.quarantined
    notes = " ".join(found.manifest.notes)
    assert "2 labels stand ('c', 'e') on one text alone" in notes
    assert "20 training texts stand in a part that is held out too" in notes
    with pytest.raises(DataError, match=r"5 of 67 rows were refused.*max_quarantined_fraction \(0\.05\)"):
        prepare_pictures(storage, "shop", config(storage, limit=0.05))


def test_settings_and_tables_that_cannot_work(tmp_path):
    storage = Storage(path=str(tmp_path))
    put(storage, "t.csv", "title,category\nred wine,wine\n")
    with pytest.raises(DataError, match="there is one label, 'wine' with training texts"):
        prepare_pictures(storage, "shop", config(storage))
    with pytest.raises(DataError, match=r"no column 'name' \(texts\.columns\.title\); there are: category, title"):
        prepare_pictures(storage, "shop", config(storage, columns={"title": "name"}))
    with pytest.raises(DataError, match=r"no column 'shelf' \(texts\.columns\.label\)"):
        prepare_pictures(storage, "shop", config(storage, columns={"label": "shelf"}))
    put(storage, "t.csv", "title,category\n,wine\n")
    with pytest.raises(DataError, match="there is no text in it, or only such as were refused"):
        prepare_pictures(storage, "shop", config(storage))
