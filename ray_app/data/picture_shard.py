"""One worker's share of a part, or of what a frozen network made of it: kept or read in windows."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_app.data.picture_set import PartName, PictureSet
from ray_app.storage import join

WINDOW = 20_000
"""Pictures or texts held in memory by one worker; a larger share is read anew in each epoch."""


@dataclass(frozen=True)
class Rows:
    """Some pictures or texts: `values` are their contents `[n]` (object) or vectors `[n, dim]`."""

    values: NDArray[Any]
    labels: NDArray[np.int64]

    def __getitem__(self, which: slice | NDArray[np.int64]) -> "Rows":
        return Rows(self.values[which], self.labels[which])


class Range(NamedTuple):
    """Rows `start` to `stop` of the file at `path`, relative to the set."""

    path: str
    start: int
    stop: int
    chosen: tuple[int, ...] | None = None
    """Of these rows alone, where they are not all of the file."""


ReadRows = Callable[[Range], Rows]


def share_of(pictures: PictureSet, part: PartName, rank: int, world_size: int) -> list[Range]:
    """The rows of worker `rank`: as many as any other's, or one more."""
    total = pictures.size(part)
    start, stop = total * rank // world_size, total * (rank + 1) // world_size
    found, before = [], 0
    for file in pictures.files(part):
        first, last = max(start - before, 0), min(stop - before, file.pictures)
        if first < last:
            found.append(Range(file.path, first, last, file.rows))
        before += file.pictures
    return found


def whole(path: str) -> Range:
    """All rows of a file, also of one that a fold shares with others."""
    return Range(path, 0, sys.maxsize)


def contents_of(pictures: PictureSet, rows: Range) -> Rows:
    """Pictures or texts as they are stored."""
    table = pictures.storage.read_table(join(pictures.uri, rows.path), [pictures.column, "label"])
    return cut(table, rows, lambda column: np.array(column.to_pylist(), dtype=object), pictures.column)


def cut(table: pa.Table, rows: Range, to_array: Callable[[Any], NDArray[Any]], column: str) -> Rows:
    """Rows of a table that has a column `label`."""
    part = chosen(table, rows.chosen).slice(rows.start, rows.stop - rows.start)
    return Rows(to_array(part[column]), part["label"].to_numpy().astype(np.int64))


def chosen(table: pa.Table, rows: tuple[int, ...] | None) -> pa.Table:
    """These rows of a file, or all of them."""
    return table if rows is None else table.take(pa.array(rows, pa.int64()))


class PictureShard:
    """The rows of some ranges, in the order of the ranges."""

    def __init__(self, ranges: list[Range], read: ReadRows, window: int = WINDOW) -> None:
        self._ranges, self._read, self._window = ranges, read, window
        self.size = sum(one.stop - one.start for one in ranges)
        self._kept: dict[Range, Rows] = {}

    def batches(
        self, steps: int, rng: np.random.Generator, first: int = 0
    ) -> Iterator[tuple[Rows, np.random.Generator]]:
        """All rows once in random order, in exactly `steps` batches of like size, without the first `first`.

        Each batch comes with a source of randomness of its own: the same whichever batch is first.
        """
        seeds = rng.integers(2**63, size=steps)
        shuffled = self._shuffled(rng)
        waiting = next(shuffled)
        for step in range(steps):
            size = self.size * (step + 1) // steps - self.size * step // steps
            while len(waiting.labels) < size:
                waiting = joined([waiting, next(shuffled)])
            if step >= first:
                yield waiting[:size], np.random.default_rng(seeds[step])
            waiting = waiting[size:]

    def in_order(self, batch_size: int) -> Iterator[Rows]:
        """All rows once, as they are stored."""
        for rows in map(self._rows, self._ranges):
            for start in range(0, len(rows.labels), batch_size):
                yield rows[start : start + batch_size]

    def _shuffled(self, rng: np.random.Generator) -> Iterator[Rows]:
        window: list[Rows] = []
        for place in rng.permutation(len(self._ranges)):
            window.append(self._rows(self._ranges[place]))
            if sum(len(rows.labels) for rows in window) >= self._window:
                yield _permuted(joined(window), rng)
                window = []
        if window:
            yield _permuted(joined(window), rng)

    def _rows(self, wanted: Range) -> Rows:
        rows = self._kept.get(wanted) or self._read(wanted)
        if self.size <= self._window:
            self._kept[wanted] = rows
        return rows


def joined(rows: list[Rows]) -> Rows:
    """All of them, one after another."""
    return Rows(np.concatenate([one.values for one in rows]), np.concatenate([one.labels for one in rows]))


def _permuted(rows: Rows, rng: np.random.Generator) -> Rows:
    return rows[rng.permutation(len(rows.labels))]
