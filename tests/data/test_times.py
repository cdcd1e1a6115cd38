from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.data.times import as_times, day_places, is_day_first

WHEN = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(lambda moment: moment.replace(microsecond=0))


def us(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def read(value: object, **rules: object) -> int | str:
    column = value if isinstance(value, pa.Array) else pa.array([value])
    times = as_times(column, **rules)
    return "missing" if times.missing[0] else "bad" if times.bad[0] else int(times.us[0])


@pytest.mark.parametrize(
    "text",
    [
        "2010-12-01 08:26",
        "2010-12-01T08:26:00",
        "2010-12-01T08:26:00Z",
        "2010-12-01 08:26:00 UTC",
        "2010-12-01T10:26:00+02:00",
        "2010-12-01T10:26:00+0200",
        "2010-12-01T02:56:00.000-0530",
        "2010/12/01 08:26",
        "2010.12.1 8:26",
        " 2010-12-01 08:26:00,000 ",
        "2010-12-01T08:26:00.000000000",
        "12/1/2010 8:26",
        "12/01/10 08:26:00",
        "12/1/2010, 8:26:00 AM",
        "1.12.2010 8:26",
        "01-Dec-2010 08:26",
        "1 December 2010 08:26",
        "Dec 1, 2010 8:26 am",
        "Wed, 01 Dec 2010 08:26:00 GMT",
        "1291191960",
        "1291191960.0",
        "1291191960000",
        "20101201082600",
    ],
)
def test_reads_a_moment_written_in_any_form(text: str):
    assert read(text) == us(WHEN)
    assert read(pa.array([text, "Feb 3, 2011"])) == us(WHEN)  # not only when all values have one form


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2010-12-01", datetime(2010, 12, 1)),
        ("20101201", datetime(2010, 12, 1)),
        ("12/1/2010 12:05 AM", datetime(2010, 12, 1, 0, 5)),
        ("12/1/2010 12:05 PM", datetime(2010, 12, 1, 12, 5)),
        ("12/1/2010 8:26:05 pm", datetime(2010, 12, 1, 20, 26, 5)),
        ("12/1/98", datetime(1998, 12, 1)),
        ("2024-02-29", datetime(2024, 2, 29)),
        ("2010-12-01 08:26:01.123456789", datetime(2010, 12, 1, 8, 26, 1, 123456)),
        ("1969-12-31", datetime(1969, 12, 31)),
        ("-5", datetime(1969, 12, 31, 23, 59, 55)),
    ],
)
def test_reads_other_moments(text: str, moment: datetime):
    assert read(text) == us(moment)


@pytest.mark.parametrize(
    "text",
    ["abc", "2010-02-30", "2010-13-01", "2010-12-01 25:00", "2010-12-01 08:60", "13/13/2010", "0000-00-00",
     "1 Dezz 2010", "12/1/2010 13:00 PM", "99999999999999999999", "7", "2023-02-29 10:00", "2010-12-01 garbage"],
)  # fmt: skip
def test_refuses_what_is_no_moment(text: str):
    assert read(text) == "bad"
    assert read(pa.array([text, "2010-12-01"])) == "bad"


@pytest.mark.parametrize("nothing", [None, "", "   ", pa.array([float("nan")]), pa.nulls(1, pa.timestamp("s"))])
def test_nothing_is_missing_and_not_bad(nothing: object):
    assert read(nothing if not isinstance(nothing, str | None) else pa.array([nothing], pa.string())) == "missing"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([WHEN], pa.timestamp("us", "UTC")),
        pa.array([WHEN.astimezone(timezone(timedelta(hours=5)))], pa.timestamp("ns", "Asia/Tokyo")),
        pa.array([WHEN.replace(tzinfo=None)], pa.timestamp("s")),
        pa.array(["2010-12-01 08:26"]).dictionary_encode(),
        pa.array(["2010-12-01 08:26"], pa.large_string()),
        pa.array([us(WHEN) // 1_000_000], pa.int64()),
        pa.array([us(WHEN) // 1_000_000], pa.uint32()),
        pa.array([us(WHEN) // 1_000], pa.int64()),
        pa.array([us(WHEN)], pa.int64()),
        pa.array([us(WHEN) * 1_000], pa.int64()),
        pa.array([us(WHEN) / 1e6], pa.float64()),
        pa.array([us(WHEN) / 1e3], pa.float64()),
        pa.array([20101201082600]),
    ],
)
def test_reads_a_moment_of_any_type(column: pa.Array):
    assert read(column) == us(WHEN)


def test_dates_are_midnights():
    assert read(pa.array([date(2010, 12, 1)])) == us(datetime(2010, 12, 1))
    assert read(pa.array([date(2010, 12, 1)], pa.date64())) == us(datetime(2010, 12, 1))


@pytest.mark.parametrize(
    "column", [pa.array([True]), pa.array([[1]]), pa.array([b"2010-12-01"]), pa.array([float("inf")])]
)
def test_refuses_types_that_are_no_moments(column: pa.Array):
    assert read(column) == "bad"


def test_a_unit_wins_over_magnitude():
    assert [read(7, unit=unit) for unit in ("s", "ms", "us", "ns")] == [7_000_000, 7_000, 7, 0]
    assert read(20101201, unit="s") == 20101201 * 1_000_000
    assert read(2**62, unit="s") == "bad"  # beyond the year 10000


def test_order_numbers_are_taken_as_they_are():
    times = as_times(pa.array(["3", "x", None, "5.0", "5.5", "-1"]), "order")
    assert times.us.tolist() == [3, 0, 0, 5, 0, -1]
    assert times.bad.tolist() == [False, True, False, False, True, False]
    assert times.missing.tolist() == [False, False, True, False, False, False]


def test_an_undeclared_order_number_is_bad_rather_than_a_second_of_1970():
    assert as_times(pa.array([1, 2, 3])).bad.all()


def test_day_first_is_told_by_numbers_above_12():
    day_first = [day_places(pa.array(["13/1/2010", "1/12/2010", "x", None]))]
    month_first = [day_places(pa.array(["1/13/2010", "1/12/2010 8:26"]))]
    assert is_day_first(day_first)
    assert not is_day_first(month_first)
    assert not is_day_first([*day_first, *month_first])
    assert is_day_first([*day_first, *day_first, *month_first])  # a slip of the pen does not turn a log
    assert not is_day_first([])
    assert as_times(pa.array(["13/1/2010", "13/1/2010", "1/31/2010 8:00", "x", "2010-12-13"])).day_places == (1, 1)
    assert day_places(pa.array([1, 2])) == (0, 0)
    assert day_places(pa.array(["2010-12-13"])) == (0, 0)


def test_what_contradicts_the_order_of_day_and_month_is_bad():
    assert read("13/1/2010") == "bad"
    assert read("13/1/2010", day_first=True) == us(datetime(2010, 1, 13))
    assert read("1/13/2010", day_first=True) == "bad"


@settings(max_examples=50)
@given(st.lists(MOMENTS, min_size=1, max_size=20))
def test_agrees_with_strftime(moments: list[datetime]):
    expected = [us(moment) for moment in moments]
    forms = [
        *("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y%m%d%H%M%S"),
        *("%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %H:%M:%S"),
        *("%d %b %Y %H:%M:%S", "%B %d, %Y %H:%M:%S", "%a, %d %b %Y %H:%M:%S +0000"),
    ]
    for form in forms:
        times = as_times(pa.array([moment.strftime(form) for moment in moments]))
        assert not times.bad.any(), form
        assert times.us.tolist() == expected, form


def test_repeated_values_and_nulls_keep_their_places():
    times = as_times(pa.array(["2010-12-02", None, "x", "2010-12-02", "", "2010-12-01"]))
    day = 86_400_000_000
    first = us(datetime(2010, 12, 1))
    assert times.us.tolist() == [first + day, 0, 0, first + day, 0, first]
    assert np.flatnonzero(times.missing).tolist() == [1, 4]
    assert np.flatnonzero(times.bad).tolist() == [2]
