from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from ray_app.data.files import Piece, RawBatch
from ray_app.data.logs import EVENTS_SCHEMA, WEIGHT, LogRules, ParsedBatch, parse_events
from ray_app.data.quarantine import Reason, tally
from ray_app.data_config import DataConfig
from ray_app.schema import Col

NOW = datetime(2020, 1, 1, tzinfo=UTC)
GOOD = {"user_id": "u", "item_id": "i", "timestamp": "2019-12-31 10:00"}


def parse(*rows: dict[str, object], form: str = "parquet", **data: object) -> ParsedBatch:
    table = pa.Table.from_pylist(list(rows))
    rules = LogRules.of(DataConfig.model_validate({"now": NOW} | data), day_first=False)
    return parse_events(RawBatch(table, np.arange(7, 7 + len(rows))), Piece(3, "log.x", form), rules)


def test_columns_go_by_the_retailers_names():
    names = {"user_id": "Kunde", "item_id": "Artikel", "timestamp": "Zeit", "quantity": "Menge", "order_id": "Bon"}
    rows = parse(
        {"Kunde": 5, "Artikel": "ü-1", "Zeit": NOW, "Menge": "2", "Bon": 9, "other": [1]}, columns=names
    ).events
    assert rows.schema == EVENTS_SCHEMA
    expected = {Col.USER: "5", Col.ITEM: "ü-1", Col.QUANTITY: 2.0, Col.ORDER: "9", Col.PRICE: None, WEIGHT: 1.0}
    assert rows.select(list(expected)).to_pylist() == [expected]
    assert rows.select([Col.SOURCE, Col.ROW]).to_pylist() == [{Col.SOURCE: 3, Col.ROW: 7}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user_id": None}, Reason.MISSING_USER),
        ({"item_id": " "}, Reason.MISSING_ITEM),
        ({"timestamp": None}, Reason.MISSING_TIMESTAMP),
        ({"timestamp": "soon"}, Reason.BAD_TIMESTAMP),
        ({"timestamp": "1969-12-31"}, Reason.BEFORE_1970),
        ({"timestamp": "2020-01-01 00:00:01"}, Reason.IN_FUTURE),
        ({"quantity": "many"}, Reason.BAD_QUANTITY),
        ({"quantity": 0}, Reason.ZERO_QUANTITY),
        ({"price": "cheap"}, Reason.BAD_PRICE),
        ({"price": -0.01}, Reason.NEGATIVE_PRICE),
        ({"user_id": None, "item_id": None, "price": -1}, Reason.MISSING_USER),
    ],
)
def test_a_row_that_is_no_event_is_refused_with_its_first_fault(change: dict[str, object], reason: Reason):
    parsed = parse(GOOD | change)
    assert parsed.events.num_rows == 0
    assert parsed.refused.to_pylist()[0] | {Col.RAW: None} == {
        Col.SOURCE: "log.x",
        Col.ROW: 7,
        Col.REASON: str(reason),
        Col.RAW: None,
    }
    assert parsed.integers is None


def test_a_refused_row_shows_its_text():
    raw = parse(GOOD | {"price": -1.5, "user_id": None, "tags": [1]}).refused[Col.RAW][0].as_py()
    assert raw == "user_id=, item_id=i, timestamp=2019-12-31 10:00, price=-1.5, tags=(list<item: int64>)"


@pytest.mark.parametrize(
    "change", [{"price": 0}, {"price": None}, {"quantity": None}, {"quantity": -3}, {"quantity": 0.25}]
)
def test_free_items_returns_and_weighed_goods_pass(change: dict[str, object]):
    assert parse(GOOD | change).events.num_rows == 1


def test_order_numbers_are_neither_old_nor_in_the_future():
    rows = [GOOD | {"timestamp": number} for number in (-1, 0, 10**18)]
    assert parse(*rows, timestamp_unit="order").events[Col.TIME].to_pylist() == [-1, 0, 10**18]


def test_event_types_weigh_and_unknown_ones_are_refused():
    rows = [GOOD | {"event_type": kind} for kind in ("buy", "view", "hack", None)]
    parsed = parse(*rows, event_types={"buy": 1.0, "view": 0.25})
    assert parsed.events[WEIGHT].to_pylist() == [1.0, 0.25]
    assert tally(parsed.refused) == {"unknown_event_type": 2}
    assert parse(*rows).events[WEIGHT].to_pylist() == [1.0] * 4


def test_ids_are_integers_when_the_kept_rows_have_nothing_else():
    rows = [GOOD | {"user_id": "5", "item_id": "07"}, GOOD | {"user_id": "x", "timestamp": "?"}]
    assert parse(*rows, form="csv").integers == (True, False)
    assert parse(*rows, form="jsonl").integers == (False, False)  # JSON has types, and these are texts
    assert parse(GOOD | {"user_id": 5, "item_id": 6.0}).integers == (True, True)


def test_without_data_now_the_clock_is_asked_and_zones_are_forgiven():
    today = datetime.now(UTC)
    rules = LogRules.of(DataConfig(), day_first=False)
    assert 0 < rules.now_us / 1e6 - today.timestamp() < 15 * 3600


def test_a_file_without_a_required_column_has_no_events():
    assert tally(parse({"user_id": "u", "timestamp": NOW}).refused) == {"missing_item": 1}
