"""Which events train the model and which are held out."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ray_app.data_config import DataConfig, SplitConfig
from ray_app.errors import DataError

TRAIN, VALIDATION, TEST = 0, 1, 2
_MIN_EVENTS = 3
"""Under leave-one-out, users with fewer events are for training alone."""


@dataclass(frozen=True)
class Split:
    """The parts of a dataset; cutoffs in microseconds, None under leave-one-out."""

    kind: Literal["temporal", "leave_one_out"]
    validation_start: int | None = None
    test_start: int | None = None

    def part_of(
        self, times: NDArray[np.int64], users: NDArray[np.int64], counted: NDArray[np.bool_]
    ) -> NDArray[np.int8]:
        """TRAIN, VALIDATION or TEST for each event.

        Events are sorted by user, then time; `users` counts users from 0. Under leave-one-out the last `counted` event
        of a user is the test and the second-last the validation; what follows either belongs to the same part.
        """
        if self.kind == "temporal":
            assert self.validation_start is not None
            assert self.test_start is not None
            return np.searchsorted(np.array([self.validation_start, self.test_start]), times, side="right").astype(
                np.int8
            )
        so_far = np.cumsum(counted)
        before: NDArray[np.int64] = (so_far - counted)[np.searchsorted(users, users)]
        total = np.bincount(users, counted).astype(np.int64)[users]
        left = total - (so_far - before)
        held_out = (total >= _MIN_EVENTS) & (left < TEST)
        return np.where(held_out, TEST - left, TRAIN).astype(np.int8)


def check_split(data: DataConfig) -> None:
    """A temporal split needs times.

    Raises:
        DataError: the log has order numbers in place of times.
    """
    if data.split.kind == "temporal" and data.timestamp_unit == "order":
        raise DataError(
            "a temporal split needs real times, but data.timestamp_unit is order: "
            "set data.split.kind: leave_one_out, or map data.columns.timestamp to a column with times"
        )


def make_split(config: SplitConfig, last_us: int) -> Split:
    """The cutoffs: as configured, or so many days before the last event."""
    if config.kind == "leave_one_out":
        return Split("leave_one_out")
    if config.validation_start and config.test_start:
        return Split("temporal", _us(config.validation_start), _us(config.test_start))
    test_start = last_us - _duration_us(config.test_days)
    return Split("temporal", test_start - _duration_us(config.validation_days), test_start)


def show_time(us: int) -> str:
    """A time for a person to read."""
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us):%Y-%m-%d %H:%M:%S}"


def _us(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _duration_us(days: float) -> int:
    return round(days * 86_400e6)
