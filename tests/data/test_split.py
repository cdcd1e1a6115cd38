from datetime import UTC, datetime

import numpy as np
import pytest

from ray_app.data.split import TEST, TRAIN, VALIDATION, Split, check_split, make_split, show_time
from ray_app.data_config import DataConfig, SplitConfig
from ray_app.errors import DataError

DAY = 86_400_000_000


def parts(split: Split, users: list[int], times: list[int], counted: list[bool] | None = None) -> list[int]:
    flags = np.ones(len(users), bool) if counted is None else np.array(counted)
    return split.part_of(np.array(times), np.array(users), flags).tolist()


def test_days_are_counted_back_from_the_last_event():
    split = make_split(SplitConfig(validation_days=2, test_days=0.5), 100 * DAY)
    assert (split.validation_start, split.test_start) == (97 * DAY + DAY // 2, 99 * DAY + DAY // 2)


def test_cutoffs_given_outright_win_and_are_utc_without_a_zone():
    config = SplitConfig(validation_start=datetime(1970, 1, 11), test_start=datetime(1970, 1, 21, tzinfo=UTC))
    split = make_split(config, 10**18)
    assert (split.validation_start, split.test_start) == (10 * DAY, 20 * DAY)
    assert show_time(10 * DAY + 3_600_000_000) == "1970-01-11 01:00:00"


def test_an_event_at_a_cutoff_belongs_to_the_later_part():
    assert parts(Split("temporal", 10, 20), [0] * 5, [9, 10, 19, 20, 21]) == [TRAIN, VALIDATION, VALIDATION, TEST, TEST]


def test_order_numbers_cannot_be_split_by_time():
    with pytest.raises(DataError, match="leave_one_out"):
        check_split(DataConfig(timestamp_unit="order"))
    check_split(DataConfig(timestamp_unit="order", split=SplitConfig(kind="leave_one_out")))
    assert make_split(SplitConfig(kind="leave_one_out"), 5) == Split("leave_one_out")


def test_leave_one_out_holds_out_the_last_two_of_users_with_three():
    users = [0, 0, 0, 0, 1, 1, 2, 2, 2, 3]
    assert parts(Split("leave_one_out"), users, list(range(10))) == [
        *(TRAIN, TRAIN, VALIDATION, TEST),
        *(TRAIN, TRAIN),
        *(TRAIN, VALIDATION, TEST),
        TRAIN,
    ]


def test_leave_one_out_holds_out_events_that_count():
    counted = [True, True, False, True, False, True, False]
    expected = [TRAIN, TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST]
    assert parts(Split("leave_one_out"), [0] * 7, list(range(7)), counted) == expected
    assert parts(Split("leave_one_out"), [0] * 4, list(range(4)), [True, False, False, True]) == [TRAIN] * 4
