"""JSON lines: the rows of a block of text, and the lines of it that are not rows.

Arrow's parser does the work; a block that it refuses, or would change, is gone through line by line.
"""

import ast
import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from ray_app.data.text_files import Rows

_EXACT_FLOAT = 2.0**53


def parse_json(block: bytes, columns: Sequence[str] | None, ids: Sequence[str]) -> Rows:
    """The wanted columns (None: all) in the types of JSON; ids are never taken for dates and keep all their digits."""
    try:
        block.decode()  # Arrow would quietly replace what is not UTF-8
        table = pa.json.read_json(
            pa.py_buffer(block), pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return _json_lines(block, columns)
    if any(_changed_by_inference(table[name]) for name in ids if name in table.column_names):
        return _json_lines(block, columns)
    if columns is not None:
        table = table.select([name for name in columns if name in table.column_names])
    return Rows(table, np.arange(table.num_rows), {})


def _changed_by_inference(column: pa.ChunkedArray) -> bool:
    if pa.types.is_floating(column.type):
        largest = pc.max(pc.abs(column)).as_py()
        return largest is not None and largest >= _EXACT_FLOAT
    return bool(pa.types.is_temporal(column.type))


def _json_lines(block: bytes, columns: Sequence[str] | None) -> Rows:
    values: list[dict[str, Any]] = []
    numbers: list[int] = []
    bad: dict[int, str] = {}
    for number, line in enumerate(line for line in block.split(b"\n") if line.strip()):
        value = _value(line)
        if isinstance(value, dict):
            values.append(value)
            numbers.append(number)
        else:
            bad[number] = line.decode(errors="replace")
    present = dict.fromkeys(name for value in values for name in value)
    wanted = [name for name in (present if columns is None else columns) if name in present]
    table = pa.table({_encodable(name): _json_column([value.get(name) for value in values]) for name in wanted})
    return Rows(table, np.array(numbers, np.int64), bad)


def _value(line: bytes) -> object:
    """What a line says, also as a Python dict, which public catalogues hold; None if it says nothing."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings(action="ignore"):  # of backslashes that escape nothing
            return ast.literal_eval(line.decode()) if line.lstrip().startswith(b"{") else None
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _json_column(values: list[Any]) -> pa.Array:
    """One type if there is one, otherwise text."""
    try:
        column = pa.array(values)
        if not any(isinstance(value, bool) for value in values) or pa.types.is_boolean(column.type):
            return column
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        pass
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array([None if text is None else _encodable(text) for text in texts], pa.string())


def _encodable(text: str) -> str:
    """Without the lone surrogates that JSON can write."""
    return text.encode(errors="replace").decode()
