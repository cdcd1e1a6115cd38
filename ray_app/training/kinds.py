"""In what the runs of two tasks differ: what they depend on, what they train, what their checkpoints hold."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ray_app import checkpoint
from ray_app.config import dump
from ray_app.data.dataset import Dataset
from ray_app.data.picture_set import PictureSet
from ray_app.data.stream import read_tables, stream_tables
from ray_app.models.device import device_of
from ray_app.storage import Storage
from ray_app.tasks import recommend
from ray_app.tasks.beginning import complete
from ray_app.tasks.recommender import ITEMS_FILE, MODEL_FILE, TrainedModel, load_trained
from ray_app.training.snapshot import Snapshot
from ray_app.training.task import Task
from ray_app.training.world import World

if TYPE_CHECKING:
    from ray_app.training.run import Run


class Kind(Protocol):
    """One task, as a run sees it."""

    metric: str
    """What validation chooses by; higher is better."""

    def depends_on(self, run: "Run") -> list[Any]:
        """What the result depends on besides schedule, `train` and the data."""

    def begin(self, run: "Run", world: World, *, keep: bool) -> Task:
        """What a worker trains; with `keep`, what was read is kept for the next one in this process."""

    def prepare(self, run: "Run") -> None:
        """Make, in this process, what `begin` reads and nobody has made yet."""

    def write(self, run: "Run", snapshot: Snapshot, folder: Path) -> dict[str, Any]:
        """Write the weights and what they speak of; facts for the manifest."""


class Recommend:
    """Next items of a user."""

    metric = recommend.METRIC

    def depends_on(self, run: "Run") -> list[Any]:
        """The model, what it starts from, whether seen items count, and what encoded the content."""
        model, dataset = dump(run.config.model), _logs(run)
        model.pop("start_from")  # what it names counts, not its name, and nothing in a run from scratch
        start = checkpoint.read_manifest(run.storage, run.start_from)["files"] if run.start_from else None
        return [model, start, run.config.evaluate.exclude_seen, *([dataset.encoder] if dataset.encoder else [])]

    def begin(self, run: "Run", world: World, *, keep: bool) -> Task:
        """Histories of this worker's users."""
        load = _kept_model if keep else load_trained
        pretrained = load(run.storage, run.start_from) if run.start_from else None
        read = partial(_kept_tables if keep else stream_tables, run.storage)
        return recommend.build_task(run.config, _logs(run), pretrained, read, world.rank, world.size, world.device)

    def prepare(self, run: "Run") -> None:
        """Nothing: the log is prepared."""

    def write(self, run: "Run", snapshot: Snapshot, folder: Path) -> dict[str, Any]:
        """The model over its items."""
        dataset = _logs(run)
        items = dataset.items()
        replace(snapshot, model=complete(snapshot.model, run.config.model, items)).save_model(folder / MODEL_FILE)
        pq.write_table(items, folder / ITEMS_FILE, compression="zstd")
        return {"encoder": dataset.encoder, "cutoffs": dataset.manifest.cutoffs.model_dump()}


class Classify:
    """Labels of pictures or texts. What reads them takes seconds to import, so it is where it is used."""

    metric = "top1"

    def depends_on(self, run: "Run") -> list[Any]:
        """The network, and the bytes of its pretrained weights."""
        from ray_app.content.pretrained import weights_key  # noqa: PLC0415

        classifier = run.config.classifier
        assert classifier is not None
        return [dump(classifier.model_copy(update={"weights": None})), weights_key(classifier, run.storage)]

    def begin(self, run: "Run", world: World, *, keep: bool) -> Task:
        """This worker's pictures or texts, and their features where they are kept; read anew by each."""
        from ray_app.content.picture_features import cached_features  # noqa: PLC0415
        from ray_app.tasks.classify import build_task  # noqa: PLC0415

        pictures = _pictures(run)
        features = cached_features(pictures, run.config)
        return build_task(run.config, pictures, features, world.rank, world.size, world.device)

    def prepare(self, run: "Run") -> None:
        """Features that another setting of the run wants: with those of the configured one it begins at once."""
        from ray_app.content.picture_features import cached_features, compute_here  # noqa: PLC0415

        if (features := cached_features(_pictures(run), run.config)) is not None:
            compute_here(features, run.config)

    def write(self, run: "Run", snapshot: Snapshot, folder: Path) -> dict[str, Any]:
        """The network, as sure as validation lets it be, and the names of its classes."""
        from ray_app.tasks.calibration import calibrated  # noqa: PLC0415
        from ray_app.tasks.classifier import (  # noqa: PLC0415
            read_classifier,
            without_adapters,
            write_classes,
            write_encoder,
        )

        classifier, pictures = run.config.classifier, _pictures(run)
        assert classifier is not None
        settings = classifier, pictures.num_classes, run.storage, pictures.kind
        tensors = without_adapters(snapshot.model, *settings)
        replace(snapshot, model=tensors).save_model(folder / MODEL_FILE)
        write_classes(folder, pictures.manifest.classes)
        write_encoder(folder, classifier, run.storage)
        if not classifier.calibrate:
            return {"task": "classify"}
        device = device_of(run.config.train.use_gpu)
        tensors, factor = calibrated(tensors, read_classifier(folder, classifier), pictures, device)
        replace(snapshot, model=tensors).save_model(folder / MODEL_FILE)
        return {"task": "classify", "sharpness": factor}


KINDS: MappingProxyType[str, Kind] = MappingProxyType({"recommend": Recommend(), "classify": Classify()})


@lru_cache(maxsize=1)
def _kept_model(storage: Storage, uri: str) -> TrainedModel:
    """Building a model from it changes nothing of it."""
    return load_trained(storage, uri)


def _kept_tables(storage: Storage, uris: list[str]) -> Iterator[pa.Table]:
    yield from _read_once(storage, tuple(uris))


@lru_cache(maxsize=1)
def _read_once(storage: Storage, uris: tuple[str, ...]) -> list[pa.Table]:
    return list(read_tables(storage, list(uris)))


def _logs(run: "Run") -> Dataset:
    assert isinstance(run.dataset, Dataset)
    return run.dataset


def _pictures(run: "Run") -> PictureSet:
    assert isinstance(run.dataset, PictureSet)
    return run.dataset
