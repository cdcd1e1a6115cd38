"""Which pictures or texts train, which are held out, and what the labels are called: decided for the whole set at once.

Nobody's chance has a part in it: pictures are ordered by the hash of their content, so that the same pictures are
always divided in the same way, and equal pictures stay together.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_app.data.distinct_texts import first_of_equals
from ray_app.data.picture_set import Kind
from ray_app.data.split import TEST, TRAIN, VALIDATION
from ray_app.errors import DataError
from ray_app.picture_config import SharesConfig, TextsConfig

UNDECIDED, UNTRAINED, LEFT_OUT, REPEATED = -1, -2, -3, -4
"""In place of a part: not said by anybody; a label without training pictures; beyond `train_share`; not `distinct`."""
LABEL, GROUP, PART, HASH = "label", "group", "part", "hash"
INDEX_SCHEMA = pa.schema(
    [
        pa.field(LABEL, pa.string(), nullable=False),
        pa.field(GROUP, pa.string()),
        pa.field(PART, pa.int8(), nullable=False),
        pa.field(HASH, pa.binary(16), nullable=False),
    ]
)
"""What is known of each picture before the set is divided."""
_SHOWN = 5
"""Labels in a note."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Division:
    """The set divided."""

    classes: list[str]
    groups: list[str] | None
    group_of_class: list[int] | None
    label: Ints
    """Index into `classes` of each picture; -1 where its part is `UNTRAINED` or `REPEATED`."""
    part: Ints
    """TRAIN, VALIDATION, TEST, `UNTRAINED`, `LEFT_OUT` or `REPEATED` of each picture."""
    notes: list[str]

    def counts(self, part: int) -> Ints:
        """Pictures of each class in a part."""
        return np.bincount(self.label[self.part == part], minlength=len(self.classes))


def divide(index: pa.Table, settings: SharesConfig) -> Division:
    """Divide the pictures, or texts, of `index` (`INDEX_SCHEMA`).

    What somebody decided stays, and equal ones go with it: into test before validation, into that before training. Of
    the parts that nobody named each gets its share of each label's training pictures, to one picture more or less, and
    every label keeps one to train on. Labels are sorted by name.

    Raises:
        DataError: there is but one label, or a part is empty.
    """
    index, notes = _joined_decided(index, "texts" if isinstance(settings, TextsConfig) else "pictures")
    if not (isinstance(settings, TextsConfig) and settings.distinct):
        found = _divided(index, settings)
        return replace(found, notes=notes + found.notes)
    kept, told = first_of_equals(index)
    found = _divided(index.filter(pa.array(kept)), settings)
    label, part = np.full(len(kept), -1), np.full(len(kept), REPEATED)
    label[kept], part[kept] = found.label, found.part
    return replace(found, label=label, part=part, notes=notes + told + found.notes)


def _joined_decided(index: pa.Table, kind: Kind) -> tuple[pa.Table, list[str]]:
    """The index, where a picture that names no part has that of a decided equal one, and a note on those."""
    given = index[PART].to_numpy()
    undecided = given == UNDECIDED
    if undecided.all() or not undecided.any():
        return index, []
    picture = _numbers(index[HASH])
    highest = np.full(picture.max() + 1, UNDECIDED, given.dtype)
    np.maximum.at(highest, picture, given)
    part = np.where(undecided, highest[picture], given)
    joined = np.count_nonzero(part != given)
    notes = [f"{joined:,} {kind} name no part, but equal ones do: they are where those are."] if joined else []
    return index.set_column(index.schema.get_field_index(PART), INDEX_SCHEMA.field(PART), pa.array(part)), notes


def _divided(index: pa.Table, settings: SharesConfig) -> Division:
    names, label = np.unique(np.array(index[LABEL].to_pylist(), np.str_), return_inverse=True)
    kind: Kind = "texts" if isinstance(settings, TextsConfig) else "pictures"
    picture = _numbers(index[HASH])
    given = index[PART].to_numpy().astype(np.int64)
    part = np.where(given == UNDECIDED, TRAIN, given)
    notes = _notes(names.tolist(), label, picture, given, kind)
    shares = {TEST: settings.test_share, VALIDATION: settings.validation_share}
    for held_out in [held_out for held_out in shares if held_out in given]:
        shares[held_out] = 0.0
    training = np.flatnonzero(part == TRAIN)
    part[training] = _held_out(label[training], picture[training], shares)
    trained = np.bincount(label[part == TRAIN], minlength=len(names)) > 0
    part[~trained[label]] = UNTRAINED
    if settings.train_share < 1:
        training = np.flatnonzero(part == TRAIN)
        part[training] = _thinned(label[training], picture[training], settings.train_share)
    _check(names[trained].tolist(), part, kind)
    groups, group_of_class, group_notes = _groups(names[trained].tolist(), index)
    number = np.where(trained, np.cumsum(trained) - 1, -1)
    return Division(names[trained].tolist(), groups, group_of_class, number[label], part, notes + group_notes)


def _numbers(hashes: pa.ChunkedArray) -> Ints:
    """A number for each distinct picture, in the order of the hashes."""
    return np.unique(np.array(hashes.to_pylist(), "S16"), return_inverse=True)[1].astype(np.int64)


def _held_out(label: Ints, picture: Ints, shares: dict[int, float]) -> Ints:
    """The part of each picture; equal pictures, also under different labels, have the same."""
    owner, place, counts = _places(label, picture)
    part, taken = np.full(len(owner), TRAIN), np.zeros(len(counts), np.int64)
    for held_out, share in shares.items():
        quota = np.minimum(_quotas(counts, share), np.maximum(counts - 1 - taken, 0))
        part[(place >= taken[owner]) & (place < (taken + quota)[owner])] = held_out
        taken += quota
    return part[np.unique(picture, return_inverse=True)[1]]


def _thinned(label: Ints, picture: Ints, share: float) -> Ints:
    """TRAIN for a share of the pictures of each label, one at least, and `LEFT_OUT` for the others."""
    owner, place, counts = _places(label, picture)
    kept = place < np.maximum(_quotas(counts, share), 1)[owner]
    found = np.where(kept, TRAIN, LEFT_OUT)[np.unique(picture, return_inverse=True)[1]]
    lost = np.bincount(label[found == TRAIN], minlength=len(counts)) == 0
    found[lost[label]] = TRAIN  # all its pictures count as another label's, which equal ones have
    return found


def _places(label: Ints, picture: Ints) -> tuple[Ints, Ints, Ints]:
    """Of each distinct picture its first label and its place among the pictures of that; distinct pictures by label."""
    distinct, inverse = np.unique(picture, return_inverse=True)
    owner = np.full(len(distinct), label.max(initial=0))
    np.minimum.at(owner, inverse, label)
    counts = np.bincount(owner, minlength=int(label.max(initial=0)) + 1)
    order = np.argsort(owner, kind="stable")
    place = np.empty(len(owner), np.int64)
    place[order] = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owner, place, counts


def _quotas(counts: Ints, share: float) -> Ints:
    """A share of each count, rounded so that all together have their share too."""
    wanted: Ints = np.floor(np.cumsum(counts) * share + 1e-9).astype(np.int64)
    return np.diff(wanted, prepend=0)


def _check(classes: Sequence[str], part: Ints, kind: Kind) -> None:
    if len(classes) < 2:
        found = f"one label, {classes[0]!r}" if classes else "no label"
        raise DataError(
            f"there is {found} with training {kind}, so there is nothing to tell apart; "
            f"look at data.events and {kind}.columns.label"
        )
    for wanted, share in ((VALIDATION, "validation_share"), (TEST, "test_share")):
        if not (part == wanted).any():
            raise DataError(
                f"no {kind[:-1]} is left for {share.removesuffix('_share')}: there are too few in all, or their "
                f"labels have no training {kind}; raise {kind}.{share}, or look at {kind}.columns.part"
            )


def _groups(classes: list[str], index: pa.Table) -> tuple[list[str] | None, list[int] | None, list[str]]:
    """Names of the groups, the group of each class, and notes on labels that have several or none."""
    if index[GROUP].null_count == len(index):
        return None, None, []
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, group in zip(index[LABEL].to_pylist(), index[GROUP].to_pylist(), strict=True):
        if group is not None:
            found[name][group] += 1
    chosen = {name: min(found[name], key=lambda group: (-found[name][group], group)) for name in classes if found[name]}
    groups = sorted({chosen.get(name, name) for name in classes})
    number = {group: place for place, group in enumerate(groups)}
    several = [name for name in classes if len(found[name]) > 1]
    alone = [name for name in classes if not found[name]]
    notes = [f"{_listed(several)} in several groups; the most frequent one counts."] if several else []
    notes += [f"{_listed(alone)} in no group; each is one of its own."] if alone else []
    return groups, [number[chosen.get(name, name)] for name in classes], notes


def _notes(names: list[str], label: Ints, picture: Ints, given: Ints, kind: Kind) -> list[str]:
    """What a person should know of the labels and parts as they came."""
    notes = []
    alike = defaultdict(list)
    for name in names:
        alike[" ".join(name.split()).casefold()].append(name)
    if twins := [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]:
        notes.append(f"Labels that differ in case or spaces alone count as different: {'; '.join(twins[:_SHOWN])}.")
    if single := [names[number] for number in np.flatnonzero(np.bincount(label) == 1)]:
        notes.append(
            f"{_listed(single)} on one {kind[:-1]} alone, so that it cannot be seen how well they are recognised."
        )
    pairs = np.unique(np.stack([picture, label]), axis=1)
    if twice := int(np.count_nonzero(np.bincount(pairs[0]) > 1)):
        notes.append(f"{twice:,} {kind} stand there under several labels; they were kept under each.")
    decided = given != UNDECIDED
    if decided.any() and not decided.all():
        notes.append(f"{np.count_nonzero(~decided):,} {kind} name no part, and others do: they are for training.")
    shared = np.intersect1d(picture[given == TRAIN], picture[given > TRAIN])
    if len(shared):
        notes.append(f"{len(shared):,} training {kind} stand in a part that is held out too, as somebody decided.")
    return notes


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names):,} {'labels stand' if len(names) > 1 else 'label stands'} ({shown})"
