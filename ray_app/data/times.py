"""Timestamps in the forms that retail logs have, as microseconds since 1970 UTC.

Understood: Arrow timestamps and dates; text in ISO form, as 12/1/2010 8:26 PM, 1.12.2010, 1 Dec 2010, Dec 1, 2010;
epochs in s, ms, us or ns told apart by magnitude; 20101201 and 20101201082600. Times without a zone are UTC.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Unit = Literal["auto", "order", "s", "ms", "us", "ns"]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
_EPOCH_LIMITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
_SMALLEST_EPOCH = 100_000_000
"""Seconds in 1973: smaller plain numbers are order numbers that nobody declared, not times."""
_LIMIT_US = 253_402_300_800_000_000
"""The year 10000."""
_TIME = (
    r"(?:(?:[T ]|, ?) *(?P<H>[0-9]{1,2})(?::(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?)?"
    r" ?(?P<p>[AaPp][Mm])?)? ?(?P<z>Z|z|UTC|GMT|[+-][0-9]{2}:?(?:[0-9]{2})?)?$"
)
_ISO = r"^(?P<Y>[0-9]{4})[-/.](?P<m>[0-9]{1,2})[-/.](?P<d>[0-9]{1,2})" + _TIME
_DOTTED = r"^(?P<d>[0-9]{1,2})\.(?P<m>[0-9]{1,2})\.(?P<Y>[0-9]{4}|[0-9]{2})" + _TIME
_NUMERIC = r"^(?P<a>[0-9]{1,2})[-/](?P<b>[0-9]{1,2})[-/](?P<Y>[0-9]{4}|[0-9]{2})" + _TIME
_WEEKDAY = r"^(?:[A-Za-z]{3,9},? )?"
_DAY_NAMED = _WEEKDAY + r"(?P<d>[0-9]{1,2})[- ](?P<n>[A-Za-z]{3})[A-Za-z]*\.?,?[- ](?P<Y>[0-9]{4}|[0-9]{2})" + _TIME
_NAMED_DAY = _WEEKDAY + r"(?P<n>[A-Za-z]{3})[A-Za-z]*\.? (?P<d>[0-9]{1,2}),? (?P<Y>[0-9]{4})" + _TIME
_PLAIN = r"^-?[0-9]{1,19}(\.[0-9]*)?$"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class Times(NamedTuple):
    """Microseconds (or order numbers); 0 where `missing` or `bad` says that there is none."""

    us: IntArray
    missing: Mask
    bad: Mask
    day_places: tuple[int, int] = (0, 0)
    """`day_places` of the distinct values."""


def as_times(column: pa.Array, unit: Unit = "auto", day_first: bool = False) -> Times:
    """Any column as times. With unit "order", plain whole numbers as they are.

    Args:
        column: any Arrow type; what cannot be a time is bad.
        unit: what numbers mean; "auto" goes by their size.
        day_first: whether 1/12/2010 is in December. A value that contradicts it is bad, never guessed.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    missing = np.asarray(column.is_null())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        us, bad = _from_arrow(column)
    elif pa.types.is_integer(kind):
        us, bad = _from_integers(column, unit)
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        missing = missing | np.isnan(values)
        us, bad = _from_floats(values, unit)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_text(column.cast(pa.string()), unit, day_first)
    else:
        us, bad = np.zeros(len(column), np.int64), np.ones(len(column), bool)
    bad = bad & ~missing
    return Times(np.where(missing | bad, 0, us), missing, bad)


def day_places(sample: pa.Array) -> tuple[int, int]:
    """Of dates like 1/12/2010, how many must have the day first, and how many second (it is above 12 there)."""
    if not (pa.types.is_string(sample.type) or pa.types.is_large_string(sample.type)):
        return 0, 0
    return _places(pc.extract_regex(pc.utf8_trim_whitespace(sample), _NUMERIC))


def is_day_first(places: Iterable[tuple[int, int]]) -> bool:
    """Whether most dates like 1/12/2010 put the day first, from the `day_places` of several samples."""
    first, second = np.array([(0, 0), *places]).sum(axis=0)
    return bool(first > second)


def _from_arrow(column: pa.Array) -> tuple[IntArray, Mask]:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    unit = column.type.unit
    values = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return _scale(values, unit)


def _scale(values: IntArray, unit: str) -> tuple[IntArray, Mask]:
    if unit == "ns":
        return values // 1_000, np.zeros(len(values), bool)
    limit = _LIMIT_US // _US[unit]
    bad = (values > limit) | (values < -limit)
    return np.where(bad, 0, values) * _US[unit], bad


def _from_integers(column: pa.Array, unit: Unit) -> tuple[IntArray, Mask]:
    try:
        values = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:  # uint64 beyond int64
        return _from_floats(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), unit)
    if unit == "order":
        return values, np.zeros(len(values), bool)
    return _scale(values, unit) if unit != "auto" else _by_magnitude(values)


def _from_floats(values: NDArray[np.float64], unit: Unit) -> tuple[IntArray, Mask]:
    """Floats keep their fraction of a second (`time.time()` writes such)."""
    finite = np.isfinite(values) & (np.abs(values) < 2.0**63)
    clean = np.where(finite, values, 0.0)
    if unit == "order":
        return clean.astype(np.int64), ~finite | (np.trunc(clean) != clean)
    whole = clean.astype(np.int64)
    us, bad = _scale(whole, unit) if unit != "auto" else _by_magnitude(whole)
    seconds = np.abs(clean) < _EPOCH_LIMITS[0][0] if unit == "auto" else np.full(len(clean), unit == "s")
    calendar = _looks_like_date(whole) if unit == "auto" else np.zeros(len(clean), bool)
    fraction = np.where(seconds & ~calendar, np.rint((clean - whole) * 1e6), 0).astype(np.int64)
    return us + fraction, bad | ~finite


def _by_magnitude(values: IntArray) -> tuple[IntArray, Mask]:
    calendar = _looks_like_date(values)
    size = np.abs(values.astype(np.float64))
    bad = (values >= 0) & (values < _SMALLEST_EPOCH) & ~calendar
    us = values // 1_000  # ns
    for limit, unit in reversed(_EPOCH_LIMITS):
        us = np.where(size < limit, np.where(size < limit, values, 0) * _US[unit], us)
    if calendar.any():
        written = values[calendar]
        with_time = written > 99_999_999
        date = np.where(with_time, written // 1_000_000, written)
        clock = np.where(with_time, written % 1_000_000, 0)
        day, wrong = _days(date // 10_000, date // 100 % 100, date % 100)
        second, odd = _seconds(clock // 10_000, clock // 100 % 100, clock % 100)
        us[calendar] = day * 86_400_000_000 + second * 1_000_000
        bad[calendar] = wrong | odd
    return us, bad


def _looks_like_date(values: IntArray) -> Mask:
    """20101201 and 20101201082600: as epochs these lie in 1970 or far ahead, so nothing real is lost."""
    date = (values >= 19_700_101) & (values <= 21_001_231)
    return date | ((values >= 19_700_101_000_000) & (values <= 21_001_231_235_959))


def _from_text(text: pa.Array, unit: Unit, day_first: bool) -> Times:
    # Logs repeat their timestamps: each distinct one is read once.
    encoded = pc.utf8_trim_whitespace(text).dictionary_encode()
    distinct, codes = encoded.dictionary, encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()
    us = np.zeros(len(distinct) + 1, np.int64)
    empty = np.append(np.asarray(pc.equal(pc.binary_length(distinct), 0)), True)
    bad = ~empty
    plain = np.append(np.asarray(pc.match_substring_regex(distinct, _PLAIN)), False)
    if plain.any():
        us[plain], bad[plain] = _from_plain(distinct.filter(pa.array(plain[:-1])), unit)
    written = ~plain & ~empty & (unit != "order")
    places = (0, 0)
    if written.any():
        us[written], bad[written], places = _from_written(distinct.filter(pa.array(written[:-1])), day_first)
    return Times(np.where(bad, 0, us)[codes], empty[codes], bad[codes], places)


def _from_plain(text: pa.Array, unit: Unit) -> tuple[IntArray, Mask]:
    try:
        return _from_integers(text.cast(pa.int64()), unit)
    except pa.ArrowInvalid:
        return _from_floats(text.cast(pa.float64()).to_numpy(zero_copy_only=False), unit)


def _from_written(text: pa.Array, day_first: bool) -> tuple[IntArray, Mask, tuple[int, int]]:
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):  # the fast way, when all are plain ISO
        try:
            return *_from_arrow(text.cast(kind)), (0, 0)
        except pa.ArrowInvalid:
            continue
    places = (0, 0)
    us = np.zeros(len(text), np.int64)
    bad = np.ones(len(text), bool)
    for pattern in (_ISO, _DOTTED, _NUMERIC, _DAY_NAMED, _NAMED_DAY):
        parts = pc.extract_regex(text, pattern)
        found = bad & np.asarray(parts.is_valid())
        if found.any():
            us[found], bad[found] = _from_parts(parts.filter(pa.array(found)), day_first)
            places = _places(parts) if pattern == _NUMERIC else places
    return us, bad, places


def _places(parts: pa.StructArray) -> tuple[int, int]:
    return int((_number(parts, "a") > 12).sum()), int((_number(parts, "b") > 12).sum())


def _from_parts(parts: pa.StructArray, day_first: bool) -> tuple[IntArray, Mask]:
    names = {parts.type.field(k).name for k in range(parts.type.num_fields)}
    year = _number(parts, "Y")
    short = np.asarray(pc.equal(pc.binary_length(parts.field("Y")), 2))
    year = np.where(short, year + np.where(year < 70, 2000, 1900), year)
    if "a" in names:
        month, day = (
            (_number(parts, "b"), _number(parts, "a")) if day_first else (_number(parts, "a"), _number(parts, "b"))
        )
    else:
        day = _number(parts, "d")
        month = _number(parts, "m") if "m" in names else _month(parts.field("n"))
    days, wrong = _days(year, month, day)
    hour, half = _number(parts, "H"), pc.ascii_lower(parts.field("p"))
    afternoon, morning = np.asarray(pc.equal(half, "pm")), np.asarray(pc.equal(half, "am"))
    wrong = wrong | ((afternoon | morning) & ((hour < 1) | (hour > 12)))
    hour = np.where(afternoon, hour % 12 + 12, np.where(morning, hour % 12, hour))
    seconds, odd = _seconds(hour, _number(parts, "M"), _number(parts, "S"))
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(parts.field("f"), 6, "0"), 0, 6)
    us = (days * 86_400 + seconds - _zone(parts.field("z"))) * 1_000_000 + _integers(fraction)
    return us, wrong | odd


def _number(parts: pa.StructArray, name: str) -> IntArray:
    return _integers(parts.field(name))


def _integers(text: pa.Array) -> IntArray:
    filled = pc.if_else(pc.equal(pc.binary_length(text), 0), "0", text).fill_null("0")
    return np.asarray(filled.cast(pa.int64()))


def _month(names: pa.Array) -> IntArray:
    return np.asarray(pc.index_in(pc.ascii_lower(names), pa.array(_MONTHS)).fill_null(-1), dtype=np.int64) + 1


def _days(year: IntArray, month: IntArray, day: IntArray) -> tuple[IntArray, Mask]:
    """Days since 1970, and which of the dates do not exist."""
    wrong = (month < 1) | (month > 12) | (year < 1000) | (year > 9999) | (day < 1)
    months = np.where(wrong, 0, (year - 1970) * 12 + month - 1)
    start = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    following = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days = start + day - 1
    return days, wrong | (days >= following)


def _seconds(hour: IntArray, minute: IntArray, second: IntArray) -> tuple[IntArray, Mask]:
    return hour * 3600 + minute * 60 + second, (hour > 23) | (minute > 59) | (second > 59)


def _zone(text: pa.Array) -> IntArray:
    """Seconds east of Greenwich."""
    digits = pc.replace_substring_regex(text, "[^0-9]", "")
    padded = _integers(pc.utf8_rpad(pc.if_else(pc.equal(digits, ""), "0000", digits), 4, "0"))
    east = padded // 100 * 3600 + padded % 100 * 60
    return np.where(np.asarray(pc.starts_with(text, "-").fill_null(False)), -east, east)
