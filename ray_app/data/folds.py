"""The train part of labelled pictures or texts in folds: sets that share its files, and what is computed beside them.

Nobody's chance has a part in it: they are taken in the order of the hash of their content. Equal ones stay together.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold, TimeSeriesSplit

from ray_app.config import fingerprint
from ray_app.data.picture_set import PartName, PictureCounts, PictureFile, PictureSet
from ray_app.data.picture_shard import chosen
from ray_app.data.times import as_times, is_day_first
from ray_app.errors import DataError
from ray_app.picture_config import CrossValidationConfig
from ray_app.storage import join

LABEL, HASH, FOLD_BY = "label", "hash", "fold_by"
_SHOWN = 5
"""Labels in a message."""
_FEWER = "lower cross_validation.folds"
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Splits = Iterator[tuple[Mask, Mask]]
"""Of each fold, which rows it is told from, and which it holds out."""


def folds_of(pictures: PictureSet, settings: CrossValidationConfig) -> list[PictureSet]:
    """One set for each fold, which is its test part; its train part is what the fold is told from.

    Its validation part is that of `pictures`, whose test part is in none of them.

    Raises:
        DataError: the pictures or texts, or what they are folded by, are too few for so many folds, or do not say it.
    """
    tables = [pictures.storage.read_table(uri, [LABEL, HASH, FOLD_BY]) for uri in pictures.uris("train")]
    index = pa.concat_tables(tables)
    label = index[LABEL].to_numpy().astype(np.int64)
    found = [
        _fold(pictures, settings, number, training, held_out, label)
        for number, (training, held_out) in enumerate(_DIVIDE[settings.kind](index, label, pictures, settings.folds))
    ]
    if empty := [str(number) for number, fold in enumerate(found, 1) if not fold.size("test")]:
        raise DataError(f"nothing is left for fold {', '.join(empty)}: what stays together is too large; {_FEWER}")
    return found


def held_out_groups(folds: Sequence[PictureSet]) -> NDArray[np.int64]:
    """Of everything that grouped folds hold out, in their order, the number of its group."""
    said = list[str]()
    for fold in folds:
        for file in fold.files("test"):
            column = chosen(fold.storage.read_table(join(fold.uri, file.path), [FOLD_BY]), file.rows)[FOLD_BY]
            said += column.to_pylist()
    return np.unique(np.array(said, np.str_), return_inverse=True)[1]


def without_test(pictures: PictureSet) -> PictureSet:
    """What folds may see."""
    return _with_files(pictures, [*pictures.files("train"), *pictures.files("validation")])


def _fold(
    pictures: PictureSet, settings: CrossValidationConfig, number: int, training: Mask, held_out: Mask, label: Ints
) -> PictureSet:
    files, start = list[PictureFile](), 0
    masks: tuple[tuple[PartName, Mask], ...] = (("train", training), ("test", held_out))
    for file in pictures.files("train"):
        for part, mask in masks:
            rows = np.flatnonzero(mask[start : start + file.pictures]).tolist()
            if rows:
                files.append(PictureFile(path=file.path, part=part, pictures=len(rows), rows=tuple(rows)))
        start += file.pictures
    counts = np.bincount(label[training], minlength=pictures.num_classes)
    untrained = np.setdiff1d(label[held_out], label[training])
    note = f"Fold {number + 1} asks for what its model has not seen: {_named(pictures, untrained)}."
    changes = {
        "fingerprint": fingerprint(pictures.manifest.fingerprint, settings, number),
        "train_counts": counts.tolist(),
        "notes": [note] if len(untrained) else [],
    }
    return _with_files(pictures, [*files, *pictures.files("validation")], changes)


def _with_files(
    pictures: PictureSet, files: Sequence[PictureFile], changes: dict[str, Any] | None = None
) -> PictureSet:
    sizes = {
        part: sum(file.pictures for file in files if file.part == part) for part in ("train", "validation", "test")
    }
    counts = PictureCounts(pictures_in=sum(sizes.values()), quarantined={}, **sizes)
    manifest = pictures.manifest.model_copy(update={"files": list(files), "counts": counts, **(changes or {})})
    return PictureSet(pictures.storage, pictures.uri, manifest)


def _plain(index: pa.Table, label: Ints, pictures: PictureSet, folds: int) -> Splits:
    unit, _ = _distinct(index, label)
    if unit.max() + 1 < folds:
        raise DataError(f"{unit.max() + 1} distinct training {pictures.kind} for {folds} folds; {_FEWER}")
    yield from _masks(unit, KFold(folds).split(np.arange(unit.max() + 1)))


def _stratified(index: pa.Table, label: Ints, pictures: PictureSet, folds: int) -> Splits:
    unit, owner = _distinct(index, label)
    counts = np.bincount(owner, minlength=pictures.num_classes)
    if (few := np.flatnonzero(counts < folds)).size:
        raise DataError(
            f"there are fewer than {folds} distinct training {pictures.kind} of {_named(pictures, few)}, so not every "
            f"fold can have one; {_FEWER}, or set cross_validation.kind=plain"
        )
    yield from _masks(unit, StratifiedKFold(folds).split(owner, owner))


def _grouped(index: pa.Table, label: Ints, pictures: PictureSet, folds: int) -> Splits:
    """Groups that have a picture in common count as one."""
    said, (picture, _) = _said(index, pictures), _distinct(index, label)
    names, group = np.unique(np.array(said.to_pylist(), np.str_), return_inverse=True)
    size = len(names) + int(picture.max()) + 1
    edges = coo_array((np.ones(len(group), np.int8), (group, len(names) + picture)), shape=(size, size))
    number, whole = connected_components(edges, directed=False)
    if number < folds:
        raise DataError(
            f"{number} groups of training {pictures.kind} for {folds} folds, by {_column(pictures)}; {_FEWER}"
        )
    if np.bincount(label).max() < folds:
        raise DataError(f"no label has {folds} training {pictures.kind}; {_FEWER}")
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of labels that cannot be in every fold
        splits = list(StratifiedGroupKFold(folds).split(label, label, whole[group]))
    yield from _masks(np.arange(len(label)), splits)


def _by_time(index: pa.Table, label: Ints, pictures: PictureSet, folds: int) -> Splits:
    moments, unit = np.unique(_times(_said(index, pictures), pictures), return_inverse=True)
    if len(moments) <= folds:
        raise DataError(
            f"{len(moments)} different times of training {pictures.kind} for {folds} folds, by {_column(pictures)}, "
            f"and it takes one more than there are folds; {_FEWER}"
        )
    yield from _masks(unit, TimeSeriesSplit(folds).split(moments))


_DIVIDE = {"plain": _plain, "stratified": _stratified, "grouped": _grouped, "time_series": _by_time}


def _masks(unit: Ints, splits: Iterable[tuple[Ints, Ints]]) -> Splits:
    for training, held_out in splits:
        yield np.isin(unit, training), np.isin(unit, held_out)


def _distinct(index: pa.Table, label: Ints) -> tuple[Ints, Ints]:
    """The number of each row's picture in the order of the hashes, and the first label of each picture."""
    hashes, picture = np.unique(np.array(index[HASH].to_pylist(), "S16"), return_inverse=True)
    owner = np.full(len(hashes), label.max())
    np.minimum.at(owner, picture, label)
    return picture.astype(np.int64), owner


def _said(index: pa.Table, pictures: PictureSet) -> pa.Array:
    if missing := index[FOLD_BY].null_count:
        raise DataError(
            f"{missing:,} of {len(index):,} training {pictures.kind} do not say what they are folded by: name a column "
            f"in {_column(pictures)} that every row has, or set cross_validation.kind=stratified"
        )
    return pa.concat_arrays(index[FOLD_BY].chunks)


def _times(said: pa.Array, pictures: PictureSet) -> Ints:
    """Times in any form, or plain order numbers."""
    places = as_times(said).day_places
    found = as_times(said, day_first=is_day_first([places]))
    if found.bad.any():
        order = as_times(said, "order")
        found = found if order.bad.any() else order
    if found.bad.any():
        raise DataError(f"{_column(pictures)}: {said[int(np.argmax(found.bad))].as_py()!r} is no time")
    return found.us


def _column(pictures: PictureSet) -> str:
    return f"{pictures.kind}.columns.fold_by"


def _named(pictures: PictureSet, classes: Ints) -> str:
    names = ", ".join(repr(pictures.manifest.classes[number]) for number in classes[:_SHOWN])
    return names + (f" and {len(classes) - _SHOWN:,} more" if len(classes) > _SHOWN else "")
