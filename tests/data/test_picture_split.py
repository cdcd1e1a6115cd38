import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.data.picture_split import INDEX_SCHEMA, LEFT_OUT, UNDECIDED, UNTRAINED, Division, divide
from ray_app.data.split import TEST, TRAIN, VALIDATION
from ray_app.errors import DataError
from ray_app.picture_config import PicturesConfig


def index(labels: list[str], parts: list[int] | None = None, contents: list | None = None, groups: list | None = None):
    hashes = [hashlib.md5(repr(content).encode()).digest() for content in contents or range(len(labels))]
    columns = [labels, groups or [None] * len(labels), parts or [UNDECIDED] * len(labels), hashes]
    return pa.table(columns, schema=INDEX_SCHEMA)


def divided(*columns, **settings) -> Division:
    return divide(index(*columns), PicturesConfig.model_validate(settings))


def test_nobody_decided():
    labels = ["pear"] * 100 + ["apple"] * 40 + ["fig"] * 10
    found = divided(labels)
    assert found.classes == ["apple", "fig", "pear"]
    assert found.counts(TEST).tolist() == [8, 2, 20]
    assert found.counts(VALIDATION).tolist() == [4, 1, 10]
    assert found.counts(TRAIN).tolist() == [28, 7, 70]
    again = divide(index(labels).take(np.arange(150)[::-1]), PicturesConfig())
    assert (again.part[::-1] == found.part).all()
    assert found.notes == []


def test_many_small_labels_share_what_is_held_out():
    found = divided([f"{number // 4}" for number in range(400)])
    assert [found.counts(part).sum() for part in (TRAIN, VALIDATION, TEST)] == [280, 40, 80]
    assert found.counts(TRAIN).min() >= 2


def test_what_is_missing_comes_from_training():
    labels = ["a", "b"] * 50
    parts = [TRAIN] * 80 + [TEST] * 20
    found = divided(labels, parts)
    assert (found.part[80:] == TEST).all()
    assert found.counts(VALIDATION).tolist() == [4, 4]
    parts = [TRAIN] * 80 + [VALIDATION] * 20
    found = divided(labels, parts)
    assert (found.part[80:] == VALIDATION).all()
    assert found.counts(TEST).tolist() == [8, 8]


def test_undecided_beside_decided_are_for_training():
    found = divided(["a", "b"] * 4, [TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST, UNDECIDED, UNDECIDED])
    assert found.part.tolist() == [TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST, TRAIN, TRAIN]
    assert any(note.startswith("2 pictures name no part") for note in found.notes)


def test_labels_without_training_pictures_are_told():
    found = divided(["a", "b", "new"] * 3, [TRAIN] * 2 + [VALIDATION] * 4 + [TEST] * 3)
    assert found.classes == ["a", "b"]
    assert found.part[[2, 5, 8]].tolist() == [UNTRAINED] * 3
    assert found.label[[2, 5, 8]].tolist() == [-1] * 3


def test_equal_pictures_stay_together_and_keep_their_labels():
    contents = [number // 2 for number in range(100)]
    found = divided(["a"] * 60 + ["b"] * 40, None, contents)
    assert (found.part[::2] == found.part[1::2]).all()
    assert len(set(found.part)) == 3
    both = divided(["a", "b"] * 50, None, contents)
    assert (both.part[::2] == both.part[1::2]).all()
    assert "50 pictures stand there under several labels; they were kept under each." in both.notes


def test_equal_pictures_in_decided_parts_are_told():
    found = divided(["a", "b"] * 3, [TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST], [0, 1, 0, 2, 3, 4])
    assert found.part[2] == VALIDATION
    assert any("1 training pictures stand in a part that is held out" in note for note in found.notes)


def test_undecided_copies_go_with_decided_ones():
    """They were for training, or validation, beside the given test pictures that they are equal to."""
    labels = ["a", "b"] * 14
    parts = [TRAIN] * 8 + [VALIDATION] * 4 + [TEST] * 4 + [UNDECIDED] * 12
    contents = [0, 1, 2, 3, 4, 5, 6, 7, 0, 8, 9, 10, 8, 11, 12, 13, 0, 1, 8, 11, 9, 20, 21, 22, 23, 24, 25, 12]
    found = divided(labels, parts, contents)
    assert found.part[:16].tolist() == parts[:16]
    assert found.part[16:21].tolist() == [VALIDATION, TRAIN, TEST, TEST, VALIDATION]
    assert found.part[21:].tolist() == [TRAIN] * 6 + [TEST]
    assert "6 pictures name no part, but equal ones do: they are where those are." in found.notes
    assert any(note.startswith("6 pictures name no part, and others do") for note in found.notes)
    assert any(note.startswith("1 training pictures stand in a part that is held out") for note in found.notes)


def test_a_test_part_alone_keeps_its_copies_out_of_what_is_drawn():
    """A folder `test/` beside others: of the rest a part is drawn, and copies of test pictures were in it."""
    contents = [*range(80), *range(20), *range(20, 40)]
    found = divided(["a", "b"] * 60, [UNDECIDED] * 80 + [TEST] * 20 + [UNDECIDED] * 20, contents)
    assert (found.part[:20] == TEST).all()
    assert (found.part[20:80] != TEST).all()
    assert (found.part[20:40] == found.part[100:]).all()
    assert (found.part == VALIDATION).sum() >= 6


def test_a_share_of_the_training_pictures():
    labels = ["a"] * 70 + ["b"] * 30
    whole, part, less = (divided(labels, train_share=share) for share in (1.0, 0.5, 0.01))
    assert part.counts(TRAIN).tolist() == [24, 11]  # of 49 and 21
    assert less.counts(TRAIN).tolist() == [1, 1]
    assert (part.part == LEFT_OUT).sum() == whole.counts(TRAIN).sum() - 35
    for thin in (part, less):
        assert ((thin.part == VALIDATION) == (whole.part == VALIDATION)).all()
        assert ((thin.part == TEST) == (whole.part == TEST)).all()
    assert not ((less.part == TRAIN) & (part.part != TRAIN)).any()


def test_labels_that_look_alike_and_labels_of_one_picture():
    found = divided(["Apple", "apple ", "apple"] + ["pear"] * 20)
    assert found.part[:3].tolist() == [TRAIN] * 3
    assert found.classes == ["Apple", "apple", "apple ", "pear"]
    alike, single = found.notes
    assert "'Apple' and 'apple' and 'apple '" in alike
    assert single.startswith("3 labels stand ('Apple', 'apple', 'apple ') on one picture alone")


def test_groups():
    labels, groups = ["a"] * 10 + ["b"] * 10 + ["c"] * 10, ["x"] * 9 + ["y"] + [None] * 10 + ["y"] * 10
    found = divided(labels, None, None, groups)
    assert (found.groups, found.group_of_class) == (["b", "x", "y"], [1, 0, 2])
    several, alone = found.notes
    assert several == "1 label stands ('a') in several groups; the most frequent one counts."
    assert alone == "1 label stands ('b') in no group; each is one of its own."


@pytest.mark.parametrize(
    ("labels", "parts", "words"),
    [
        (["a"] * 20, None, "one label, 'a'"),
        (["a", "b"], None, "no picture is left for validation"),
        (["a", "b"] * 10, [TEST] * 20, "no label with training pictures"),
        (["a", "b"] * 4, [TRAIN] * 4 + [VALIDATION] * 4, "no picture is left for test"),
    ],
)
def test_sets_that_cannot_be_learned(labels: list[str], parts: list[int] | None, words: str):
    with pytest.raises(DataError, match=words):
        divided(labels, parts)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.sampled_from([UNDECIDED, TEST])),
        min_size=8,
        max_size=60,
    )
)
def test_what_is_tested_is_never_trained_on(pictures: list):
    labels, contents, parts = (list(column) for column in zip(*pictures, strict=True))
    try:
        found = divided(labels, parts, contents)
    except DataError:
        return
    of_test, others = (
        {content for content, part in zip(contents, found.part, strict=True) if (part == TEST) == is_test and part >= 0}
        for is_test in (True, False)
    )
    assert not of_test & others


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 30)), min_size=1, max_size=60), st.floats(0.05, 1))
def test_every_label_is_trained_and_equal_pictures_are_together(pictures: list, share: float):
    labels, contents = [label for label, _ in pictures], [content for _, content in pictures]
    try:
        found = divided(labels, None, contents, None, train_share=share)
    except DataError:
        return
    assert found.counts(TRAIN).min() >= 1
    assert len(found.part) == len(labels)
    held = [part if part != LEFT_OUT else TRAIN for part in found.part.tolist()]
    by_content: dict[int, set[int]] = {}
    for content, part in zip(contents, held, strict=True):
        by_content.setdefault(content, set()).add(part)
    assert all(len(parts - {UNTRAINED}) <= 1 for parts in by_content.values())
