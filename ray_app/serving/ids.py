"""Ids of items and the way back, in little room: those of a million are much of what a replica holds."""

from array import array
from bisect import bisect_left
from typing import Any

import numpy as np
import pyarrow as pa

from ray_app.schema import PAD


class Ids:
    """Ids of the items 1, 2, ...; what is added since follows behind them."""

    def __init__(self, column: "pa.ChunkedArray[Any]") -> None:
        self.are_numbers = pa.types.is_integer(column.type)
        self._given = np.zeros(0, np.int64)
        self._more: list[Any] = []
        self._index_of_more: dict[Any, int] = {}
        if pa.types.is_signed_integer(column.type):
            self._given = column.to_numpy().astype(np.int64)
        else:
            self._more = column.to_pylist()
            self._index_of_more = {item: number for number, item in enumerate(self._more, 1)}
        order = np.argsort(self._given, kind="stable")
        self._rising, self._index = array("q", self._given[order].tobytes()), array("q", (order + 1).tobytes())

    def __len__(self) -> int:
        return len(self._given) + len(self._more)

    def __getitem__(self, index: int) -> Any:
        place = index - 1
        return self._given.item(place) if place < len(self._given) else self._more[place - len(self._given)]

    def find(self, item: Any) -> int:
        """Index of an id of the catalogue's own type, `PAD` if there is none."""
        if len(self._given):
            place = bisect_left(self._rising, item)
            if place < len(self._rising) and self._rising[place] == item:
                return self._index[place]
        return self._index_of_more.get(item, PAD)

    def add(self, item: Any) -> int:
        """The index of an id that there was not."""
        self._more.append(item)
        self._index_of_more[item] = len(self)
        return len(self)
