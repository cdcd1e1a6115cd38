"""Quantities and prices in whatever type they come."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_CURRENCIES = "$£€"
"""In front of a price."""
_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"


def as_numbers(column: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values as float64, NaN where there is none; and which of them are there but are not finite numbers."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan), np.zeros(len(column), bool)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _from_text(column.cast(pa.string()))
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        return np.full(len(column), np.nan), np.asarray(column.is_valid())
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    infinite = np.isinf(values)
    return np.where(infinite, np.nan, values), infinite


def _from_text(text: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    trimmed = pc.utf8_ltrim(pc.utf8_trim_whitespace(text), _CURRENCIES)
    number = pc.match_substring_regex(trimmed, _NUMBER)
    empty = pc.equal(pc.binary_length(trimmed), 0).fill_null(True)
    unsigned = pc.utf8_ltrim(trimmed, "+")
    values = pc.if_else(number, unsigned, pa.scalar(None, pa.string())).cast(pa.float64())
    values = values.to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    return np.where(finite, values, np.nan), ~np.asarray(empty) & ~finite
