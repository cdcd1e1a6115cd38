"""Ids of users and items as text that means the same in every file, and their buckets."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

CANONICAL = r"^(0|-?[1-9][0-9]{0,17})$"
"""An integer written the one way that survives a round trip through int64: no leading zeros, no plus sign."""
_WHOLE_FLOAT = r"^(0|-?[1-9][0-9]{0,17})\.0+$"
_EXACT_FLOAT = 2.0**53
_HASHED_BYTES = 256


class Ids(NamedTuple):
    """Ids as text, null where there is none."""

    text: pa.Array
    integers: bool | None
    """Whether the column held nothing but integers; None where its type does not say so and each value decides."""


def as_ids(column: pa.Array, untyped: bool) -> Ids:
    """Any column as ids. In `untyped` columns (CSV) each value says whether it is an integer.

    Floats that are whole numbers count as integers (a column of integers with gaps often arrives so), also as text in
    an untyped column. Empty and blank text is no id.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type):
        fits = column.type != pa.uint64() or not len(column) or (pc.max(column).as_py() or 0) < 2**63
        return Ids(column.cast(pa.string()), fits)
    if pa.types.is_floating(column.type):
        return _from_floats(column.cast(pa.float64()))
    try:
        text = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # lists, structs, bytes that are not text
        return Ids(pa.nulls(len(column), pa.string()), False)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return Ids(text, None if pa.types.is_decimal(column.type) else False)
    blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(text)), 0)
    text = pc.if_else(blank, pa.scalar(None, pa.string()), text)
    if not untyped:
        return Ids(text, False)
    if pc.any(pc.ends_with(text, ".0")).as_py():
        text = pc.replace_substring_regex(text, _WHOLE_FLOAT, r"\1")
    return Ids(text, None)


def as_text(column: pa.Array) -> pa.Array:
    """Text; of a list (categories, keywords), its members with commas between, also of a list of lists."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        ends = np.cumsum(np.asarray(pc.list_value_length(column).fill_null(0)))
        members = as_text(column.flatten()).fill_null("")
        column = pc.binary_join(pa.ListArray.from_arrays(np.append(0, ends).astype(np.int32), members), ", ")
    return as_ids(column, untyped=False).text


def are_integers(text: pa.Array) -> bool:
    """Whether every value that is there is an integer in its canonical form."""
    return pc.all(pc.match_substring_regex(text, CANONICAL)).as_py() is not False


def bucket_of(ids: pa.Array, num_buckets: int) -> NDArray[np.int64]:
    """A bucket in [0, num_buckets) for each id (no nulls): the FNV-1a hash of its first bytes, on every machine."""
    ids = pa.concat_arrays([ids])  # drops the offset of a slice
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[: len(ids) + 1].astype(np.int64)
    data = np.frombuffer(ids.buffers()[2] or b"", np.uint8)
    length = np.minimum(np.diff(offsets), _HASHED_BYTES)
    state = np.full(len(ids), 0xCBF29CE484222325, np.uint64)
    active = np.arange(len(ids))
    for position in range(int(length.max(initial=0))):
        active = active[length[active] > position]
        state[active] = (state[active] ^ data[offsets[active] + position]) * np.uint64(0x100000001B3)
    state ^= state >> np.uint64(32)  # the low bits of FNV alone spread short ids unevenly
    return (state % np.uint64(num_buckets)).astype(np.int64)


def _from_floats(column: pa.Array) -> Ids:
    values = column.to_numpy(zero_copy_only=False)
    known = np.isfinite(values)
    whole = known & (np.trunc(values) == values) & (np.abs(values) < _EXACT_FLOAT)
    if whole[known].all():
        return Ids(pa.array(np.where(whole, values, 0).astype(np.int64), mask=~known).cast(pa.string()), True)
    text = pa.array(values, mask=~known).cast(pa.string())
    integers = pa.array(np.where(whole, values, 0).astype(np.int64)).cast(pa.string())
    return Ids(pc.if_else(pa.array(whole), integers, text), False)
