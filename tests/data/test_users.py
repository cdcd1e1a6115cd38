"""One bucket of users, against a straightforward reading of the rules."""

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest

from ray_app.data.logs import EVENTS_SCHEMA, WEIGHT
from ray_app.data.split import TEST, TRAIN, VALIDATION, Split
from ray_app.data.users import Bucket, UserRules, settle
from ray_app.schema import Col

TEMPORAL = Split("temporal", 50, 75)
DEFAULTS = {Col.EVENT_TYPE: None, Col.QUANTITY: None, Col.PRICE: None, Col.ORDER: None, Col.STORE: None, WEIGHT: 1.0}


def events(*rows: dict[str, object]) -> pa.Table:
    numbered = [DEFAULTS | {Col.SOURCE: 0, Col.ROW: number} | row for number, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, EVENTS_SCHEMA)


def event(user: str, item: str, time: int, **more: object) -> dict[str, object]:
    return {Col.USER: user, Col.ITEM: item, Col.TIME: time, **more}


def rules(split: Split = TEMPORAL, ids: pa.DataType | None = None, cap: int = 1000) -> UserRules:
    return UserRules(split, ids or pa.string(), ids or pa.string(), cap, ["log.csv"])


def reasons(bucket: Bucket) -> dict[int, str]:
    return dict(zip(bucket.refused[Col.ROW].to_pylist(), bucket.refused[Col.REASON].to_pylist(), strict=True))


def histories(bucket: Bucket) -> dict[object, list[object]]:
    return {row[Col.USER]: row[Col.ITEMS] for row in bucket.sequences.to_pylist()}


def test_events_stand_in_order_of_time_then_order_then_row():
    log = events(
        event("u", "d", 60), event("u", "c", 40, order_id="2"), event("u", "b", 40, order_id="1"),
        event("u", "a", 10), event("u", "e", 90), event("u", "f", 90),
    )  # fmt: skip
    bucket = settle(log, rules())
    row = bucket.sequences.to_pylist()[0]
    assert row[Col.ITEMS] == ["a", "b", "c", "d", "e", "f"]
    assert row[Col.TIMES] == [10, 40, 40, 60, 90, 90]
    assert row[Col.ORDERS] == [0, 1, 2, 3, 4, 4]
    assert (row[Col.NUM_TRAIN], row[Col.NUM_VALIDATION]) == (3, 1)
    assert bucket.events == {TRAIN: 3, VALIDATION: 1, TEST: 2}


def test_numbers_are_sorted_as_numbers_and_text_as_text():
    log = events(event("10", "1", 1), event("9", "2", 1))
    assert list(histories(settle(log, rules(ids=pa.int64())))) == [9, 10]
    assert list(histories(settle(log, rules()))) == ["10", "9"]


def test_only_rows_equal_in_every_column_are_duplicates():
    log = events(
        event("u", "a", 1, quantity=1.0), event("u", "a", 1, quantity=1.0), event("u", "a", 1, quantity=2.0),
        event("u", "a", 1, price=3.0), event("u", "a", 1), event("u", "a", 1), event("v", "a", 1),
    )  # fmt: skip
    bucket = settle(log, rules())
    assert reasons(bucket) == {1: "duplicate", 5: "duplicate"}
    assert bucket.refused[Col.RAW][0].as_py().startswith("user_id=u, item_id=a, timestamp=1")
    assert bucket.refused[Col.SOURCE].to_pylist() == ["log.csv"] * 2


def test_a_return_undoes_a_purchase_in_its_own_part_alone():
    log = events(
        event("u", "a", 10, quantity=2.0), event("u", "a", 20, quantity=-2.0),
        event("u", "b", 10), event("u", "b", 60, quantity=-1.0),
        event("u", "c", 60, quantity=3.0), event("u", "c", 61, quantity=-1.0), event("u", "d", 1),
    )  # fmt: skip
    bucket = settle(log, rules())
    assert reasons(bucket) == {0: "returned", 1: "return", 3: "return", 5: "return"}
    assert histories(bucket) == {"u": ["d", "b", "c"]}


def test_the_latest_events_of_a_robot_are_kept_in_each_part():
    log = events(*[event("u", str(k), k) for k in range(100)], event("v", "x", 1))
    bucket = settle(log, rules(cap=10))
    kept = [*range(40, 50), *range(65, 75), *range(90, 100)]
    assert histories(bucket) == {"u": [str(k) for k in kept], "v": ["x"]}
    assert set(reasons(bucket).values()) == {"user_over_cap"}
    assert bucket.capped_users == 1


def test_items_known_by_the_cutoff_and_their_weighted_count():
    log = events(
        event("u", "bought", 1), event("v", "bought", 2), event("u", "viewed", 3, weight=0.0), event("u", "late", 60)
    )
    assert settle(log, rules()).items.to_pylist() == [
        {Col.ITEM: "bought", Col.TRAIN_COUNT: 2},
        {Col.ITEM: "viewed", Col.TRAIN_COUNT: 0},
    ]


def test_leave_one_out_knows_every_item():
    log = events(*[event("u", item, k) for k, item in enumerate("abca")])
    bucket = settle(log, rules(Split("leave_one_out")))
    assert bucket.items.to_pylist() == [{Col.ITEM: i, Col.TRAIN_COUNT: n} for i, n in (("a", 1), ("b", 1), ("c", 0))]
    assert bucket.events == {TRAIN: 2, VALIDATION: 1, TEST: 1}


def test_a_user_all_of_whose_purchases_were_returned_is_gone():
    bucket = settle(events(event("u", "a", 1), event("u", "a", 2, quantity=-1.0)), rules())
    assert bucket.sequences.num_rows == 0
    assert bucket.items.num_rows == 0


def test_an_empty_bucket_is_no_trouble():
    bucket = settle(EVENTS_SCHEMA.empty_table(), rules(ids=pa.int64()))
    assert (bucket.sequences.num_rows, bucket.refused.num_rows, bucket.items.num_rows) == (0, 0, 0)
    assert bucket.sequences.schema.field(Col.ITEMS).type == pa.list_(pa.int64())


def by_the_book(log: pa.Table, split: Split, cap: int) -> tuple[dict[str, list[tuple[str, int]]], Counter[str]]:
    """(item, part) of every kept event by user, and refused rows by reason."""
    seen, users, refused = set(), defaultdict(list), Counter[str]()
    for row in log.to_pylist():
        key = tuple(value for name, value in row.items() if name not in (Col.SOURCE, Col.ROW, WEIGHT))
        if key in seen:
            refused["duplicate"] += 1
            continue
        seen.add(key)
        users[row[Col.USER]].append(row)
    kept = {}
    for user, rows in users.items():
        rows.sort(key=lambda row: (row[Col.TIME], row[Col.ORDER] or "", row[Col.ROW]))
        bought = [k for k, row in enumerate(rows) if (row[Col.QUANTITY] or 1) > 0 and row[WEIGHT] > 0]
        starts = (bought[-2], bought[-1]) if len(bought) >= 3 else (len(rows), len(rows))
        for k, row in enumerate(rows):
            if split.kind == "temporal":
                row["part"] = (row[Col.TIME] >= split.validation_start) + (row[Col.TIME] >= split.test_start)
            else:
                row["part"] = (k >= starts[0]) + (k >= starts[1])
            row["left"] = row[Col.QUANTITY] or 1
            if row["left"] < 0:
                refused["return"] += 1
                for other in reversed(rows[:k]):
                    if (
                        other[Col.ITEM] == row[Col.ITEM]
                        and other["part"] == row["part"]
                        and other["left"] >= -row["left"]
                    ):
                        other["left"] += row["left"]
                        refused["returned"] += other["left"] == 0
                        break
        alive = [row for row in rows if row["left"] > 0]
        capped = []
        for part in (TRAIN, VALIDATION, TEST):
            of_part = [(row[Col.ITEM], part) for row in alive if row["part"] == part]
            refused["user_over_cap"] += max(0, len(of_part) - cap)
            capped += of_part[-cap:]
        if capped:
            kept[user] = capped
    return kept, +refused


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("split", [TEMPORAL, Split("leave_one_out")])
def test_agrees_with_the_rules_read_literally(seed: int, split: Split):
    rng = np.random.default_rng(seed)
    count, cap = int(rng.integers(0, 400)), int(rng.integers(2, 12))
    log = events(
        *[
            event(
                f"u{rng.integers(12)}", f"i{rng.integers(6)}", int(rng.integers(100)),
                quantity=[None, 1.0, 2.0, -1.0, -2.0][rng.integers(5)], order_id=[None, "x", "y"][rng.integers(3)],
                weight=float(rng.integers(2)),
            )
            for _ in range(count)
        ]
    )  # fmt: skip
    bucket = settle(log, rules(split, cap=cap))
    kept, refused = by_the_book(log, split, cap)
    found = {}
    for row in bucket.sequences.to_pylist():
        held_out = len(row[Col.ITEMS]) - row[Col.NUM_TRAIN] - row[Col.NUM_VALIDATION]
        parts = [TRAIN] * row[Col.NUM_TRAIN] + [VALIDATION] * row[Col.NUM_VALIDATION] + [TEST] * held_out
        found[row[Col.USER]] = list(zip(row[Col.ITEMS], parts, strict=True))
    assert found == kept
    assert Counter(reasons(bucket).values()) == refused
    assert count == bucket.events.total() + bucket.refused.num_rows
