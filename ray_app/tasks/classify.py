"""Labels of pictures or texts: the loop's task.

While the backbone is frozen, it trains on features that were computed once.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from ray_app.config import Config
from ray_app.content.picture_features import Features
from ray_app.content.pretrained import as_shown, evaluation_views, to_channels_last, training_views
from ray_app.data.picture_set import Content, PictureSet
from ray_app.data.picture_shard import PictureShard, Rows, contents_of, share_of
from ray_app.data.pixels import mixed
from ray_app.errors import ConfigError, DataError, TrainingError
from ray_app.models.classifier import Classifier
from ray_app.picture_config import ClassifierConfig
from ray_app.tasks.classifier import begin_classifier

METRIC = "top1"
BACKBONE = "backbone."
WHOLE_BYTES = 2 * 2**30
"""Of vectors and targets, that are held at once at most; fitting a head needs a few times as much."""


class Batch(NamedTuple):
    """Inputs as the backbone is shown them, or `[n, dim]` its outputs, and soft targets.

    It is shown pictures `[n, 3, side, side]` or ids of tokens `[n, tokens]`.
    """

    inputs: Tensor
    targets: Tensor
    """`[n, classes]`, rows sum to the weight of the input."""
    is_features: bool


class ClassifyTask:
    """What the loop trains: this worker's share of the set under cross-entropy."""

    metric = METRIC

    def __init__(
        self,
        model: Classifier,
        reference: dict[str, Tensor],
        pictures: PictureSet,
        config: Config,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        features: Features | None = None,
    ) -> None:
        """See `build_task`."""
        assert config.classifier is not None
        self.device = device or torch.device("cpu")
        self.model = to_channels_last(model.to(self.device))
        self.reference = reference
        self._config: ClassifierConfig = config.classifier
        self._bf16 = config.train.precision == "bf16"
        is_seeing = pictures.kind == "pictures"
        # One process less than the worker has CPUs: the loop itself needs one. Texts are read in no time.
        self._processes = config.train.cpus_per_worker - 1 if is_seeing else 0
        size = "size" if is_seeing else "max_tokens"
        self.memory_settings: dict[str, object] = {
            f"classifier.{name}": getattr(self._config, name) for name in ("batch_size", size)
        }
        smallest, largest = pictures.size("train") // world_size, -(-pictures.size("train") // world_size)
        # Batches of an epoch are cut to like size, and the head's norm needs two pictures in each.
        self.steps_per_epoch = min(-(-largest // self._config.batch_size), smallest // 2)
        self._weights = _class_weights(pictures.manifest.train_counts, self._config.balance).to(self.device)
        read = lambda rows: contents_of(pictures, rows)  # noqa: E731
        self._train = PictureShard(share_of(pictures, "train", rank, world_size), read)
        held_out = share_of(pictures, "validation", rank, world_size)
        self._validation = PictureShard(held_out, read)
        self._features = features
        if features is not None:
            self._train_features = PictureShard(share_of(pictures, "train", rank, world_size), features.read)
            self._validation_features = PictureShard(held_out, features.read)

    def batches(self, rng: np.random.Generator, first: int) -> Iterator[Batch]:
        """See `Task.batches`."""
        if self._is_cached():
            for rows, random in self._train_features.batches(self.steps_per_epoch, rng, first):
                view = random.integers(rows.values.shape[1], size=len(rows.labels))
                vectors = torch.from_numpy(rows.values[np.arange(len(view)), view].astype(np.float32)).to(self.device)
                yield Batch(vectors, self._targets(rows), is_features=True)
            return
        augment = self._config.augment
        waiting: list[tuple[Rows, np.random.Generator]] = []
        plan = self._plan(rng, first, waiting)
        views = training_views(self.model.backbone, self._config)
        # A generator of its own: a loader draws from torch's when it begins, which a resumed run would do once more.
        own = torch.Generator()
        for inputs in DataLoader(views, batch_size=None, sampler=plan, num_workers=self._processes, generator=own):
            rows, random = waiting.pop(0)
            shown = as_shown(self.model.backbone, inputs, self.device)
            yield Batch(*mixed(shown, self._targets(rows), augment, random), is_features=False)

    def whole(self) -> Batch:
        """See `WholeTask.whole`: all views of all training inputs; the head's norm takes their mean and variance.

        Raises:
            TrainingError: the backbone is no longer what the features were made by.
            ConfigError: they are too many.
        """
        if self._features is None or not self._is_cached():
            raise TrainingError(
                "lbfgs fits a head on features that the pretrained backbone made, and an earlier phase has moved it: "
                "put the phase before that one in schedule.phases, or take optimizer: adamw"
            )
        rows, views = self._features.pictures.size("train"), self._features.num_views
        size = 4 * rows * views * (self.model.backbone.dim + len(self._weights))
        if size > WHOLE_BYTES:
            raise ConfigError(
                [
                    f"classifier.cached_views: {views} of {rows:,} are {size / 2**30:.1f} GiB of features and targets, "
                    f"and lbfgs holds {WHOLE_BYTES / 2**30:g} GiB at most; fewer of them, or optimizer: adamw"
                ]
            )
        found = self._features.rows("train")
        vectors = torch.from_numpy(found.values.astype(np.float32)).flatten(0, 1).to(self.device)
        self.model.head.see(vectors)
        return Batch(vectors, self._targets(found).repeat_interleave(views, 0), is_features=True)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Task.loss`: cross-entropy, inputs weighted by their label."""
        logits = self.model.head(batch.inputs) if batch.is_features else self.model(batch.inputs)
        smoothing, targets = self._config.label_smoothing, batch.targets
        weights = targets.sum(1, keepdim=True)
        targets = targets * (1 - smoothing) + weights * (smoothing / targets.shape[1])
        return -(targets * functional.log_softmax(logits, dim=1)).sum(), weights.sum()

    @torch.no_grad()
    def validate(self) -> dict[str, tuple[float, float]]:
        """See `Task.validate`: inputs of the validation part, as they are; counts of 0 where this worker has none."""
        totals = dict.fromkeys((METRIC, "top5", "log_likelihood"), (0.0, 0.0))
        for logits, labels in self._answers():
            top = logits.topk(min(5, logits.shape[1])).indices
            hits = top == labels[:, None]
            likelihood = -functional.cross_entropy(logits, labels, reduction="sum")
            values = hits[:, 0].sum(), hits.sum(), likelihood
            for name, value in zip(totals, values, strict=True):
                total, count = totals[name]
                totals[name] = (total + float(value), count + len(labels))
        return totals

    def _answers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels of the validation part."""
        if self._is_cached():
            for rows in self._validation_features.in_order(1024):
                vectors = torch.from_numpy(rows.values[:, 0].astype(np.float32)).to(self.device)
                yield self.model.head(vectors), torch.from_numpy(rows.labels).to(self.device)
            return
        views = evaluation_views(self.model.backbone, self._config)
        for rows in self._validation.in_order(self._config.batch_size):
            shown = as_shown(self.model.backbone, views[rows.values.tolist(), 0], self.device)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bf16):
                yield self.model(shown).float(), torch.from_numpy(rows.labels).to(self.device)

    def _plan(self, rng: np.random.Generator, first: int, waiting: list[Any]) -> Iterator[tuple[list[Content], int]]:
        """What the loader's processes are asked for; `waiting` keeps what they need not know."""
        for rows, random in self._train.batches(self.steps_per_epoch, rng, first):
            waiting.append((rows, random))
            yield rows.values.tolist(), int(random.integers(2**63))

    def _targets(self, rows: Rows) -> Tensor:
        labels = torch.from_numpy(rows.labels).to(self.device)
        return functional.one_hot(labels, len(self._weights)) * self._weights[labels, None]

    def _is_cached(self) -> bool:
        """Whether the backbone is frozen, and is still what the features were made by."""
        if self._features is None:
            return False
        backbone = (pair for pair in self.model.named_parameters() if pair[0].startswith(BACKBONE))
        return all(
            not value.requires_grad and torch.equal(value.cpu(), self.reference[name]) for name, value in backbone
        )


def build_task(
    config: Config,
    pictures: PictureSet,
    features: Features | None = None,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
) -> ClassifyTask:
    """The task of worker `rank`: its share of the set, and the model at its start.

    Args:
        config: `classifier` without weights is trained from scratch.
        pictures: the prepared set.
        features: what the pretrained backbone makes of them, for the phases in which it is frozen.
        rank: of this worker.
        world_size: workers.
        device: where it trains.

    Raises:
        DataError: there are fewer than two training pictures or texts for each worker.
        ConfigError, CheckpointError: as `begin_classifier`.
    """
    assert config.classifier is not None
    if pictures.size("train") < 2 * world_size:
        raise DataError(
            f"{pictures.uri}: {pictures.size('train')} training {pictures.kind} for {world_size} workers, and each "
            f"needs two; look at the quarantine, at {pictures.kind}.train_share and train.num_workers"
        )
    storage, seed = pictures.storage, config.train.seed
    model = begin_classifier(config.classifier, pictures.num_classes, seed, storage, pictures.kind)
    pretrained = config.classifier.weights is not None
    named = {name: value.detach().clone() for name, value in model.named_parameters() if name.startswith(BACKBONE)}
    return ClassifyTask(model, named if pretrained else {}, pictures, config, rank, world_size, device, features)


def _class_weights(train_counts: list[int], balance: float) -> Tensor:
    """Weight of an input of each class: its count to the power of -balance, their mean over inputs 1."""
    counts = torch.tensor(train_counts, dtype=torch.float32)
    weights = counts.clamp_min(1) ** -balance
    return weights * (counts.sum() / (weights * counts).sum())
