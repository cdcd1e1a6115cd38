"""The loss of the recommendation task: a sample of everything must give what the whole catalogue gives."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_app.data.batches import Batch, cut_windows, training_batches
from ray_app.data.sequences import Histories
from ray_app.data.shard import Shard
from ray_app.models.sequence import SequenceModel
from ray_app.tasks.recommend import RecommendTask, target_ranks_of
from ray_app.tasks.recommender import shape_of
from ray_app.train_config import ModelConfig

NUM_ITEMS = 9
BATCH = Batch(
    items=torch.tensor([[1, 2, 1, 3, 0], [4, 4, 5, 6, 4]]),
    clicks=torch.zeros(2, 5, dtype=torch.bool),
    queries=torch.tensor([1, 3, 5, 9]),
    query_of_target=torch.tensor([0, 1, 2, 3]),
    targets=torch.tensor([1, 9, 4, 5]),  # had before, new, had before, had before
    weights=torch.tensor([1.0, 0.5, 2.0, 1.0]),
)


class EveryItem(RecommendTask):
    """Draws each item of the catalogue once."""

    def _draw(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return torch.arange(1, NUM_ITEMS + 1), torch.zeros(NUM_ITEMS)


def loss_of(
    task_class: type[RecommendTask],
    repeats: bool,
    loss: str,
    temperature: float | None = None,
    *,
    exclude_seen: bool = False,
    batch: Batch = BATCH,
    max_history_len: int = 5,
) -> tuple[torch.Tensor, SequenceModel]:
    settings = {"dim": 8, "repeats": repeats, "loss": loss, "temperature": temperature}
    config = ModelConfig.model_validate({**settings, "max_history_len": max_history_len})
    torch.manual_seed(0)
    model = SequenceModel(shape_of(config), torch.arange(NUM_ITEMS), 4).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    task = task_class(model, {}, Shard([], 0, lambda _: iter(()), 1), 1, config, exclude_seen=exclude_seen)
    value, weight = task.loss(batch)
    assert weight.item() == batch.weights.sum()
    value.backward()
    return value.detach(), model


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("temperature", [None, 0.1])
def test_a_sample_of_the_whole_catalogue_gives_the_full_loss_and_its_gradients(
    repeats: bool, temperature: float | None, exclude_seen: bool
) -> None:
    full, of_full = loss_of(RecommendTask, repeats, "softmax", temperature, exclude_seen=exclude_seen)
    sampled, of_sampled = loss_of(EveryItem, repeats, "sampled_softmax", temperature, exclude_seen=exclude_seen)
    torch.testing.assert_close(sampled, full)
    for (name, one), other in zip(of_full.named_parameters(), of_sampled.parameters(), strict=True):
        assert one.grad is not None, name
        assert other.grad is not None, name
        torch.testing.assert_close(one.grad, other.grad, msg=name)
        assert np.isfinite(one.grad.numpy()).all()


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
@pytest.mark.parametrize("repeats", [False, True])
def test_where_seen_items_are_excluded_they_compete_with_no_target(loss: str, repeats: bool) -> None:
    """After 1, 2, 1, 3 the target 9 has 4 to 8 against it; after 4, 4, 5 the target 4, had as it is, has not 5."""
    one = {"clicks": BATCH.clicks[:1], "query_of_target": torch.tensor([0]), "weights": torch.ones(1)}
    first = BATCH._replace(items=BATCH.items[:1], queries=torch.tensor([3]), targets=torch.tensor([9]), **one)
    task = EveryItem if loss == "sampled_softmax" else RecommendTask
    value, model = loss_of(task, repeats, loss, exclude_seen=True, batch=first)
    scores = model.scores(first.items[:, :4], torch.tensor([4]))[0]
    torch.testing.assert_close(value, torch.logsumexp(scores[4:], 0).detach() - scores[9].detach())
    assert model.head.bias.grad is not None
    assert model.head.bias.grad.ne(0).tolist() == [False] * 3 + [True] * 6
    again = first._replace(items=BATCH.items[1:], queries=torch.tensor([2]), targets=torch.tensor([4]))
    value, model = loss_of(task, repeats, loss, exclude_seen=True, batch=again)
    scores = model.scores(again.items[:, :3], torch.tensor([3]))[0].detach()
    torch.testing.assert_close(value, torch.logsumexp(scores[[1, 2, 3, 4, 6, 7, 8, 9]], 0) - scores[4])


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
@pytest.mark.parametrize("repeats", [False, True])
def test_who_had_everything_else_learns_nothing_and_breaks_nothing(loss: str, repeats: bool) -> None:
    batch = Batch(
        items=torch.arange(1, 9).unsqueeze(0),
        clicks=torch.zeros(1, 8, dtype=torch.bool),
        queries=torch.tensor([7]),
        query_of_target=torch.tensor([0]),
        targets=torch.tensor([9]),
        weights=torch.ones(1),
    )
    task = EveryItem if loss == "sampled_softmax" else RecommendTask
    value, model = loss_of(task, repeats, loss, exclude_seen=True, batch=batch, max_history_len=8)
    assert value == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name  # and nothing that is not a number


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_a_balanced_order_weighs_a_power_of_its_size(loss: str, balance: float) -> None:
    """One order of three items and one of one: at 1 both weigh the same, at 0 three times and once."""
    shared = torch.tensor([0, 0, 0, 1])
    batch = BATCH._replace(queries=BATCH.queries[:2], query_of_target=shared, weights=torch.ones(4))
    alone, of_all = [], []
    for chosen in range(4):
        weights = torch.nn.functional.one_hot(torch.tensor(chosen), 4).float()
        alone.append(loss_of_batch(batch._replace(weights=weights), loss, 0.0)[0])
        of_all.append((3.0 if chosen < 3 else 1.0) ** -balance)
    value, weight = loss_of_batch(batch, loss, balance)
    torch.testing.assert_close(value, torch.stack(alone) @ torch.tensor(of_all))
    assert weight.item() == pytest.approx(3 * 3**-balance + 1)


def loss_of_batch(batch: Batch, loss: str, balance: float) -> tuple[torch.Tensor, torch.Tensor]:
    settings = {"dim": 8, "loss": loss, "max_history_len": 5, "order_balance": balance}
    config = ModelConfig.model_validate(settings)
    torch.manual_seed(0)
    model = SequenceModel(shape_of(config), torch.arange(NUM_ITEMS), 4).eval()
    value, weight = EveryItem(model, {}, Shard([], 0, lambda _: iter(()), 1), 1, config).loss(batch)
    return value.detach(), weight


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_bfloat16_autocast_gives_nearly_the_same_loss_and_gradients(loss: str) -> None:
    exact, of_exact = loss_of(EveryItem, repeats=True, loss=loss)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, of_rounded = loss_of(EveryItem, repeats=True, loss=loss)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=2e-3, atol=0.0)
    for (name, one), other in zip(of_exact.named_parameters(), of_rounded.parameters(), strict=True):
        assert one.grad is not None, name
        assert other.grad is not None, name
        torch.testing.assert_close(other.grad, one.grad, rtol=0.1, atol=0.01, msg=name)


@pytest.mark.parametrize(
    "settings", [*({"negatives": kind} for kind in ("uniform", "popularity", "mixed")), {"loss": "softmax"}]
)
def test_an_item_that_nobody_could_have_had_is_no_negative_where_there_is_content(settings: dict[str, str]) -> None:
    """Told that it is unwanted, the model would learn it of the items like it, through the projection they share."""
    config = ModelConfig.model_validate({"dim": 8, "max_history_len": 5, "num_negatives": 200, **settings})
    content = torch.nn.functional.normalize(
        torch.randn(NUM_ITEMS, 6, generator=torch.Generator().manual_seed(0)), dim=1
    )
    counts = torch.tensor([3, 1, 1, 5, 2, 1, 0, 0, 4])
    shape = shape_of(config, content_dim=6)
    model = SequenceModel(shape, torch.arange(NUM_ITEMS), 0, content=content)
    shard = Shard([], 0, lambda _: iter(()), 1)
    task = RecommendTask(model, {}, shard, 1, config, train_counts=counts)
    value, _ = task.loss(BATCH)
    value.backward()
    assert model.head.items.weight.grad is not None
    moved = model.head.items.weight.grad.any(1).tolist()
    assert moved == [True] * 6 + [False, False, True]
    drawn, log_expected = task._draw()
    if settings.get("negatives") == "uniform":
        assert log_expected is not None
        assert set(drawn.tolist()) == {1, 2, 3, 4, 5, 6, 9}
        torch.testing.assert_close(log_expected.exp(), torch.full((200,), 200 / 7))


@pytest.mark.parametrize(
    ("kind", "share"),
    [("uniform", [1 / 3] * 3), ("popularity", [7 / 10, 2 / 10, 1 / 10]), ("mixed", [31 / 60, 16 / 60, 13 / 60])],
)
def test_negatives_are_drawn_as_often_as_the_correction_says(kind: str, share: list[float]) -> None:
    config = ModelConfig.model_validate({"dim": 8, "max_history_len": 5, "num_negatives": 20_000, "negatives": kind})
    model = SequenceModel(shape_of(config), torch.arange(3), 0)
    task = RecommendTask(
        model, {}, Shard([], 0, lambda _: iter(()), 1), 1, config, train_counts=torch.tensor([6, 1, 0])
    )
    torch.manual_seed(0)
    drawn, log_expected = task._draw()
    assert log_expected is not None
    expected = torch.tensor(share)
    torch.testing.assert_close(torch.bincount(drawn, minlength=4)[1:] / 20_000, expected, rtol=0, atol=0.02)
    torch.testing.assert_close(log_expected.exp() / 20_000, expected[drawn - 1])


def test_of_a_very_large_catalogue_fewer_users_are_asked_about_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    users = 7
    histories = Histories(
        user_ids=pa.array(range(users)),
        items=np.random.default_rng(0).integers(1, NUM_ITEMS + 1, 3 * users, np.int32),
        times=np.arange(3 * users),
        weights=np.ones(3 * users, np.float32),
        orders=np.tile(np.arange(3, dtype=np.int32), users),
        offsets=np.arange(users + 1) * 3,
        num_train=np.full(users, 2),
        num_validation=np.full(users, 1),
    )
    torch.manual_seed(0)
    model = SequenceModel(shape_of(ModelConfig(dim=8, max_history_len=5)), torch.arange(NUM_ITEMS), 0).eval()
    [(at_once, _)] = target_ranks_of(model, histories, "validation", False)
    monkeypatch.setattr("ray_app.tasks.recommend.SCORES_AT_ONCE", 3 * NUM_ITEMS)
    batches = [ranks for ranks, _ in target_ranks_of(model, histories, "validation", False)]
    assert [len(ranks) for ranks in batches] == [3, 3, 1]
    assert np.concatenate(batches).tolist() == at_once.tolist()
    monkeypatch.setattr("ray_app.tasks.recommend.SCORES_AT_ONCE", 1)
    assert len(list(target_ranks_of(model, histories, "validation", False))) == users


def of_clicks_and_purchases(users: int, seed: int) -> Histories:
    """What was bought last says what is bought next; between two purchases lie clicks on anything."""
    rng = np.random.default_rng(seed)
    following = np.random.default_rng(0).permutation(NUM_ITEMS) + 1
    events: list[tuple[int, float]] = []
    offsets = [0]
    for _ in range(users):
        bought = int(rng.integers(1, NUM_ITEMS + 1))
        for _ in range(6):
            events += [(int(rng.integers(1, NUM_ITEMS + 1)), 0.0) for _ in range(rng.integers(0, 4))]
            events.append((bought, 1.0))
            bought = int(following[bought - 1])
        offsets.append(len(events))
    lengths = np.diff(offsets)
    return Histories(
        user_ids=pa.array(range(users)),
        items=np.array([item for item, _ in events], np.int32),
        times=np.arange(len(events)),
        weights=np.array([weight for _, weight in events], np.float32),
        orders=np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
        offsets=np.array(offsets),
        num_train=lengths - 1,
        num_validation=np.ones(users, np.int64),
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_where_clicks_are_noise_a_model_that_marks_them_knows_what_is_bought_next(seed: int) -> None:
    log = of_clicks_and_purchases(300, seed)
    found = {}
    for marked in (False, True):
        config = ModelConfig(dim=16, loss="softmax", dropout=0.0, max_history_len=40, mark_clicks=marked)
        torch.manual_seed(seed)
        model = SequenceModel(shape_of(config), torch.arange(NUM_ITEMS), 0).train()
        task = RecommendTask(model, {}, Shard([], 0, lambda _: iter(()), 1), 1, config, exclude_seen=False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        rng = np.random.default_rng(seed)
        for _ in range(40):
            for batch in training_batches(cut_windows(log, 40), 6, rng):
                loss, weight = task.loss(batch)
                optimizer.zero_grad()
                (loss / weight).backward()
                optimizer.step()
        ranks = [r for r, _ in target_ranks_of(model.eval(), log, "validation", exclude_seen=False)]
        found[marked] = float((np.concatenate(ranks) == 1).mean())
    assert found[True] > found[False] + 0.4, found
