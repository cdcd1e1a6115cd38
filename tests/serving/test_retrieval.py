"""An index over a catalogue of thousands: it finds what looking at every item finds, whatever the filters."""

import logging
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import sparse

from ray_app.data.sequences import Histories
from ray_app.evidence.item_index import ItemIndex
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape
from ray_app.serving import retrieval
from ray_app.serving.catalog import Catalog
from ray_app.serving.customers import Customers
from ray_app.serving.predictor import Predictor
from ray_app.serving.schemas import ItemBody, RecommendAnswer, RecommendRequest
from ray_app.tasks.scorer import ModelScorer

ITEMS, DIM, USERS, KINDS = 6000, 16, 60, 40


def shop(retrieval: str, repeats: bool = True) -> Predictor:
    """Items in clusters, some far more popular than others; histories of neighbours."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    kind = rng.integers(0, KINDS, ITEMS)
    model = SequenceModel(SequenceShape(DIM, 1, 1, 2 * DIM, 20, repeats), torch.arange(ITEMS), 0)
    vectors = rng.standard_normal((KINDS, DIM))[kind] + 0.5 * rng.standard_normal((ITEMS, DIM))
    model.head.items.weight.data = torch.from_numpy(0.2 * vectors).float()
    model.head.bias.data = -0.8 * torch.log(torch.from_numpy(rng.permutation(ITEMS) + 10.0)).float()
    for block in model.backbone.blocks:  # what is wanted next is like what was had
        for parameter in block.parameters():
            parameter.data *= 0.1
    items = pa.table(
        {
            "item_id": np.arange(ITEMS),
            "title": [f"thing {n} of kind{kind[n]}" for n in range(ITEMS)],
            "description": pa.nulls(ITEMS, pa.string()),
            "brand": [f"brand{n % 3}" for n in range(ITEMS)],
            "category": [f"kind{n}" for n in kind],
            "price": np.arange(ITEMS, dtype=np.float64),
        }
    )
    had = np.concatenate([rng.choice(np.flatnonzero(kind == n % KINDS), 6) + 1 for n in range(USERS)]).astype(np.int32)
    counts = np.ones(ITEMS + 1)
    users, none = pa.array([f"u{n}" for n in range(USERS)]), np.zeros(USERS, np.int64)
    events = (had, np.arange(len(had)), np.ones(len(had), np.float32), np.arange(len(had), dtype=np.int32))
    histories = Histories(users, *events, np.arange(USERS + 1) * 6, none, none)
    together = sparse.csr_array((ITEMS + 1, ITEMS + 1), dtype=np.float32)
    index = ItemIndex(counts, counts, np.zeros(ITEMS + 1, np.int64), 0, together)
    scorer = ModelScorer(model, torch.device("cpu"))
    parts = (Catalog(items), Customers(histories, clock=True), index)
    return Predictor("v", scorer, *parts, exclude_seen=False, retrieval=retrieval)


@pytest.fixture(scope="module")
def exact() -> Predictor:
    return shop("exact")


@pytest.fixture(scope="module")
def near() -> Iterator[Predictor]:
    """Every item that passes a filter is scored only where they are very few, as in a large shop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "FEW", 100)
        found = shop("ann")
        assert found._nearest is not None
        yield found


def ask(predictor: Predictor, **fields: object) -> RecommendAnswer:
    return predictor.recommend([RecommendRequest.model_validate(fields)], [[]])[0]


def ids(answer: RecommendAnswer) -> list:
    return [item.item_id for item in answer.items]


def shared(some: RecommendAnswer, others: RecommendAnswer) -> float:
    return len(set(ids(some)) & set(ids(others))) / len(others.items)


def test_an_index_finds_what_looking_at_everything_finds(exact: Predictor, near: Predictor):
    assert near._nearest is not None
    assert near._nearest.recall >= retrieval.FLOOR
    pairs = [(ask(near, user_id=f"u{n}", k=20), ask(exact, user_id=f"u{n}", k=20)) for n in range(USERS)]
    assert np.mean([shared(*pair) for pair in pairs]) >= retrieval.FLOOR
    assert len({tuple(ids(found)) for found, _ in pairs}) > USERS / 2, "it is not what is popular alone"
    for found, wanted in pairs:
        true = {item.item_id: item.score for item in wanted.items}
        for item in found.items:
            assert item.score == pytest.approx(true.get(item.item_id, item.score), abs=1e-4)
        assert [item.score for item in found.items] == sorted((item.score for item in found.items), reverse=True)


ADVERSE = [
    {"category": ["kind7"]},  # far from what most users look for
    {"category": ["nothing"]},
    {"price_min": ITEMS - 50},
    {"price_max": 3000, "brand": ["brand1"]},
    {"allow": [*range(0, ITEMS, 611)]},
    {"allow": [*range(5)]},
    {"deny": [*range(5900)]},
    {"deny": [*range(3000)]},
]


@pytest.mark.parametrize("filters", ADVERSE, ids=str)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_filters_never_shrink_the_answer(exact: Predictor, near: Predictor, filters: dict, k: int):
    found, wanted = [], []
    for user in range(0, USERS, 6):
        fields = {"user_id": f"u{user}", "k": k, "filters": filters, "exclude_seen": True}
        some, every = ask(near, **fields), ask(exact, **fields)
        assert len(some.items) == len(every.items)
        found += [(user, item) for item in ids(some)]
        wanted += [(user, item) for item in ids(every)]
    assert len(set(found) & set(wanted)) >= 0.95 * len(wanted)


def test_what_is_best_of_a_user_is_denied_and_the_next_best_are_found(exact: Predictor, near: Predictor):
    """The worst filter of all: exactly what the index would find."""
    for user in ("u1", "u2", "u3"):
        best = ids(ask(exact, user_id=user, k=1000))
        some, every = (ask(shop, user_id=user, k=50, filters={"deny": best}) for shop in (near, exact))
        assert len(some.items) == 50
        assert not set(ids(some)) & set(best)
        assert shared(some, every) >= 0.9


def test_own_pinned_and_added_items_are_scored_wherever_they_stand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retrieval, "FEW", 100)
    exact, near = shop("exact"), shop("ann")
    for predictor in (exact, near):
        predictor.put(90_000, ItemBody(title="thing of kind5", category="kind5"))
        predictor.put(90_001, ItemBody(title="zzz"))
    far = ids(ask(exact, user_id="u5", k=1000))[-1]
    fields = {"user_id": "u5", "k": 12, "pin": [far, 90_001], "history": [far]}
    some, every = ask(near, **fields), ask(exact, **fields)
    assert ids(some) == ids(every)
    assert [item.score for item in some.items] == pytest.approx([item.score for item in every.items], abs=1e-3)
    assert [item.reason for item in some.items] == [item.reason for item in every.items]
    fields = {"user_id": "u5", "k": 2, "filters": {"allow": [90_000, 90_001]}}
    assert ids(ask(near, **fields)) == ids(ask(exact, **fields))


@pytest.mark.parametrize(
    "fields", [{}, {"user_id": "u3", "boost": [{"category": "kind1", "weight": 5}]}, {"user_id": "u3", "k": 1000}]
)
def test_what_an_index_cannot_know_is_answered_exactly(exact: Predictor, near: Predictor, fields: dict):
    assert ask(near, **fields) == ask(exact, **fields)


def test_requests_of_both_kinds_in_one_batch(near: Predictor):
    fields = [{"user_id": "u3"}, {}, {"user_id": "u4", "k": 500}, {"user_id": "u5", "diversity": 0.5}]
    requests = [RecommendRequest.model_validate(each) for each in fields]
    together = near.recommend(requests, [[]] * 4)
    assert [ids(answer) for answer in together] == [ids(ask(near, **each)) for each in fields]


def test_a_poor_index_is_refused(caplog: pytest.LogCaptureFixture):
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((rows, 64)).astype(np.float32) for rows in (20_000, 20))
    bias = np.zeros(20_000, np.float32)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(retrieval, "PROBES", (1,))
        patch.setattr(retrieval, "FEW", 100)
        patch.setattr(retrieval, "FOUND", 20)
        assert retrieval.Shortlist.build(vectors, bias, queries) is None
    assert "retrieval: exact, since an index finds only" in caplog.text


def test_the_setting(exact: Predictor, monkeypatch: pytest.MonkeyPatch):
    assert exact._nearest is None
    assert shop("auto")._nearest is None, "too small a shop to gain by it"
    monkeypatch.setattr(retrieval, "LARGE", ITEMS)
    assert shop("auto")._nearest is not None
