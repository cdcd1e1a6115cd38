"""Next-item recommendation: histories, the sequence model, its loss, and full-catalogue validation."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ray_app.config import Config
from ray_app.content.vectors import item_content, item_pictures
from ray_app.data.batches import Batch, pad_histories
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import Histories, LongArray, Part, Ragged
from ray_app.data.shard import Read, Shard, share_of, steps_per_epoch
from ray_app.errors import DataError
from ray_app.metrics import Ragged as RaggedRanks
from ray_app.metrics import Scores, hit_rate, mrr, ndcg, target_ranks
from ray_app.models.losses import sampled_softmax_loss, softmax_loss, without_targets
from ray_app.models.repeats import Repeats, habits_of, last_places, with_habits, without_had
from ray_app.models.sequence import SequenceModel
from ray_app.schema import PAD, Col
from ray_app.tasks.beginning import build_model
from ray_app.tasks.recommender import TrainedModel, check_encoder
from ray_app.train_config import ModelConfig

METRIC = "ndcg@10"
SCORES_AT_ONCE = 1 << 26
"""What validation holds in memory: in a catalogue of more than 131,000 items fewer users are asked about at a time."""


class RecommendTask:
    """What the loop trains: this worker's shard under the configured loss.

    Where seen items are excluded, what a history holds is no negative after it: nobody asks how it is ranked, and to
    learn that it is not wanted would teach that nothing like it is.
    """

    metric = METRIC

    def __init__(
        self,
        model: SequenceModel,
        reference: dict[str, Tensor],
        shard: Shard,
        steps_per_epoch: int,
        config: ModelConfig,
        *,
        train_counts: Tensor | None = None,
        exclude_seen: bool = True,
        device: torch.device | None = None,
        memory_settings: dict[str, object] | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.model = model.to(self.device)
        self.reference = reference
        self.steps_per_epoch = steps_per_epoch
        self.memory_settings = memory_settings or {}
        self._shard = shard
        self._config = config
        self._exclude_seen = exclude_seen
        self._trained = _trained_items(model, train_counts, self.device)
        self._probabilities = _draw_probabilities(config, model.num_items, train_counts, self._trained, self.device)

    def batches(self, rng: np.random.Generator, first: int) -> Iterator[Batch]:
        """See `Task.batches`."""
        config = self._config
        only_new = config.targets == "new"
        steps, length = self.steps_per_epoch, config.max_history_len
        for batch in self._shard.batches(steps, length, rng, first, only_new=only_new, reorder=config.reorder):
            yield batch.to(self.device)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Task.loss`: cross-entropy of the items of every next order."""
        if self._config.order_balance:
            sizes = torch.bincount(batch.query_of_target)[batch.query_of_target]
            batch = batch._replace(weights=batch.weights / sizes**self._config.order_balance)
        hidden = self.model(batch.items, batch.clicks)
        loss = self._full_loss if self._config.loss == "softmax" else self._sampled_loss
        return loss(batch, hidden), batch.weights.sum()

    def _full_loss(self, batch: Batch, hidden: Tensor) -> Tensor:
        model = self.model
        logits = torch.addmm(model.head.bias, hidden.flatten(0, 1)[batch.queries], model.table().T)
        if self._trained is not None and not self._config.label_smoothing:  # which has no place for an infinite logit
            logits = logits.masked_fill(~self._trained, float("-inf"))
        if model.head.repeats is not None:
            items = batch.items[batch.queries // batch.items.shape[1]]
            distinct = last_places(batch.items).flatten(0, 1)[batch.queries]
            habits = self._habits(batch, hidden, model.head.repeats)
            padded = functional.pad(logits, (1, 0))
            logits = with_habits(padded, items.masked_fill(~distinct, PAD), habits)[:, 1:]
        if self._exclude_seen and not self._config.label_smoothing:
            asked = batch.query_of_target, batch.targets - 1
            everything = torch.arange(1, model.num_items + 1, device=self.device)
            logits = _without_had(logits, batch, everything).index_put(asked, logits[asked])
        wanted = logits[batch.query_of_target]
        return softmax_loss(wanted, batch.targets - 1, batch.weights, self._config.label_smoothing)

    def _sampled_loss(self, batch: Batch, hidden: Tensor) -> Tensor:
        model, targets, asking = self.model, batch.targets, batch.query_of_target
        query = hidden.flatten(0, 1)[batch.queries]
        sampled, log_expected = self._draw()
        positive = (query[asking] * model.scored(targets)).sum(1) + model.bias(targets)
        negative = torch.addmm(model.bias(sampled), query, model.scored(sampled).T)
        if log_expected is not None:
            negative = negative - log_expected
        negative = without_targets(negative, sampled, asking, targets)
        if self._exclude_seen or model.head.repeats is not None:
            negative = _without_had(negative, batch, sampled)
        if model.head.repeats is not None:
            row = batch.queries // batch.items.shape[1]
            items, habits = batch.items[row], self._habits(batch, hidden, model.head.repeats)
            positive = torch.logaddexp(positive, habits_of(targets, items[asking], habits[asking]))
            if not self._exclude_seen:
                negative = torch.cat([negative, self._own(batch, query, habits)], dim=1)
        return sampled_softmax_loss(positive, negative, asking, batch.weights)

    def _own(self, batch: Batch, query: Tensor, habits: Tensor) -> Tensor:
        """Logits of the items of each query's history, `[queries, history]`: too few to be sampled often."""
        model, row = self.model, batch.queries // batch.items.shape[1]
        items = batch.items[row]
        own = torch.bmm(model.scored(batch.items)[row], query.unsqueeze(2)).squeeze(2) + model.bias(items)
        distinct = last_places(batch.items).flatten(0, 1)[batch.queries]
        own = torch.logaddexp(own, habits).masked_fill(~distinct, float("-inf"))
        return without_targets(own, items, batch.query_of_target, batch.targets)

    def _habits(self, batch: Batch, hidden: Tensor, repeats: Repeats) -> Tensor:
        """Habit of each query for the items of its history, `[queries, history]`."""
        expected = hidden[..., : self.model.shape.dim]
        evidence = repeats.evidence(batch.items, self.model.vectors(batch.items), expected)
        return evidence.flatten(0, 1)[batch.queries]

    @torch.no_grad()
    def validate(self) -> dict[str, tuple[float, float]]:
        """See `Task.validate`: users with an event in the validation part, over the full catalogue."""
        totals: dict[str, tuple[float, float]] = dict.fromkeys((METRIC, "hit_rate@10", "mrr"), (0.0, 0.0))
        for histories in self._shard.windows():
            for ranks in target_ranks_of(self.model, histories, "validation", self._exclude_seen):
                values = {METRIC: ndcg(ranks, 10), "hit_rate@10": hit_rate(ranks, 10), "mrr": mrr(ranks)}
                for name, per_user in values.items():
                    total, count = totals[name]
                    totals[name] = (total + float(per_user.sum()), count + len(per_user))
        return totals

    def _draw(self) -> tuple[Tensor, Tensor | None]:
        """Items drawn with replacement, and the log of how often each is expected."""
        number = self._config.num_negatives
        if self._probabilities is None:
            drawn = torch.randint(1, self.model.num_items + 1, (number,), device=self.device)
            if not self._config.logq_correction:
                return drawn, None
            expected = torch.full((number,), number / self.model.num_items, device=self.device)
            return drawn, expected.log()
        drawn = torch.multinomial(self._probabilities, number, replacement=True)
        log_expected = (self._probabilities[drawn] * number).log() if self._config.logq_correction else None
        return drawn + 1, log_expected


def _without_had(logits: Tensor, batch: Batch, items: Tensor) -> Tensor:
    """`logits` `[queries, items]` with -inf for what each query's history holds."""
    row, place = batch.queries // batch.items.shape[1], batch.queries % batch.items.shape[1]
    return without_had(logits, batch.items, row, place, items)


def _trained_items(model: SequenceModel, train_counts: Tensor | None, device: torch.device) -> Tensor | None:
    """Which items may be negatives, bool `[num_items]`, where content speaks for those that nobody could have had.

    To learn that they are not wanted would teach what items like them are worth. None: all may.
    """
    if not model.is_described or train_counts is None or bool(train_counts.all()):
        return None
    return train_counts.to(device) > 0


def _draw_probabilities(
    config: ModelConfig, num_items: int, train_counts: Tensor | None, trained: Tensor | None, device: torch.device
) -> Tensor | None:
    if config.negatives == "uniform":
        return None if trained is None else trained.float() / trained.sum()
    assert train_counts is not None
    assert len(train_counts) == num_items
    smoothed = train_counts.to(device, torch.float32) + (1 if trained is None else trained)
    popular = smoothed / smoothed.sum()
    if config.negatives == "popularity":
        return popular
    even = torch.ones_like(popular) if trained is None else trained.float()
    return (popular + even / even.sum()) / 2


def questions(histories: Histories, part: Part, exclude_seen: bool) -> tuple[LongArray, Ragged, Ragged]:
    """What evaluation asks: users that have a target in `part`, their histories before it, and their targets.

    Where seen items are excluded, they are no targets either: the question is then which new item comes next.
    """
    known, targets = histories.before(part), histories.targets(part)
    if exclude_seen:
        targets = targets.without(known)
    users = np.flatnonzero(targets.lengths > 0)
    return users, known.take(users), targets.take(users)


def score(model: SequenceModel, histories: Ragged, table: Tensor) -> Scores:
    """Scores of all items after each history, float32 `[users, num_items + 1]`; `table` is `model.table()`."""
    padded = pad_histories(histories, model.shape.max_history_len)
    items, lengths, clicks = (tensor.to(table.device) for tensor in padded)
    with torch.no_grad():
        return model.scores(items, lengths, table, clicks).cpu().numpy()


def unit_vectors(table: Tensor) -> NDArray[np.float32]:
    """Item vectors from which their mean was taken, of length 1, `[num_items + 1, dim]`; row `PAD` is zero.

    The mean says how popular items are scored, and would make all of them look alike.
    """
    centred = functional.normalize(table - table.mean(0), dim=1).cpu().numpy()
    return np.concatenate([np.zeros((1, centred.shape[1]), np.float32), centred])


def target_ranks_of(
    model: SequenceModel, histories: Histories, part: Part, exclude_seen: bool, batch_users: int = 512
) -> Iterator[RaggedRanks]:
    """Ranks of the targets of `part`, a batch of users at a time."""
    users, known, targets = questions(histories, part, exclude_seen)
    table = model.table()
    size = max(1, min(batch_users, SCORES_AT_ONCE // model.num_items))
    for start in range(0, len(users), size):
        stop = min(start + size, len(users))
        seen = known.slice(start, stop)
        yield target_ranks(score(model, seen, table), targets.slice(start, stop), seen if exclude_seen else None)


def build_task(
    config: Config,
    dataset: Dataset,
    pretrained: TrainedModel | None,
    read: Read,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
) -> RecommendTask:
    """The task of worker `rank`: its share of the data, and the model at its start.

    Raises:
        DataError: the train part has nothing to learn from.
    """
    uris = share_of(dataset, rank, world_size)
    positions = sum(part.train_targets for part in dataset.manifest.parts[rank::world_size])
    if not sum(part.train_targets for part in dataset.manifest.parts):
        raise DataError(
            f"{dataset.uri}: no user has two events in the train part, so there is nothing to learn from; "
            "look at data.split and at the quarantine"
        )
    items = dataset.items()
    check_encoder(pretrained, dataset)
    content = (item_content(dataset), item_pictures(dataset), dataset.labels)
    model, reference = build_model(config.model, items, config.train.seed, pretrained, *content)
    return RecommendTask(
        model,
        reference,
        Shard(uris, positions, read, config.train.window_users),
        steps_per_epoch(dataset, world_size, config.train.tokens_per_batch),
        config.model,
        train_counts=torch.from_numpy(items[Col.TRAIN_COUNT].to_numpy().copy()),
        exclude_seen=config.evaluate.exclude_seen,
        device=device,
        memory_settings={
            "train.tokens_per_batch": config.train.tokens_per_batch,
            "model.num_negatives": config.model.num_negatives,
            "model.dim": config.model.dim,
        },
    )
