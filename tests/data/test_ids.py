from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from ray_app.data.ids import are_integers, as_ids, bucket_of


@pytest.mark.parametrize(
    ("column", "text", "integers"),
    [
        (pa.array([1, None, -3]), ["1", None, "-3"], True),
        (pa.array([7], pa.uint8()), ["7"], True),
        (pa.array([2**63], pa.uint64()), [str(2**63)], False),
        (pa.array([17850.0, None, float("nan"), 3.0]), ["17850", None, None, "3"], True),
        (pa.array([1.5, 2.0]), ["1.5", "2"], False),
        (pa.array([Decimal("12")], pa.decimal128(5, 0)), ["12"], None),
        (pa.array(["a", "", "  ", None]), ["a", None, None, None], False),
        (pa.array(["1", "2"]), ["1", "2"], False),
        (pa.array(["用户-1", "Ñandú", "🙂"]), ["用户-1", "Ñandú", "🙂"], False),
        (pa.array(["x", "x"]).dictionary_encode(), ["x", "x"], False),
        (pa.array([b"ok"]), ["ok"], False),
        (pa.array([[1]]), [None], False),
        (pa.nulls(2), [None, None], False),
    ],
)
def test_typed_columns(column: pa.Array, text: list[str | None], integers: bool | None):
    ids = as_ids(column, untyped=False)
    assert ids.text.to_pylist() == text
    assert ids.integers is integers


def test_untyped_columns_leave_it_to_each_value():
    ids = as_ids(pa.array(["7", "17850.0", "1.50", "a.0", None]), untyped=True)
    assert ids.text.to_pylist() == ["7", "17850", "1.50", "a.0", None]
    assert ids.integers is None


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        (["0", "-3", "999999999999999999", None], True),
        ([], True),
        (["007"], False),
        (["+1"], False),
        (["-0"], False),
        (["1 "], False),
        (["1234567890123456789"], False),  # might not fit int64
        (["1", "x"], False),
    ],
)
def test_integers_are_what_survives_a_round_trip(values: list[str | None], answer: bool):
    assert are_integers(pa.array(values, pa.string())) is answer


def test_an_id_has_the_same_bucket_however_it_came():
    numbers = as_ids(pa.array([5, 123456]), untyped=False).text
    texts = as_ids(pa.array(["x", "5", "123456"]), untyped=True).text.slice(1)
    assert bucket_of(numbers, 16).tolist() == bucket_of(texts, 16).tolist()


def test_buckets_are_fixed_for_all_time():
    """A change of the hash would scatter a user's events when a job is retried by a newer version."""
    assert bucket_of(pa.array(["", "a", "foobar", "用户"]), 1000).tolist() == [945, 824, 697, 561]


@pytest.mark.parametrize("ids", [[str(k) for k in range(20_000)], [f"客户-{k:08d}" for k in range(20_000)]])
def test_buckets_are_even(ids: list[str]):
    counts = np.bincount(bucket_of(pa.array(ids), 16), minlength=16)
    assert counts.min() > 0.85 * 20_000 / 16
    assert counts.max() < 1.15 * 20_000 / 16


def test_very_long_ids_are_hashed_by_their_beginning():
    long = "x" * 300
    assert bucket_of(pa.array([long, long + "y"]), 997).tolist()[0] == bucket_of(pa.array([long]), 997)[0]
