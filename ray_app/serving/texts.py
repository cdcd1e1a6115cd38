"""A text of each item, in the room that Arrow takes: strings of Python take three times as much."""

from typing import Any

import pyarrow as pa


class Texts:
    """Texts of the items 1, 2, ..., each of which may be written anew."""

    def __init__(self, column: "pa.ChunkedArray[Any]") -> None:
        self._given = column.combine_chunks()
        self._later: dict[int, str | None] = {}

    def __getitem__(self, index: int) -> str | None:
        if index in self._later or index > len(self._given):
            return self._later.get(index)
        found: str | None = self._given[index - 1].as_py()
        return found

    def __setitem__(self, index: int, text: str | None) -> None:
        self._later[index] = text
