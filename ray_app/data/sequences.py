"""Users' histories in memory: flat arrays, one copy, whatever the lengths."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_app.schema import PAD, Col

IntArray = NDArray[np.int32]
LongArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
Part = Literal["validation", "test"]

COLUMNS = [Col.USER, Col.ITEMS, Col.TIMES, Col.WEIGHTS, Col.ORDERS, Col.NUM_TRAIN, Col.NUM_VALIDATION]


class Ragged(NamedTuple):
    """Lists of different lengths: list i is `values[offsets[i]:offsets[i + 1]]`."""

    values: IntArray
    offsets: LongArray

    @property
    def lengths(self) -> LongArray:
        """Length of each list, `[lists]`."""
        return np.diff(self.offsets)

    def slice(self, start: int, stop: int) -> "Ragged":
        """Lists `start` to `stop` (a view of the values, offsets from 0)."""
        offsets = self.offsets[start : stop + 1]
        return self._chosen(np.s_[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, lists: LongArray) -> "Ragged":
        """The chosen lists, in the order asked for."""
        lengths = self.lengths[lists]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(offsets[-1]) + np.repeat(self.offsets[lists] - offsets[:-1], lengths)
        return self._chosen(positions, offsets)

    def keep(self, wanted: NDArray[np.bool_]) -> "Ragged":
        """Each list without the values that are not wanted; `wanted` lies beside `values`."""
        kept_before = np.concatenate([[0], np.cumsum(wanted)])
        return self._chosen(wanted, kept_before[self.offsets])

    def without(self, other: "Ragged") -> "Ragged":
        """Each list without the values that the same list of `other` holds (`PAD` stays)."""
        number = np.arange(len(self.lengths), dtype=np.int64) << 32
        mine = np.repeat(number, self.lengths) | self.values
        theirs = np.repeat(number, other.lengths) | other.values
        return self.keep(~np.isin(mine, theirs) | (self.values == PAD))

    def _chosen(self, which: Any, offsets: LongArray) -> "Ragged":
        return Ragged(self.values[which], offsets)


class Events(Ragged):
    """Items of lists of events, which are no more than lists of items to whoever unpacks them."""

    clicks: NDArray[np.bool_]
    """Beside `values`: events whose type weighs nothing. They are read, and nobody is asked for them."""

    def __new__(cls, values: IntArray, offsets: LongArray, clicks: NDArray[np.bool_]) -> "Events":
        """Lists as `Ragged` has them."""
        self = super().__new__(cls, values, offsets)
        self.clicks = clicks
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self, self.clicks)

    def _chosen(self, which: Any, offsets: LongArray) -> "Events":
        return Events(self.values[which], offsets, self.clicks[which])


@dataclass(frozen=True)
class Histories:
    """All events of some users in time order, and where their train, validation and test parts end."""

    user_ids: pa.Array
    items: IntArray
    times: LongArray
    weights: FloatArray
    orders: IntArray
    offsets: LongArray
    num_train: LongArray
    num_validation: LongArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def from_tables(cls, tables: Iterable[pa.Table]) -> "Histories":
        """Gather tables of `schema.sequences_schema` (the only copy made is into the flat arrays)."""
        table = pa.concat_tables(tables).combine_chunks()
        lists = {name: _one_chunk(table, name) for name in (Col.ITEMS, Col.TIMES, Col.WEIGHTS, Col.ORDERS)}
        offsets = lists[Col.ITEMS].offsets.to_numpy().astype(np.int64)
        flat = {name: column.flatten().to_numpy(zero_copy_only=False) for name, column in lists.items()}
        return cls(
            user_ids=_one_chunk(table, Col.USER),
            items=flat[Col.ITEMS],
            times=flat[Col.TIMES],
            weights=flat[Col.WEIGHTS],
            orders=flat[Col.ORDERS],
            offsets=offsets - offsets[0],
            num_train=table[Col.NUM_TRAIN].to_numpy().astype(np.int64),
            num_validation=table[Col.NUM_VALIDATION].to_numpy().astype(np.int64),
        )

    def train(self) -> Events:
        """Items of the train part of every user."""
        return self._between(np.zeros(len(self), np.int64), self.num_train)

    def train_weights(self) -> FloatArray:
        """Event weights beside the values of `train()`."""
        return self.weights[self._positions(np.zeros(len(self), np.int64), self.num_train)[0]]

    def train_orders(self) -> IntArray:
        """Order ordinals beside the values of `train()`."""
        return self.orders[self._positions(np.zeros(len(self), np.int64), self.num_train)[0]]

    def before(self, part: Part) -> Ragged:
        """What was known of each user before `part` began; items outside the vocabulary are left out."""
        known = self._between(np.zeros(len(self), np.int64), self._start_of(part))
        return known.keep(known.values != PAD)

    def all_events(self) -> Ragged:
        """Everything known of each user today, without items outside the vocabulary."""
        return Events(self.items, self.offsets, self.weights == 0).keep(self.items != PAD)

    def targets(self, part: Part) -> Ragged:
        """The distinct items of the first order in `part` that the loss would count (weight > 0).

        Under leave-one-out that is the one event held out. Items outside the vocabulary stay, as `PAD`: nobody can
        recommend them, and leaving them out would flatter every score. Users without an event in `part` get none.
        """
        start = self._start_of(part)
        length = self.num_validation if part == "validation" else self.offsets[1:] - self.offsets[:-1] - start
        positions, offsets = self._positions(start, length)
        users = np.repeat(np.arange(len(self)), np.diff(offsets))
        wanted = self.weights[positions] > 0
        positions, users = positions[wanted], users[wanted]
        first = np.unique(users, return_index=True)[1]
        first_order = np.full(len(self), -1, np.int64)
        first_order[users[first]] = self.orders[positions[first]]
        same = self.orders[positions] == first_order[users]
        pairs = np.unique(np.stack([users[same], self.items[positions[same]].astype(np.int64)], axis=1), axis=0)
        counts = np.bincount(pairs[:, 0], minlength=len(self))
        return Ragged(pairs[:, 1].astype(np.int32), np.concatenate([[0], np.cumsum(counts)]))

    def _start_of(self, part: Part) -> LongArray:
        return self.num_train if part == "validation" else self.num_train + self.num_validation

    def _between(self, start: LongArray, length: LongArray) -> Events:
        positions, offsets = self._positions(start, length)
        return Events(self.items[positions], offsets, self.weights[positions] == 0)

    def _positions(self, start: LongArray, length: LongArray) -> tuple[LongArray, LongArray]:
        """Indices into the flat arrays of `length` events from the `start`-th of each user, and their offsets."""
        offsets = np.concatenate([[0], np.cumsum(length)])
        shift = np.repeat(self.offsets[:-1] + start - offsets[:-1], length)
        return np.arange(offsets[-1]) + shift, offsets


def _one_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([pa.array([], column.type), *column.chunks])
