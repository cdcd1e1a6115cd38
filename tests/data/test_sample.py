"""A sample of users: nested, with counts of its own, and nothing of anybody else."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from ray_app.data.dataset import Dataset
from ray_app.data.sample import drawn, sampled
from ray_app.errors import DataError
from ray_app.schema import Col
from ray_app.storage import join

from .conftest import Prepare, histories

TYPES = {"buy": 1.0, "click": 0.0}


@pytest.fixture
def log(prepared: Prepare, tmp_path: Path) -> Dataset:
    """300 users with up to 7 events each, of which the fifth is a click."""
    rows = [
        (
            f"u{user}",
            f"i{(user * 7 + place * 3) % 11}",
            1_500_000_000 + 86_400 * place,
            ("buy", "click")[place % 5 == 4],
        )
        for user in range(300)
        for place in range(1 + user % 7)
    ]
    columns = [Col.USER, Col.ITEM, Col.TIME, Col.EVENT_TYPE]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "log.csv", index=False)
    return prepared(tmp_path / "log.csv", split={"kind": "leave_one_out"}, event_types=TYPES)


def train_counts(dataset: Dataset) -> dict[object, int]:
    items = dataset.items()
    return dict(zip(items[Col.ITEM].to_pylist(), items[Col.TRAIN_COUNT].to_pylist(), strict=True))


def test_a_smaller_sample_lies_in_a_larger_one_and_both_are_what_the_log_says(log: Dataset) -> None:
    whole, half, tenth = (histories(one) for one in (log, sampled(log, 0.5), sampled(log, 0.1)))
    assert tenth.keys() < half.keys() < whole.keys()
    assert 120 < len(half) < 180
    assert 15 < len(tenth) < 45
    assert half == {user: whole[user] for user in half}
    assert tenth == {user: whole[user] for user in tenth}


def test_counts_are_those_of_the_users_that_were_drawn(log: Dataset) -> None:
    part = sampled(log, 0.1)
    expected = Counter[object]()
    for row in histories(part).values():
        train = zip(row[Col.ITEMS], row[Col.WEIGHTS], strict=True)
        expected.update(item for item, weight in list(train)[: row[Col.NUM_TRAIN]] if weight > 0)
    assert train_counts(part) == {item: expected[item] for item in train_counts(log)}
    assert part.items().drop([Col.TRAIN_COUNT]).equals(log.items().drop([Col.TRAIN_COUNT]))
    counts, rows = part.manifest.counts, histories(part).values()
    assert counts.users == len(rows) == sum(one.users for one in part.manifest.parts)
    assert counts.train_events == sum(row[Col.NUM_TRAIN] for row in rows)
    assert counts.validation_events == sum(row[Col.NUM_VALIDATION] for row in rows)
    events = counts.train_events + counts.validation_events + counts.test_events
    assert events == sum(len(row[Col.ITEMS]) for row in rows)
    targets = sum(one.train_targets for one in part.manifest.parts)
    assert targets == sum(max(row[Col.NUM_TRAIN] - 1, 0) for row in rows)


def test_a_sample_of_all_has_the_counts_of_the_log(log: Dataset) -> None:
    whole = sampled(log, 1.0)
    assert train_counts(whole) == train_counts(log)
    assert whole.manifest.counts == log.manifest.counts
    assert whole.manifest.parts == log.manifest.parts


def test_it_is_found_again_and_half_a_sample_is_none(log: Dataset) -> None:
    first = sampled(log, 0.3)
    files = {file.uri: file.etag for file in log.storage.list_files(first.uri)}
    assert sampled(log, 0.3) == first
    assert not any("counted" in uri for uri in files)
    assert {file.uri: file.etag for file in log.storage.list_files(first.uri)} == files
    log.storage.delete_tree(join(first.uri, "manifest.json"))  # killed before its end
    again = sampled(log, 0.3)
    assert again.manifest == first.manifest
    assert {file.uri for file in log.storage.list_files(first.uri)} == files.keys()


@pytest.mark.cluster
def test_ray_draws_the_same(ray_cluster: None, log: Dataset) -> None:
    part = sampled(log, 0.25)
    ids = pa.chunked_array([pa.array([f"u{user}" for user in range(300)])])
    assert set(histories(part)) == set(ids.filter(pa.array(drawn(ids, 0.25))).to_pylist())


def test_ids_that_are_numbers_are_drawn_as_their_text() -> None:
    numbers = pa.chunked_array([pa.array(range(10_000))])
    chosen = drawn(numbers, 0.2)
    assert (chosen == drawn(numbers.cast(pa.string()), 0.2)).all()
    assert abs(chosen.mean() - 0.2) < 0.02


def test_a_share_without_anybody_is_refused(log: Dataset) -> None:
    with pytest.raises(DataError, match=r"in a sample of 1e-09 of its 300 users nobody has two events to learn from"):
        sampled(log, 1e-9)
