"""Next-item recommendation: histories, the sequence model, its loss, and full-catalogue validation."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor

from ray_app.checkpoint import CheckpointError, fetched, read_config, verify
from ray_app.config import Config, ModelConfig
from ray_app.data.batches import Batch, pad_histories
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import Histories, LongArray, Part, Ragged
from ray_app.data.shard import Read, Shard, share_of, steps_per_epoch
from ray_app.errors import DataError
from ray_app.metrics import Ragged as RaggedRanks
from ray_app.metrics import Scores, hit_rate, mrr, ndcg, target_ranks
from ray_app.models.losses import sampled_softmax_loss, softmax_loss
from ray_app.models.sequence import SequenceModel, SequenceShape
from ray_app.schema import Col
from ray_app.storage import Storage

MODEL_FILE = "model.safetensors"
ITEMS_FILE = "items.parquet"
METRIC = "ndcg@10"


@dataclass(frozen=True)
class TrainedModel:
    """A model and the catalogue it was trained for: row i of `items` is item index i + 1."""

    model: SequenceModel
    items: pa.Table


def shape_of(config: ModelConfig) -> SequenceShape:
    """The sizes that fix the model's parameters."""
    return SequenceShape(
        config.dim, config.num_layers, config.num_heads, config.feedforward_dim, config.max_history_len
    )


def load_model(folder: Path) -> TrainedModel:
    """Rebuild a model from `model.safetensors`, `config.json` and `items.parquet`.

    Raises:
        CheckpointError: the tensors do not fit the configuration; names and shapes that differ.
    """
    config = ModelConfig.model_validate(read_config(folder)["model"])
    tensors = load_file(folder / MODEL_FILE)
    rows = tensors.get("row_of_item", torch.empty(0, dtype=torch.int64))
    known = tensors.get("backbone.items.weight", torch.empty(0, config.dim))
    model = SequenceModel(shape_of(config), rows, len(known), config.dropout)
    _check_same(model.state_dict(), tensors, folder)
    model.load_state_dict(tensors)
    return TrainedModel(model.eval(), pq.read_table(folder / ITEMS_FILE))


def load_trained(storage: Storage, uri: str) -> TrainedModel:
    """Fetch a published checkpoint, check its hashes and rebuild the model on the CPU."""
    with fetched(storage, uri) as folder:
        verify(folder)
        return load_model(folder)


def fitted_to(trained: TrainedModel, items: pa.Table, seed: int) -> SequenceModel:
    """The model over the catalogue `items`: as it is if that is its own, else as fine-tuning would begin with it."""
    if trained.items[Col.ITEM].equals(items[Col.ITEM]):
        return trained.model
    return build_model(ModelConfig.model_validate(vars(trained.model.shape)), items, seed, trained)[0].eval()


def _check_same(expected: dict[str, Tensor], given: dict[str, Tensor], folder: Path) -> None:
    def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    want, have = shapes(expected), shapes(given)
    faults = [
        f"  {name}: model {want.get(name, 'has none')}, file {have.get(name, 'has none')}"
        for name in sorted(want | have)
        if want.get(name) != have.get(name)
    ]
    if faults:
        raise CheckpointError("\n".join([f"{folder}: does not fit the model; nothing was loaded", *faults]))


def build_model(
    config: ModelConfig, items: pa.Table, seed: int, pretrained: TrainedModel | None = None
) -> tuple[SequenceModel, dict[str, Tensor]]:
    """The model at its start, and the pretrained values of its backbone (empty when it starts from random weights).

    Items are matched with the pretrained catalogue by id: those it knows keep their vectors, in the backbone; new ones
    begin, in the head, near the mean of the known ones.

    Raises:
        CheckpointError: the pretrained model has other sizes, or its catalogue has ids of another type.
    """
    torch.manual_seed(seed)
    if pretrained is None:
        return SequenceModel(shape_of(config), torch.arange(len(items)), 0, config.dropout), {}
    source = pretrained.model
    _check_shape(source.shape, shape_of(config))
    index_in_source = _match(items, pretrained.items)
    known = index_in_source >= 0
    row_of_item = np.empty(len(items), np.int64)
    row_of_item[known] = np.arange(known.sum())
    row_of_item[~known] = np.arange(known.sum(), len(items))
    model = SequenceModel(shape_of(config), torch.from_numpy(row_of_item), int(known.sum()), config.dropout)
    where_known, in_source = torch.from_numpy(known), torch.from_numpy(index_in_source[known])
    with torch.no_grad():
        vectors = source.table()
        tensors = {n: p for n, p in source.backbone.state_dict().items() if n != "items.weight"}
        model.backbone.load_state_dict({**tensors, "items.weight": vectors[in_source]})
        model.head.bias[where_known] = source.head.bias[in_source]
        if len(in_source):
            model.head.items.weight.add_(vectors[in_source].mean(0))
            model.head.bias[~where_known] = source.head.bias[in_source].min()
    reference = {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith("backbone.")}
    return model, reference


def _check_shape(source: SequenceShape, target: SequenceShape) -> None:
    faults = [
        f"  model.{name}: pretrained {getattr(source, name)}, asked for {getattr(target, name)}"
        for name in vars(source)
        if getattr(source, name) != getattr(target, name)
    ]
    if faults:
        raise CheckpointError("\n".join(["the pretrained model has other sizes; nothing was loaded", *faults]))


def _match(items: pa.Table, source: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Position of each item in the source catalogue, -1 where it has none; ids are compared as text."""
    mine, theirs = items[Col.ITEM].cast(pa.string()), source[Col.ITEM].cast(pa.string())
    found = pa.compute.index_in(mine, value_set=theirs).fill_null(-1)
    return np.asarray(found.to_numpy(), np.int64)


class RecommendTask:
    """What the loop trains: this worker's shard under the configured loss."""

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
        self._probabilities = _draw_probabilities(config, model.num_items, train_counts, self.device)

    def batches(self, rng: np.random.Generator, first: int) -> Iterator[Batch]:
        """See `Task.batches`."""
        config = self._config
        only_new = config.targets == "new"
        for batch in self._shard.batches(self.steps_per_epoch, config.max_history_len, only_new, rng, first):
            yield batch.to(self.device)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Task.loss`: cross-entropy of the items of every next order."""
        model, targets, weights = self.model, batch.targets, batch.weights
        query = model(batch.items).flatten(0, 1)[batch.queries]
        if self._config.loss == "softmax":
            smoothing = self._config.label_smoothing
            loss = softmax_loss(query, targets - 1, weights, model.table(), model.head.bias, smoothing)
            return loss, weights.sum()
        sampled, log_expected = self._draw()
        vectors = model.vectors(sampled)
        positive = (query * model.vectors(targets)).sum(1) + model.bias(targets)
        negative = torch.addmm(model.bias(sampled), query, vectors.T)
        return sampled_softmax_loss(positive, negative, targets, sampled, weights, log_expected), weights.sum()

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


def _draw_probabilities(
    config: ModelConfig, num_items: int, train_counts: Tensor | None, device: torch.device
) -> Tensor | None:
    if config.negatives == "uniform":
        return None
    assert train_counts is not None
    assert len(train_counts) == num_items
    smoothed = train_counts.to(device, torch.float32) + 1
    return smoothed / smoothed.sum()


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
    items, lengths = pad_histories(histories, model.shape.max_history_len)
    with torch.no_grad():
        return model.scores(items.to(table.device), lengths.to(table.device), table).cpu().numpy()


def target_ranks_of(
    model: SequenceModel, histories: Histories, part: Part, exclude_seen: bool, batch_users: int = 512
) -> Iterator[RaggedRanks]:
    """Ranks of the targets of `part`, a batch of users at a time."""
    users, known, targets = questions(histories, part, exclude_seen)
    table = model.table()
    for start in range(0, len(users), batch_users):
        stop = min(start + batch_users, len(users))
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
    model, reference = build_model(config.model, items, config.train.seed, pretrained)
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
