import math
import pickle
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from ray_app.baselines import CANDIDATES, TrainingLog, choose, fit_baselines, item_texts
from ray_app.baselines.histories import settled
from ray_app.baselines.log import UNSCORED, read_log, read_whole_log
from ray_app.baselines.neighbors import ItemKNN, nearest, text_similarity
from ray_app.baselines.popular import PersonalFrequency, Popular
from ray_app.baselines.transitions import WITH_TEXT, Transitions, TransitionWeights
from ray_app.config import StorageConfig
from ray_app.data.dataset import Counts, Dataset, Manifest, Part
from ray_app.data.sequences import Ragged
from ray_app.evaluate_config import EvaluateConfig
from ray_app.metrics import hit_rate, ndcg, target_ranks, top_k
from ray_app.schema import Col, items_schema, sequences_schema
from ray_app.storage import Storage, join

DAY_US = 24 * 3600 * 1_000_000
TEXTS = ["red nail polish", "red nail polish", "blue nail file", "straw hat"]


def ragged(*lists):
    values = np.array([x for one in lists for x in one], np.int32)
    return values, np.cumsum([0, *map(len, lists)], dtype=np.int64)


def log_of(*users, num_items=4, **changes):
    items, offsets = ragged(*users)
    fields = {"times": np.arange(len(items)), "weights": np.ones(len(items), np.float32), "order_numbers": True}
    return TrainingLog(items, offsets, num_items=num_items, **(fields | changes))


LOG = log_of([1, 2, 3], [1, 2], [2, 1, 4])
"""Popularity 3, 3, 1, 1."""


def ranking(fitted, *history, k=4):
    return top_k(fitted.scores(ragged(history)), k)[0][0].tolist()


def test_every_configured_baseline_can_be_fitted():
    assert set(CANDIDATES) == set(EvaluateConfig().baselines)
    assert set(CANDIDATES) == set(get_args(get_args(EvaluateConfig.model_fields["baselines"].annotation)[0]))


def test_transitions_by_hand():
    scores = Transitions.fit(LOG).scores(ragged([2], [1, 2], [4, 1, 2, 3, 3]))
    assert scores.dtype == np.float32
    one, two = 3**-0.25, 3**-0.4  # the powers of popularity: toward items 3 and 4, toward items 1 and 2
    after_2 = np.array([0, (1 + 0.25 * 2) * two, 0, 1 * one, 0.7 * one])
    after_1 = np.array([0, 0, (2 + 0.25 * 1) * two, 0.7 * one, 1 * one])
    after_3 = np.array([0, 0.25 * 0.7 * 3**-0.15, 0.25 * 1 * 3**-0.15, 0, 0])
    np.testing.assert_allclose(scores[0], after_2, atol=2 * UNSCORED)
    np.testing.assert_allclose(scores[1], after_2 + 0.6 * after_1, atol=2 * UNSCORED)
    np.testing.assert_allclose(scores[2], (1 + 0.6) * after_3 + 0.15 * after_2, atol=2 * UNSCORED)


def test_transitions_reach_five_events_back_and_no_further():
    chain = log_of([1, 2, 3, 4, 5, 6, 7], num_items=7)
    after_1 = Transitions.fit(chain).scores(ragged([1]))[0]
    np.testing.assert_allclose(after_1[2:7], 0.7 ** np.arange(5), rtol=1e-6)
    assert after_1[7] <= UNSCORED


def test_transitions_do_not_cross_users():
    assert (Transitions.fit(log_of([1], [2], [3, 3])).scores(ragged([1]))[0] <= UNSCORED).all()


def test_context_events_lead_but_are_not_led_to():
    """An event of weight 0 (a page view, say) tells what follows it, and is nothing to recommend."""
    weights = np.array([0, 1, 0], np.float32)
    fitted = Transitions.fit(log_of([1, 2, 3], weights=weights))
    after_1, after_2 = fitted.scores(ragged([1], [2]))
    assert after_1[2] == pytest.approx(1)
    assert max(after_1[3], after_2[3]) <= UNSCORED


def test_transitions_with_text_by_hand():
    fitted = Transitions.fit(LOG, WITH_TEXT[0], text_similarity(TEXTS))
    # Of 4 + 1 texts (PAD's is empty) "nail" is in 3, "blue" and "file" in 1: weights 1 + ln((1 + 5) / (1 + n)).
    red = polish = 1 + math.log(6 / 3)
    nail, blue = 1 + math.log(6 / 4), 1 + math.log(6 / 2)
    cosine = nail**2 / math.sqrt((red**2 + nail**2 + polish**2) * (blue**2 + nail**2 + blue**2))
    one, two = 3**-0.25, 3**-0.4
    expected = np.array([0, 1 * two + 0.8, 0, 1 * one + 0.8 * cosine, 0.7 * one])  # nothing backward
    np.testing.assert_allclose(fitted.scores(ragged([2]))[0], expected, atol=1e-6)
    before = np.array([0, 0, 0.4 * 2 * two + 0.4, 0.4 * 0.7 * one + 0.4 * cosine, 0.4 * one])
    np.testing.assert_allclose(fitted.scores(ragged([1, 2]))[0], expected + before, atol=1e-6)


def test_repeated_words_count_by_their_logarithm():
    similarity = text_similarity(["nail nail nail polish", "nail", "polish"], 3).toarray()
    assert similarity[1, 2] / similarity[1, 3] == pytest.approx(1 + math.log(3))


def test_a_catalogue_without_texts_leaves_the_graph():
    with_text = Transitions.fit(LOG, WITH_TEXT[0], text_similarity(["", "", "", "a"])).scores(ragged([2]))
    np.testing.assert_allclose(with_text[0, 3:], [3**-0.25, 0.7 * 3**-0.25], rtol=1e-6)


def test_item_knn_by_hand():
    scores = ItemKNN.fit(LOG).scores(ragged([2], [3, 4, 3]))
    half = 1 / math.sqrt(3)  # one common user of item sets of sizes 1 and 3
    np.testing.assert_allclose(scores, [[0, 1, 0, half, half], [0, 2 * half, 2 * half, 0, 0]], atol=2 * UNSCORED)


def test_an_item_bought_twice_is_one_item_for_item_knn():
    repeated = log_of([1, 1, 2, 2, 2, 3], [1, 2], [2, 1, 4, 4])
    np.testing.assert_array_equal(ItemKNN.fit(repeated).similarity.toarray(), ItemKNN.fit(LOG).similarity.toarray())


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.booleans())
@settings(max_examples=60)
def test_nearest_equals_dense_cosines(seed, keep, ties):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 2, (9, 4)) if ties else rng.random((9, 4)) * (rng.random((9, 4)) < 0.6)
    found = nearest(settled(rows.astype(np.float32)), keep).toarray()
    expected = cosine_similarity(rows.astype(np.float32))
    np.fill_diagonal(expected, 0)
    for row in range(len(rows)):
        stays = np.flatnonzero(found[row])
        assert len(stays) == min(keep, np.count_nonzero(expected[row] > 1e-9))
        np.testing.assert_allclose(found[row, stays], expected[row, stays], rtol=1e-5)
        left_out = np.delete(expected[row], stays)
        assert len(stays) == 0 or left_out.max(initial=0) <= found[row, stays].min() + 1e-6


def test_what_very_many_have_in_common_counts_though_it_finds_nothing(monkeypatch):
    """Every row has the first column, and all but the last two another one that some share."""
    rng = np.random.default_rng(0)
    rows = np.zeros((12, 6), np.float32)
    rows[:, 0] = rng.random(12)
    rows[np.arange(10), 1 + np.arange(10) % 3] = 1 + rng.random(10)
    rows[10, 4] = rows[11, 5] = 1
    exact = nearest(settled(rows), 3).toarray()
    monkeypatch.setattr("ray_app.baselines.neighbors.COMMON", 11)
    found = nearest(settled(rows), 3).toarray()
    np.testing.assert_allclose(found[:10][found[:10] > 0], exact[:10][found[:10] > 0], rtol=1e-5)
    np.testing.assert_array_equal((found > 0)[:10], (exact > 0)[:10] & (cosine_similarity(rows[:, 1:])[:10] > 0))
    assert exact[10:].any()
    assert not found[10:].any(), "they share nothing else"


@pytest.mark.parametrize("products", [1, 7, 10_000])
def test_blocks_of_any_size_give_the_same(products, monkeypatch):
    rows = settled((np.random.default_rng(0).random((40, 15)) < 0.3).astype(np.float32))
    whole = nearest(rows, 5)
    monkeypatch.setattr("ray_app.baselines.neighbors.BLOCK", products)
    again = nearest(rows, 5)
    assert (again != whole).nnz == 0
    assert np.array_equal(again.indptr, whole.indptr)


def test_nearest_of_equals_are_those_of_lower_index():
    same = settled(np.ones((6, 1), np.float32))
    assert [np.flatnonzero(row).tolist() for row in nearest(same, 2).toarray()[:3]] == [[1, 2], [0, 2], [0, 1]]


def test_popular():
    assert Popular.fit(LOG).scores(ragged([], [3])).tolist() == [[0, 3, 3, 1, 1]] * 2


def test_popular_counts_weights():
    assert Popular.fit(log_of([1, 1, 2], weights=np.array([0, 0.5, 2], np.float32))).popularity[1:3].tolist() == [
        0.5,
        2,
    ]


def test_popular_recent_is_the_last_week():
    times = np.array([0, 3 * DAY_US, 3 * DAY_US + 1, 10 * DAY_US, 10 * DAY_US])
    fitted = Popular.fit_recent(log_of([1, 1, 2, 3, 4], times=times, order_numbers=False))
    assert ranking(fitted) == [2, 3, 4, 1]


def test_popular_recent_without_a_clock_is_each_users_last_tenth():
    fitted = Popular.fit_recent(log_of([1] * 9 + [3], [2] * 10 + [4, 4], [3] * 11))
    assert ranking(fitted) == [3, 4, 2, 1]  # 3 of the last tenths, 2 of them, popular, less popular


def test_personal_frequency_by_hand():
    fitted = PersonalFrequency.fit(LOG)
    assert ranking(fitted, 4, 2, 3, 4, 2, 3, 3) == [3, 2, 4, 1]  # three times, twice and popular, twice, popular
    assert ranking(fitted, 4) == [4, 1, 2, 3]


@pytest.mark.parametrize("name", CANDIDATES)
def test_no_history_gets_the_popular_items(name):
    popular = log_of([2, 4, 3], [4, 2], [4])
    expected = [4, 2, 3, 1]  # the users' last events are 3, 2 and 4, and the whole log breaks that tie
    assert ranking(CANDIDATES[name](popular, TEXTS)[0]) == expected


@pytest.mark.parametrize("name", CANDIDATES)
def test_items_outside_the_vocabulary_are_passed_over(name):
    fitted = CANDIDATES[name](LOG, TEXTS)[0]
    given_scores = fitted.scores(ragged([0, 3, 0, 2, 0], [0]))
    np.testing.assert_array_equal(given_scores, fitted.scores(ragged([3, 2], [])))
    assert fitted.scores(ragged()).shape == (0, 5)


@st.composite
def logs(draw):
    num_items = draw(st.integers(1, 8))
    history = st.lists(st.integers(1, num_items), max_size=12)
    return log_of(*draw(st.lists(history, min_size=1, max_size=6)), num_items=num_items), draw(
        st.lists(st.lists(st.integers(0, num_items), max_size=12), min_size=1, max_size=5)
    )


@pytest.mark.parametrize("name", CANDIDATES)
@given(logs())
@settings(max_examples=25)
def test_scores_are_finite_and_every_user_stands_alone(name, drawn):
    log, histories = drawn
    fitted = CANDIDATES[name](log, [f"word{n % 3} thing" for n in range(log.num_items)])[0]
    scores = fitted.scores(ragged(*histories))
    assert scores.shape == (len(histories), log.num_items + 1)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    for row, history in zip(scores, histories, strict=True):
        np.testing.assert_allclose(fitted.scores(ragged(history))[0], row, rtol=1e-5)


@pytest.mark.parametrize("name", CANDIDATES)
def test_shared_read_only_memory_is_enough(name):
    """scipy sorted the rows of a matrix in place, and with them the histories that it was made of."""
    buffers = []
    data = pickle.dumps(CANDIDATES[name](LOG, TEXTS)[0], protocol=5, buffer_callback=buffers.append)
    shared = pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])
    values, offsets = ragged([4, 1, 2], [3, 1, 3])
    values.flags.writeable = offsets.flags.writeable = False
    expected = CANDIDATES[name](LOG, TEXTS)[0].scores(ragged([4, 1, 2], [3, 1, 3]))
    for _ in range(2):
        np.testing.assert_array_equal(shared.scores((values, offsets)), expected)


def test_item_texts_join_what_there_is():
    rows = {
        Col.ITEM: [7, 8],
        Col.TITLE: ["Red nail", None],
        Col.CATEGORY: ["Beauty, Nails", None],
        Col.BRAND: ["OPI", ""],
    }
    table = pa.Table.from_pylist(
        [
            {key: column[row] for key, column in rows.items()} | {Col.ITEM_INDEX: row + 1, Col.TRAIN_COUNT: 1}
            for row in (0, 1)
        ],
        schema=items_schema(pa.int64()),
    )
    assert item_texts(table) == ["Red nail OPI Beauty, Nails", ""]


def write_dataset(tmp_path, num_train, num_validation):
    """Two parts of two users each; items tell user and place as user * 10 + place."""
    storage = Storage.from_config(StorageConfig(path=str(tmp_path)))
    parts = []
    for part in range(2):
        users = [2 * part, 2 * part + 1]
        length = 4
        rows = {
            Col.USER: users,
            Col.ITEMS: [[user * length + place + 1 for place in range(length)] for user in users],
            Col.TIMES: [[100 * user + place for place in range(length)] for user in users],
            Col.WEIGHTS: [[1.0, 0.5, 1.0, 1.0]] * 2,
            Col.ORDERS: [[0, 1, 2, 3]] * 2,
            Col.NUM_TRAIN: [num_train[user] for user in users],
            Col.NUM_VALIDATION: [num_validation] * 2,
        }
        path = f"sequences/part-{part:05}.parquet"
        storage.write_table(join(str(tmp_path), path), pa.table(rows, schema=sequences_schema(pa.int64())))
        parts.append(Part(path=path, users=2, train_events=0, train_targets=0))
    items = {Col.ITEM_INDEX: range(1, 17), Col.ITEM: range(1, 17), Col.TRAIN_COUNT: [1] * 16, Col.TITLE: ["a hat"] * 16}
    schema = items_schema(pa.int64())
    columns = [
        pa.array(items[name], schema.field(name).type) if name in items else pa.nulls(16, schema.field(name).type)
        for name in schema.names
    ]
    storage.write_table(join(str(tmp_path), "items.parquet"), pa.table(columns, schema=schema))
    counts = Counts.model_construct(items=16)
    manifest = Manifest.model_construct(data={"timestamp_unit": "order"}, counts=counts, parts=parts)
    return Dataset(storage, str(tmp_path), manifest)


def test_only_train_events_are_read(tmp_path):
    dataset = write_dataset(tmp_path, num_train=[2, 0, 4, 1], num_validation=0)
    log, _ = read_log(dataset)
    assert log.items.tolist() == [1, 2, 9, 10, 11, 12, 13]
    assert log.offsets.tolist() == [0, 2, 2, 6, 7]
    assert log.times.tolist() == [0, 1, 200, 201, 202, 203, 300]
    assert log.weights.tolist() == [1, 0.5, 1, 0.5, 1, 1, 1]
    assert (log.num_items, log.order_numbers) == (16, True)
    fitted = fit_baselines(["transitions", "popular"], dataset)
    assert list(fitted) == ["transitions", "popular"]
    assert fitted["popular"].scores(ragged([]))[0].nonzero()[0].tolist() == sorted(log.items)


def test_the_whole_log_holds_what_is_held_out_and_nothing_outside_the_vocabulary(tmp_path):
    dataset = write_dataset(tmp_path, num_train=[2, 0, 4, 1], num_validation=0)
    path = dataset.part_uris[1]
    table = dataset.storage.read_table(path)
    items = table[Col.ITEMS].to_pylist()
    items[1][0] = 0
    column = pa.array(items, table.schema.field(Col.ITEMS).type)
    dataset.storage.write_table(path, table.set_column(table.column_names.index(Col.ITEMS), Col.ITEMS, column))
    train, whole = read_log(dataset)[0], read_whole_log(dataset)
    assert whole.items.tolist() == [n for n in range(1, 17) if n != 13]
    assert whole.offsets.tolist() == [0, 4, 8, 12, 15]
    assert len(whole.times) == len(whole.weights) == 15
    assert set(train.items) - {0} < set(whole.items)


def test_the_candidate_that_ranks_the_validation_part_best_is_chosen(tmp_path):
    """Everybody goes on to the item after next, which only a decay above 1 prefers to the next."""
    known = [[user, user + 1, user + 2] for user in (1, 4, 7)] * 2
    log = log_of(*known, num_items=9)
    candidates = [Transitions.fit(log, TransitionWeights(decay=decay)) for decay in (0.1, 2.0, 0.2)]
    asked = Ragged(*ragged([1], [4], [7]))
    next_but_one = Ragged(*ragged([3], [6], [9]))
    assert choose(candidates, asked, next_but_one, exclude_seen=False) is candidates[1]
    assert choose(candidates, asked, Ragged(*ragged([2], [5], [8])), exclude_seen=False) is candidates[0]
    # Where seen items are excluded they are no targets either, and nobody is left to ask.
    assert choose(candidates, asked, asked, exclude_seen=True) is candidates[0]


def test_validation_targets_are_read(tmp_path):
    dataset = write_dataset(tmp_path, num_train=[2, 0, 3, 1], num_validation=1)
    _, targets = read_log(dataset)
    assert targets.values.tolist() == [3, 5, 12, 14]
    assert targets.offsets.tolist() == [0, 1, 2, 3, 4]
    assert len(fit_baselines(CANDIDATES, dataset, exclude_seen=True)) == len(CANDIDATES)


@pytest.fixture(scope="module")
def beauty(shared_data: Path):
    folder = shared_data / "amazon_beauty"
    if not folder.exists():
        pytest.skip(f"needs the Amazon Beauty files in {folder}")
    events = pq.read_table(folder / "interactions.parquet").sort_by(
        [("user_id", "ascending"), ("position", "ascending")]
    )
    items = events["item_id"].to_numpy()
    lengths = np.unique(events["user_id"].to_numpy(), return_counts=True)[1]
    to_the_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(items))
    offsets = [np.concatenate([[0], np.cumsum(lengths - count)]) for count in range(3)]
    catalog = pq.read_table(folder / "items.parquet").to_pylist()
    texts = [" ".join([row["title"] or "", row["keywords"], *row["attributes"]]) for row in catalog]
    train = items[to_the_end > 2]
    ones = np.ones(len(train), np.float32)
    log = TrainingLog(train, offsets[2], np.zeros(len(train), np.int64), ones, len(texts), order_numbers=True)
    return log, texts, (items[to_the_end > 1], offsets[1]), items[to_the_end == 1]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("item_knn", [0.0456, 0.0236, 0.0569, 0.0326]),
        ("transitions", [0.0815, 0.0504, 0.0847, 0.0538]),
        ("transitions_text", [0.1074, 0.0660, 0.1097, 0.0687]),
    ],
)
def test_beauty_is_reproduced(beauty, name, published):
    """HR@10 and NDCG@10 on test, leave-one-out, full ranking: seen items kept, then excluded."""
    log, texts, (values, offsets), held_out = beauty
    fitted = CANDIDATES[name](log, texts)[0]
    kept, excluded = [], []
    for start in range(0, len(held_out), 512):
        ends = offsets[start : start + 513]
        histories = values[ends[0] : ends[-1]], ends - ends[0]
        scores = fitted.scores(histories)
        targets = held_out[start : start + 512], np.arange(len(ends))
        kept.append(target_ranks(scores, targets)[0])
        excluded.append(target_ranks(scores, targets, seen=histories)[0])
    ranks = [(np.concatenate(found), np.arange(len(held_out) + 1)) for found in (kept, excluded)]
    measured = [metric(found, 10).mean() for found in ranks for metric in (hit_rate, ndcg)]
    assert measured == pytest.approx(published, abs=0.001)
