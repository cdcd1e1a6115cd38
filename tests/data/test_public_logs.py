"""Two public logs, whose numbers are known."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ray_app.schema import Col

from .conftest import Prepare, histories


def test_amazon_beauty_as_in_the_papers(prepared: Prepare, shared_data: Path):
    folder = shared_data / "amazon_beauty"
    dataset = prepared(
        folder / "interactions.parquet",
        items=str(folder / "items.parquet"),
        columns={"timestamp": "position"},
        item_columns={"description": "keywords", "category": "attributes"},
        timestamp_unit="order",
        split={"kind": "leave_one_out"},
    )
    counts = dataset.manifest.counts
    assert (counts.users, counts.items, counts.rows_in, counts.rows_kept) == (22_363, 12_101, 198_502, 198_502)
    assert (counts.validation_events, counts.test_events) == (22_363, 22_363)
    assert dataset.manifest.notes == []
    items = dataset.items().to_pylist()
    assert [item[Col.ITEM_INDEX] for item in items] == [item[Col.ITEM] for item in items]  # ids are 1 to 12,101
    assert items[0][Col.DESCRIPTION] == "nail lacquer simmer and shimmer"
    assert items[0][Col.CATEGORY] == "OPI, Makeup, Nails, Nail Polish"
    log = pq.read_table(folder / "interactions.parquet").sort_by([("user_id", "ascending"), ("position", "ascending")])
    user, item = log["user_id"].to_numpy(), log["item_id"].to_numpy()
    by_user = np.split(item, np.flatnonzero(np.diff(user)) + 1)
    found = histories(dataset)
    assert [found[k][Col.ITEMS] for k in np.unique(user).tolist()] == [list(values) for values in by_user]
    assert all(row[Col.NUM_TRAIN] == len(row[Col.ITEMS]) - 2 for row in found.values())
    train = np.bincount(np.concatenate([values[:-2] for values in by_user]), minlength=12_102)
    assert [row[Col.TRAIN_COUNT] for row in items] == train[1:].tolist()


def test_online_retail_adds_up(prepared: Prepare, shared_data: Path):
    file = shared_data / "uci_online_retail" / "transactions.parquet"
    names = ["CustomerID", "StockCode", "InvoiceDate", "InvoiceNo", "Quantity", "UnitPrice"]
    dataset = prepared(file, format="online_retail")
    counts = dataset.manifest.counts
    log = pq.read_table(file, columns=names).to_pandas()
    known = log[log.CustomerID.notna()]
    distinct = known.drop_duplicates()
    assert counts.rows_in == len(log) == 541_909
    assert counts.quarantined["missing_user"] == len(log) - len(known) == 135_080
    assert counts.quarantined["duplicate"] == len(known) - len(distinct)
    assert counts.quarantined["return"] == (distinct.Quantity < 0).sum()
    assert set(counts.quarantined) == {"missing_user", "duplicate", "return", "returned"}
    assert 2000 < counts.quarantined["returned"] < counts.quarantined["return"]
    assert counts.rows_kept == (distinct.Quantity > 0).sum() - counts.quarantined["returned"]
    assert (dataset.user_type, dataset.item_type) == ("int64", "string")
    orders = {user: row[Col.ORDERS][-1] + 1 for user, row in histories(dataset).items()}
    invoices = distinct[distinct.Quantity > 0].groupby("CustomerID").InvoiceNo.nunique()
    assert all(1 <= count <= invoices[user] * 1.5 for user, count in orders.items())
