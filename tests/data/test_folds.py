"""Folds of a train part: everything is held out once, by a model that learned from what may be known then."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pictures import picture_set

from ray_app.data.folds import folds_of, without_test
from ray_app.data.picture_set import PartName, PictureSet
from ray_app.data.picture_shard import PictureShard, chosen, contents_of, share_of
from ray_app.errors import DataError
from ray_app.picture_config import CrossValidationConfig
from ray_app.storage import join

STORES = [f"store {row % 7}" for row in range(30)]


def settings(kind: str, folds: int = 3) -> CrossValidationConfig:
    return CrossValidationConfig.model_validate({"kind": kind, "folds": folds})


def rows(pictures: PictureSet, part: PartName) -> list[dict]:
    files = pictures.files(part)
    tables = [chosen(pictures.storage.read_table(join(pictures.uri, file.path)), file.rows) for file in files]
    return [row for table in tables for row in table.to_pylist()]


def keys(pictures: PictureSet, part: PartName) -> list[str]:
    return [row["key"] for row in rows(pictures, part)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return picture_set(tmp_path_factory.mktemp("stores"), fold_by=STORES)


@pytest.mark.parametrize("kind", ["plain", "stratified", "grouped"])
def test_every_picture_is_held_out_once(stores: PictureSet, kind: str) -> None:
    folds = folds_of(stores, settings(kind))
    whole = keys(stores, "train")
    assert sorted(key for fold in folds for key in keys(fold, "test")) == sorted(whole)
    for fold in folds:
        held_out, training = keys(fold, "test"), keys(fold, "train")
        assert sorted(held_out + training) == sorted(whole)
        assert len(held_out) == fold.size("test") == fold.manifest.counts.test > 0
        assert keys(fold, "validation") == keys(stores, "validation")
        labels = [row["label"] for row in rows(fold, "train")]
        assert fold.manifest.train_counts == np.bincount(labels, minlength=3).tolist()
    assert len({fold.manifest.fingerprint for fold in [*folds, stores]}) == 4
    assert not set(keys(stores, "test")) & {key for fold in folds for key in keys(fold, "test")}


def test_a_fold_has_its_share_of_every_label(stores: PictureSet) -> None:
    for fold in folds_of(stores, settings("stratified", 5)):
        assert np.bincount([row["label"] for row in rows(fold, "test")]).tolist() == [2, 2, 2]


def test_what_belongs_together_stays_together(stores: PictureSet) -> None:
    for fold in folds_of(stores, settings("grouped")):
        held_out, training = ({row["fold_by"] for row in rows(fold, part)} for part in ("test", "train"))
        assert held_out
        assert not held_out & training


def test_folds_are_the_same_however_pictures_lie_in_files(tmp_path: Path, stores: PictureSet) -> None:
    other = picture_set(tmp_path, per_file=16)
    again = picture_set(tmp_path / "again", per_file=16)
    table = pa.concat_tables([other.storage.read_table(uri) for uri in other.uris("train")])
    backward = table.take(pa.array(np.arange(30)[::-1]))
    first = again.files("train")[0]
    again.storage.write_table(join(again.uri, first.path), backward)
    held_out = [file for file in again.manifest.files if file.part != "train"]
    files = [first.model_copy(update={"pictures": 30}), *held_out]
    again = replace(again, manifest=again.manifest.model_copy(update={"files": files}))
    for kind in ("plain", "stratified"):
        pairs = zip(folds_of(other, settings(kind)), folds_of(again, settings(kind)), strict=True)
        assert all(sorted(keys(one, "test")) == sorted(keys(two, "test")) for one, two in pairs)


def repeated(pictures: PictureSet, columns: dict[str, list]) -> PictureSet:
    """The set in which the first file says so instead."""
    uri = pictures.uris("train")[0]
    table = pictures.storage.read_table(uri)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pictures.storage.write_table(uri, table)
    return pictures


@pytest.mark.parametrize("kind", ["plain", "stratified", "grouped"])
def test_equal_pictures_stay_together(tmp_path: Path, kind: str) -> None:
    hashes = [b"%016d" % (row % 4) for row in range(16)]
    names = [str(row % 8 if row < 16 else row) for row in range(30)]
    twins = repeated(picture_set(tmp_path, fold_by=names), {"hash": hashes})
    for fold in folds_of(twins, settings(kind, 2)):
        held_out, training = ({row["hash"] for row in rows(fold, part)} for part in ("test", "train"))
        assert held_out
        assert not held_out & training


@pytest.mark.parametrize(
    "times",
    [
        [f"2026-01-{1 + row // 3:02d} 10:00:00" for row in range(30)],
        [str(row // 3) for row in range(30)],
        [f"{1 + row // 3}.2.2026" for row in range(30)],
    ],
    ids=["times", "order", "dates"],
)
def test_what_comes_later_is_told_by_what_came_before(tmp_path: Path, times: list[str]) -> None:
    order = np.random.default_rng(0).permutation(30)
    place = {f"train/{row}": int(order[row]) // 3 for row in range(30)}
    folds = folds_of(picture_set(tmp_path, fold_by=[times[at] for at in order]), settings("time_series", 4))
    ends = []
    for fold in folds:
        held_out, training = ([place[key] for key in keys(fold, part)] for part in ("test", "train"))
        assert max(training) + 1 == min(held_out)
        assert sorted(training) == sorted(list(range(max(training) + 1)) * 3)  # whole days, from the first on
        ends.append(max(held_out))
    assert ends == [3, 5, 7, 9]


def test_workers_read_the_rows_of_a_fold_alone(stores: PictureSet) -> None:
    fold = folds_of(stores, settings("grouped"))[1]
    wanted = [row["image"] for row in rows(fold, "train")]
    found = []
    for rank in range(2):
        shard = PictureShard(share_of(fold, "train", rank, 2), lambda some: contents_of(fold, some))
        found += [image for batch in shard.in_order(5) for image in batch.values]
    assert found == wanted


def test_features_are_not_wanted_of_the_test_part(stores: PictureSet) -> None:
    seen = without_test(stores)
    assert {file.part for file in seen.manifest.files} == {"train", "validation"}
    assert seen.manifest.counts.pictures_in == 39
    assert seen.uri == stores.uri


def test_labels_that_a_fold_never_learned_are_told(tmp_path: Path) -> None:
    by_color = picture_set(tmp_path, fold_by=[f"{'ab'[row % 2]} {row % 3}" for row in range(30)])
    alone = picture_set(tmp_path / "alone", fold_by=[str(row % 3) for row in range(30)])
    assert all(not fold.manifest.notes for fold in folds_of(by_color, settings("grouped", 2)))
    notes = [note for fold in folds_of(alone, settings("grouped", 3)) for note in fold.manifest.notes]
    assert sorted(note.partition("seen: ")[2] for note in notes) == ["'blue'.", "'green'.", "'red'."]


@pytest.mark.parametrize(
    ("kind", "folds", "said", "words"),
    [
        ("stratified", 11, None, r"fewer than 11 distinct training pictures of 'blue', 'green', 'red', .*kind=plain"),
        ("plain", 31, None, r"30 distinct training pictures for 31 folds; lower cross_validation\.folds"),
        ("grouped", 8, STORES, r"7 groups of training pictures for 8 folds, by pictures\.columns\.fold_by; lower"),
        ("grouped", 11, list(map(str, range(30))), r"no label has 11 training pictures; lower"),
        ("grouped", 3, None, r"30 of 30 training pictures do not say what they are folded by: name a column in pict"),
        ("grouped", 3, [None, *STORES[1:]], r"1 of 30 training pictures do not say what they are folded by"),
        ("time_series", 7, [f"2026-01-0{1 + row % 7}" for row in range(30)], r"7 different times .* one more than"),
        ("time_series", 3, ["soon", *["2026-01-01"] * 29], r"pictures\.columns\.fold_by: 'soon' is no time"),
    ],
)
def test_what_cannot_be_folded_is_refused(
    tmp_path: Path, kind: str, folds: int, said: Sequence[str | None] | None, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        folds_of(picture_set(tmp_path, fold_by=said), settings(kind, folds))
