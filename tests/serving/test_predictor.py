"""The predictor on a small shop, without Ray and without HTTP."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import DAY_US

from ray_app.checkpoint import CheckpointError, fetched
from ray_app.config import Config, with_values
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import COLUMNS, Histories
from ray_app.errors import DataError
from ray_app.evidence.item_index import ItemIndex
from ray_app.registry import Version
from ray_app.serving.catalog import Catalog
from ray_app.serving.customers import SECOND_US, Customers, Event
from ray_app.serving.events import Change
from ray_app.serving.predictor import Predictor
from ray_app.serving.schemas import Boost, Filters, ItemBody, RecommendAnswer, RecommendRequest
from ray_app.storage import Storage, join
from ray_app.tasks.beginning import build_model
from ray_app.tasks.predictions import best_items
from ray_app.tasks.scorer import ModelScorer, open_scorer
from tests.serving.conftest import KINDS, NUM_ITEMS


def ask(predictor: Predictor, later: list[Event] | None = None, **fields: object) -> RecommendAnswer:
    return predictor.recommend([RecommendRequest.model_validate(fields)], [later or []])[0]


def ids(answer: RecommendAnswer) -> list:
    return [item.item_id for item in answer.items]


def histories(dataset: Dataset) -> Histories:
    return Histories.from_tables([dataset.storage.read_table(uri, COLUMNS) for uri in dataset.part_uris])


@pytest.mark.parametrize("name", ["one", "hybrid"])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_answers_are_those_of_the_predict_job(
    config: Config, dataset: Dataset, versions: dict[str, Version], name: str, exclude_seen: bool
):
    storage, everyone = Storage.from_config(config.storage), histories(dataset)
    with fetched(storage, versions[name].uri) as folder:
        scorer = open_scorer(folder, dataset, 0, torch.device("cpu"), today=True)
    users, items, _, scores = best_items(scorer, everyone.all_events(), 7, exclude_seen)
    requests = [
        RecommendRequest(user_id=user, k=7, exclude_seen=exclude_seen) for user in everyone.user_ids.to_pylist()
    ]
    answers = Predictor.load(storage, versions[name]).recommend(requests, [[]] * len(requests))
    item_ids = dataset.items()["item_id"].to_pylist()
    assert [ids(answer) for answer in answers] == [
        [item_ids[item - 1] for item in items[users == user]] for user in range(len(everyone))
    ]
    assert [item.score for answer in answers for item in answer.items] == scores.tolist()


LABELS = st.none() | st.lists(st.sampled_from([*KINDS, "nothing"]), max_size=3)
PRICE = st.none() | st.floats(0, 50)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LABELS, PRICE, PRICE, st.lists(st.integers(95, 145)), st.booleans(), st.integers(1, 50), st.booleans())
def test_filters_never_shrink_the_answer(
    predictor: Predictor, category, price_min, price_max, listed, allow, k, exclude_seen
):
    """What passes stands in the order of the whole ranking, and k of it whenever there are k."""
    fields = {"category": category, "price_min": price_min, "price_max": price_max}
    filters = Filters(**fields, allow=listed) if allow else Filters(**fields, deny=listed)
    asked = {"user_id": "u3", "exclude_seen": exclude_seen}
    every = ask(predictor, **asked, k=1000).items
    passed = [
        item.item_id
        for item in every
        if (category is None or item.category in category)
        and (price_min is None or (item.price is not None and item.price >= price_min))
        and (price_max is None or (item.price is not None and item.price <= price_max))
        and ((item.item_id in listed) == allow)
    ]
    assert ids(ask(predictor, **asked, k=k, filters=filters)) == passed[:k]


def test_an_unknown_user_gets_what_is_best_for_an_empty_history(predictor: Predictor):
    nobody, stranger, known = ask(predictor), ask(predictor, user_id="ü" * 500), ask(predictor, user_id="u3")
    assert ids(nobody) == ids(stranger)
    assert len(nobody.items) == 10
    assert {item.reason.kind for item in nobody.items} <= {"popular", "new"}
    assert (nobody.user_known, stranger.user_known, known.user_known) == (False, False, True)
    assert ids(known) != ids(nobody)


def test_unknown_items_are_reported_and_tell_nothing(predictor: Predictor):
    answer = ask(predictor, history=[101, "no such", 7, "102", "no such"])
    assert answer.unknown_items == ["no such", 7]
    assert ids(answer) == ids(ask(predictor, history=[101, 102])), "numbers may be written as text"


def test_a_history_is_read_in_the_order_of_its_times(predictor: Predictor):
    timed = [
        {"item_id": 105, "timestamp": "2020-01-02T00:00:00Z"},
        {"item_id": 103, "timestamp": "2020-01-01T00:00:00+00:00"},
        109,  # now
    ]
    assert ids(ask(predictor, history=timed)) == ids(ask(predictor, history=[103, 105, 109]))
    assert ids(ask(predictor, history=timed)) != ids(ask(predictor, history=[109, 105, 103]))


def test_what_happened_since_counts_and_once(predictor: Predictor):
    before = ask(predictor, user_id="u3")
    bought = [Event(120, 500 * DAY_US)]
    after = ask(predictor, bought, user_id="u3")
    assert ids(after) != ids(before)
    assert ids(after) == ids(ask(predictor, user_id="u3", history=[120]))
    past = predictor.past("u3", [])
    known = Event(100 + int(past.items[-1]) - 1, int(past.times[-1]) + 5)  # the same second: the log has it
    assert predictor.past("u3", [known]).items.tolist() == past.items.tolist()
    assert ask(predictor, bought, user_id="someone new").user_known


def test_a_click_is_read_as_one_where_the_model_marks_them(config: Config, dataset: Dataset):
    """Told by its type, whether it was kept since, stands in the request, or was in the log from the beginning."""
    marking = with_values(config, {"model.mark_clicks": True, "data.event_types": {"buy": 1.0, "view": 0.0}})
    torch.manual_seed(0)
    model = build_model(marking.model, dataset.items(), 0)[0]
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    items = dataset.items()
    everyone = histories(dataset)
    rows = everyone.user_ids.to_pylist()
    user = rows.index("u3")
    last = int(everyone.offsets[user + 1]) - 1
    weights = everyone.weights.copy()
    weights[last] = 0
    scorer = ModelScorer(model, torch.device("cpu"))

    def served(log: Histories) -> Predictor:
        customers = Customers(log, clock=True, event_types=marking.data.event_types)
        return Predictor("v", scorer, Catalog(items), customers, ItemIndex.fit(dataset), exclude_seen=False)

    plain, clicked = served(everyone), served(replace(everyone, weights=weights))
    assert ask(plain, user_id="u3", k=NUM_ITEMS) != ask(clicked, user_id="u3", k=NUM_ITEMS)
    known = plain.past("u3", [])
    for kind, log in (("view", clicked), ("buy", plain), (None, plain)):
        told = [
            {"item_id": 99 + int(item), "timestamp": when(int(us)), "event_type": "buy"}
            for item, us in zip(known.items, known.times, strict=True)
        ]
        told[-1]["event_type"] = kind
        without_user = ask(plain, history=told, k=NUM_ITEMS)
        assert [item.score for item in without_user.items] == pytest.approx(
            [item.score for item in ask(log, user_id="u3", k=NUM_ITEMS).items], abs=1e-5
        )
        event = Event(told[-1]["item_id"], int(known.times[-1]) + SECOND_US, kind)
        kept = ask(plain, [event], history=told[:-1], k=NUM_ITEMS)
        assert [(item.item_id, item.score) for item in kept.items] == [
            (item.item_id, item.score) for item in without_user.items
        ]


def when(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat()


def test_seen_items_are_left_out_when_asked_and_as_the_model_was_evaluated_by_default(predictor: Predictor):
    seen = {100 + item - 1 for item in predictor.past("u3", []).items.tolist()}
    assert seen & set(ids(ask(predictor, user_id="u3", k=NUM_ITEMS)))
    without = ids(ask(predictor, user_id="u3", k=NUM_ITEMS, exclude_seen=True))
    assert len(without) == NUM_ITEMS - len(seen)
    assert not seen & set(without)


def test_ten_thousand_events_and_every_item_asked_for(predictor: Predictor):
    answer = ask(predictor, history=[100 + n % NUM_ITEMS for n in range(10_000)], k=1000)
    assert sorted(ids(answer)) == list(range(100, 100 + NUM_ITEMS))


def test_boosts_pins_and_variety(predictor: Predictor):
    plain = ask(predictor, user_id="u3", k=NUM_ITEMS)
    boosted = ask(predictor, user_id="u3", k=10, boost=[{"category": "soap", "weight": 10}])
    assert {item.category for item in boosted.items} == {"soap"}
    pinned = ask(predictor, user_id="u3", k=3, pin=[139, 7, "110", 139])
    assert ids(pinned) == [139, 110, ids(plain)[0] if ids(plain)[0] not in (139, 110) else ids(plain)[1]]
    assert [item.reason.kind for item in pinned.items][:2] == ["pinned", "pinned"]
    assert ids(ask(predictor, k=2, pin=[139], filters={"deny": [139]}))[0] != 139
    assert ids(ask(predictor, k=1, pin=[101, 102])) == [101]

    def likeness(answer: RecommendAnswer) -> float:
        vectors = predictor._likeness.rows(np.array([item.item_id - 99 for item in answer.items]))
        return float((vectors @ vectors.T).sum())

    varied = ask(predictor, user_id="u3", diversity=1.0)
    assert len(set(ids(varied))) == 10
    assert likeness(varied) < likeness(ask(predictor, user_id="u3"))
    assert ids(ask(predictor, user_id="u3", diversity=1e-9)) == ids(plain)[:10]


def test_what_is_out_of_stock_is_not_recommended(predictor: Predictor):
    best = ids(ask(predictor, user_id="u3"))[0]
    predictor.set_available(best, False)
    assert best not in ids(ask(predictor, user_id="u3", k=1000))
    assert best not in [item.item_id for item in predictor.popular(1000, Filters())]
    assert best in ids(ask(predictor, user_id="u3", filters={"in_stock": False}))
    predictor.set_available(str(best), True)
    assert ids(ask(predictor, user_id="u3"))[0] == best
    predictor.set_available("no such", False)


def test_a_new_item_is_recommended_by_its_content(predictor: Predictor):
    """One that is described as another is scores as that one, and is answered to at once."""
    every = ask(predictor, user_id="u3", k=1000)
    twin = every.items[0]
    predictor.put(5000, ItemBody(title=twin.title, category=twin.category, brand=twin.brand, price=1))
    answer = ask(predictor, user_id="u3", k=1000)
    assert len(answer.items) == NUM_ITEMS + 1
    new = next(item for item in answer.items if item.item_id == 5000)
    scores = [item.score for item in every.items]
    assert np.mean(scores) < new.score <= scores[0]
    assert (new.reason.kind, new.price) == ("new", 1)
    assert predictor.similar(5000, 3)[0].item_id == twin.item_id
    assert predictor.bought_together(5000, 3) == []
    assert ids(ask(predictor, user_id="u3", filters={"allow": [5000]})) == [5000]
    assert 5000 not in ids(ask(predictor, [Event(5000)], user_id="u3", exclude_seen=True, k=1000))
    predictor.put(6000, ItemBody(title="zzz"))
    lonely = next(item for item in ask(predictor, user_id="u3", k=1000).items if item.item_id == 6000)
    assert lonely.score == pytest.approx(np.mean(scores), rel=1e-5), "it has no word in common with any other"


def test_many_items_are_added_at_once(predictor: Predictor):
    """Twice as many as there were, told as a replica is told when it starts, sold out ones among them."""
    bodies = [ItemBody(title=f"Tea number {n}", category=KINDS[n % 4], price=n) for n in range(2 * NUM_ITEMS)]
    changes = [Change(str(900), "available", "false")]
    changes += [Change(str(900 + n), "item", body.model_dump_json()) for n, body in enumerate(bodies)]
    predictor.apply(changes)
    predictor.apply([Change("seven", "item", bodies[0].model_dump_json())])
    answer = ask(predictor, k=1000)
    assert len(answer.items) == 3 * NUM_ITEMS - 1
    assert 900 not in ids(answer)
    filters = {"category": ["tea"], "price_min": 4, "price_max": 12, "allow": [*range(900, 1000)]}
    assert sorted(ids(ask(predictor, k=1000, filters=filters))) == [904, 908, 912]
    assert len(predictor.similar(979, 5)) == 5
    one_by_one = {item.item_id: item.score for item in answer.items}
    predictor.put(920, bodies[20])
    assert {item.item_id: item.score for item in ask(predictor, k=1000).items} == one_by_one


def test_an_item_is_described_anew(predictor: Predictor):
    predictor.put("104", ItemBody(title="Gift card", category="cards", price=99.5))
    found = ask(predictor, filters={"category": ["cards"], "price_min": 99}).items
    assert [(item.item_id, item.title, item.brand) for item in found] == [(104, "Gift card", None)]
    for wrong in ("x", "0104", str(2**70)):
        with pytest.raises(ValueError, match="whole numbers"):
            predictor.put(wrong, ItemBody(title="t"))


def test_similar_popular_and_bought_together(predictor: Predictor, dataset: Dataset):
    index = ItemIndex.fit(dataset)
    popular = predictor.popular(5, Filters())
    assert [item.item_id - 99 for item in popular] == index.by_popularity()[:5].tolist()
    assert popular[0].score == index.recent.max()
    assert {item.category for item in predictor.popular(5, Filters(category=["tea"]))} == {"tea"}
    row = index.together[[5]].toarray().ravel()
    together = predictor.bought_together(104, 3)
    assert [item.score for item in together] == sorted(row[row > 0], reverse=True)[:3]
    similar = predictor.similar(104, 1000)
    assert len(similar) == NUM_ITEMS - 1
    assert 104 not in [item.item_id for item in similar]
    vectors = predictor._scorer.vectors()
    assert similar[0].score == pytest.approx(np.sort(vectors[5] @ vectors.T)[-2])
    for question in (predictor.similar, predictor.bought_together):
        with pytest.raises(KeyError):
            question("no such", 3)


def test_reasons_hold(predictor: Predictor, dataset: Dataset):
    """What is said of an item can be read off the log."""
    index = ItemIndex.fit(dataset)
    kinds = set()
    for user in predictor.customers.first(30):
        past = predictor.past(user, []).items
        for item in ask(predictor, user_id=user, k=1000).items:
            own, reason = item.item_id - 99, item.reason
            kinds.add(reason.kind)
            assert (reason.kind == "again") == (own in past)
            if reason.text.startswith("Often bought with"):
                assert index.together[[own], [int(reason.item_id) - 99]] > 0
            if reason.kind == "because":
                assert int(reason.item_id) - 99 in past
    assert {"again", "because", "popular"} <= kinds


def test_a_damaged_version_is_refused(config: Config, versions: dict[str, Version]):
    storage = Storage.from_config(config.storage)
    path = join(versions["two"].uri, "model.safetensors")
    whole = storage.read_bytes(path)
    storage.write_bytes(path, whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(CheckpointError, match=r"models/.*/model\.safetensors: its bytes differ"):
            Predictor.load(storage, versions["two"])
    finally:
        storage.write_bytes(path, whole)
    assert Predictor.load(storage, versions["two"]).version == versions["two"].name


def test_a_version_whose_dataset_is_gone(config: Config, versions: dict[str, Version]):
    manifest = {**versions["one"].manifest, "dataset": "/nowhere/d"}
    with pytest.raises(DataError, match="no complete dataset there"):
        Predictor.load(Storage.from_config(config.storage), Version("x", versions["one"].uri, manifest))


def test_boosts_count_in_spreads_of_the_scores(predictor: Predictor):
    scores = {item.item_id: item.score for item in ask(predictor, k=1000).items}
    moved = {i.item_id: i.score for i in ask(predictor, k=1000, boost=[Boost(item_ids=[103], weight=2)]).items}
    spread = float(np.std(np.float32(list(scores.values()))))
    assert moved[103] - scores[103] == pytest.approx(2 * spread, rel=1e-3)
    assert {item: score for item, score in moved.items() if item != 103} == {
        item: score for item, score in scores.items() if item != 103
    }


def test_items_like_one_that_nobody_bought_are_those_whose_texts_are(predictor: Predictor):
    """What the model has of it is chance, and so is what it has of others like it."""
    assert predictor._untrained.nonzero()[0].tolist() == [NUM_ITEMS], "the last of the shop"
    found = predictor.similar(139, NUM_ITEMS)
    assert len(found) == NUM_ITEMS - 1
    scores = {item.item_id: item.score for item in found}
    own = predictor._content.cosines("Cheese number 39 brand0 cheese")
    assert scores == pytest.approx({100 + n: own[n] for n in range(NUM_ITEMS - 1)})
    assert (found[0].category, found[0].brand) == ("cheese", "brand0")
    predictor.put(5000, ItemBody(title="Cheese number 39", category="cheese", brand="brand0"))
    assert predictor.similar(139, 1)[0].item_id == 5000
    assert predictor.similar(5000, 1)[0].item_id == 139
    assert {item.item_id: item.score for item in predictor.similar(104, 1000)}[139] == 0


def test_what_nobody_bought_has_a_vector_where_there_is_content(config: Config, versions: dict[str, Version]):
    """It was taken for chance there, too: the dataset that a version names does not say what its model reads."""
    predictor = Predictor.load(Storage.from_config(config.storage), versions["described"])
    assert not predictor._untrained.any()
    scores = {item.item_id: item.score for item in predictor.similar(104, 1000)}
    assert scores[139] == pytest.approx(
        float(predictor._likeness.to_all(predictor._likeness.rows(np.array([5]))[0])[40])
    )


def test_a_ranker_needs_the_scores_of_all_items(
    config: Config, versions: dict[str, Version], caplog: pytest.LogCaptureFixture
):
    """Its features are shares of the whole catalogue: no index stands in for it, also where one is asked for."""
    storage = Storage.from_config(config.storage)
    asked, exact = (Predictor.load(storage, versions["hybrid"], way) for way in ("ann", "exact"))
    assert "retrieval: exact, since the ranker reads the scores of all items" in caplog.text
    assert ask(asked, user_id="u3") == ask(exact, user_id="u3")
