"""What customers do while the service runs is counted for all of them, once, and in time forgotten."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from ray_app.config import Config
from ray_app.registry import Version
from ray_app.serve_config import ServeConfig
from ray_app.serving.customers import SECOND_US, Event
from ray_app.serving.events import NewRow
from ray_app.serving.lately import Lately
from ray_app.serving.loaded import Loaded
from ray_app.serving.meters import Meters
from ray_app.serving.predictor import Predictor
from ray_app.serving.schemas import RecommendRequest
from ray_app.serving.store import LocalStore
from ray_app.storage import Storage
from ray_app.tasks.hybrid import HybridScorer

LATER = 10**15


@pytest.fixture
def ours(config: Config, versions: dict[str, Version]) -> Predictor:
    return Predictor.load(Storage.from_config(config.storage), versions["hybrid"])


def lately_of(predictor: Predictor, weights: dict[str, float] | None = None) -> tuple[HybridScorer, Lately]:
    scorer = predictor._scorer
    assert isinstance(scorer, HybridScorer)
    return scorer, Lately(scorer, predictor.customers, predictor.catalog, weights)


def ids(predictor: Predictor, *items: int) -> list[str]:
    return [str(predictor.catalog.describe(item).item_id) for item in items]


def told(lately: Lately, user: str, items: list[str], new: int | None = None, kind: str | None = None) -> None:
    """The user takes these one after another; the last `new` of them (all) were not counted before."""
    rows = [NewRow(user, item, LATER + place * SECOND_US, kind) for place, item in enumerate(items)]
    moves = lately.moves(rows[-(new or len(rows)) :], {user: [Event(row.item, row.time) for row in rows]})
    lately.count(moves, new or len(rows))


def test_an_event_adds_the_transition_from_what_its_user_had(ours: Predictor):
    scorer, lately = lately_of(ours)
    before = scorer.memory
    told(lately, "nobody knows", ids(ours, 3, 9, 30))
    after = scorer.memory
    for one, other in ((3, 9), (9, 30), (3, 30)):
        assert after.forward[one, other] > before.forward[one, other]
        assert after.backward[other, one] > before.backward[other, one]
        assert after.around[one, other] > before.around[one, other]
    assert after.forward[30, 3] == before.forward[30, 3]
    assert (after.counts - before.counts).nonzero()[0].tolist() == [3, 9, 30]


def test_in_pieces_it_counts_as_at_once(ours: Predictor):
    scorer, lately = lately_of(ours)
    items, base = ids(ours, 3, 9, 30, 5), scorer.memory
    told(lately, "x", items)
    at_once, scorer.memory = scorer.memory, base
    _, again = lately_of(ours)
    for stop in range(1, len(items) + 1):
        told(again, "x", items[:stop], new=1)
    assert np.array_equal(scorer.memory.counts, at_once.counts)
    assert abs(scorer.memory.forward - at_once.forward).max() < 1e-6
    assert abs(scorer.memory.around - at_once.around).max() < 1e-6


def test_the_history_that_the_dataset_knows_comes_first_and_is_not_counted_again(ours: Predictor):
    scorer, lately = lately_of(ours)
    past = ours.customers.past("u3", [], ours.catalog)
    assert len(past.items) > 1
    other = next(item for item in range(1, 41) if item not in past.items)
    base, [new] = scorer.memory, ids(ours, other)
    known = [(item, time) for item, time in zip(ids(ours, *past.items.tolist()), past.times.tolist(), strict=True)]
    rows = [*(NewRow("u3", item, time) for item, time in known), NewRow("u3", new, LATER)]
    lately.count(lately.moves(rows, {"u3": [Event(row.item, row.time) for row in rows]}), len(rows))
    assert (scorer.memory.counts - base.counts).nonzero()[0].tolist() == [other]
    assert scorer.memory.forward[past.items[-1], other] > base.forward[past.items[-1], other]
    assert (scorer.memory.forward != base.forward).nnz <= 5, "the last five items lead to the new one"


def test_a_type_that_weighs_nothing_is_followed_and_not_recommended(ours: Predictor):
    scorer, lately = lately_of(ours, {"view": 0.0, "buy": 1.0})
    base = scorer.memory
    told(lately, "x", ids(ours, 3, 9), kind="view")
    assert np.array_equal(scorer.memory.counts, base.counts)
    assert (scorer.memory.forward != base.forward).nnz == 0
    rows = [NewRow("y", ids(ours, 3)[0], LATER, "view"), NewRow("y", ids(ours, 9)[0], LATER + SECOND_US, "buy")]
    lately.count(lately.moves(rows, {"y": [Event(row.item, row.time) for row in rows]}), 2)
    assert scorer.memory.forward[3, 9] > base.forward[3, 9]
    assert scorer.memory.counts[3] == base.counts[3]


def test_the_oldest_are_forgotten(ours: Predictor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ray_app.serving.lately.HALF", 4)
    scorer, lately = lately_of(ours)
    base = scorer.memory
    told(lately, "a", ids(ours, 3, 9))
    for user in ("b", "c", "d"):
        told(lately, user, ids(ours, 5, 7))
    assert scorer.memory.counts[3] == base.counts[3] + 1, "at least four are remembered"
    told(lately, "e", ids(ours, 5, 7))
    assert scorer.memory.counts[3] == base.counts[3]
    assert abs(scorer.memory.forward[3, 9] - base.forward[3, 9]) < 1e-6
    assert scorer.memory.counts[5] - base.counts[5] <= 8


def test_what_many_did_after_an_item_is_recommended_to_others_after_it(ours: Predictor, tmp_path: Path):
    """Through the store, as a replica hears of it; another version that begins later hears the same."""

    async def scene() -> None:
        store, meters = LocalStore(str(tmp_path / "state.sqlite")), Meters()
        loaded = Loaded(ours, store, ServeConfig(), meters)
        scorer, _ = lately_of(ours)
        one, other = ids(ours, 40, 20)
        before = scorer.memory
        rows = [
            NewRow(f"n{n}", item, LATER + (2 * n + place) * SECOND_US)
            for n in range(50)
            for place, item in enumerate((one, other))
        ]
        await store.append(rows[:60])
        await loaded.learn()
        await store.append(rows)
        await loaded.learn()
        after = scorer.memory
        assert after.counts[20] == before.counts[20] + 50
        assert after.forward[40, 20] > before.forward[40, 20] + 5
        await loaded.learn()
        assert scorer.memory is after, "without news nothing is counted"
        answer = await loaded.recommend(RecommendRequest(history=[one], k=5))
        assert len(answer.items) == 5
        scorer.memory = before
        late = Loaded(ours, store, ServeConfig(), meters)
        ours.lately = Lately(scorer, ours.customers, ours.catalog, None)
        await late.learn()
        assert abs(scorer.memory.forward - after.forward).max() < 1e-4
        for each in (loaded, late):
            each.close()
        await store.close()

    asyncio.run(scene())
