"""A candidate backbone judged for a set of pictures, without training: by its frozen features, and by what it costs."""

import time
from collections.abc import Iterable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from rich.progress import Progress

from ray_app.baselines.probes import fit_neighbors
from ray_app.config import Config, fingerprint
from ray_app.content.picture_features import probe_features
from ray_app.content.pretrained import as_shown, begin_backbone, example, settled, to_channels_last
from ray_app.data.picture_set import PictureSet
from ray_app.errors import DataError, UserError
from ray_app.models.device import device_of
from ray_app.picture_config import Candidate
from ray_app.storage import join
from ray_app.transferability import h_score, logme

CHOICES = "choices"
_VERSION = 1
"""Raise it when the same features give other scores."""
_TIMED = 8
"""Pictures in the batch whose time is taken."""
_REPEATS = 3


class Judgement(BaseModel):
    """What is known of a candidate without training; more is better for the first three."""

    model_config = ConfigDict(frozen=True)

    logme: float
    """Of the train part, as `h_score`."""
    h_score: float
    knn: float
    """Share of the validation part that its nearest neighbors of the train part name right."""
    picture_s: float
    """Of one picture through the backbone, once, where the job ran."""
    num_parameters: int
    dim: int
    """Of its features."""


def with_candidate(config: Config, candidate: Candidate) -> Config:
    """The configuration with this backbone in its classifier."""
    assert config.classifier is not None
    changed = config.classifier.model_copy(update=candidate.model_dump())
    return settled(config.model_copy(update={"classifier": changed}))


def judge_all(
    pictures: PictureSet, config: Config, candidates: Iterable[Candidate], progress: Progress | None = None
) -> tuple[dict[Candidate, Judgement], dict[Candidate, str]]:
    """What is known of each, and why nothing is of those that cannot be had: they do not hold up the others."""
    judged, failed = dict[Candidate, Judgement](), dict[Candidate, str]()
    for candidate in candidates:
        try:
            judged[candidate] = judge(pictures, with_candidate(config, candidate), progress)
        except UserError as error:
            failed[candidate] = str(error)
    return judged, failed


def judge(pictures: PictureSet, config: Config, progress: Progress | None = None) -> Judgement:
    """What is known of the backbone of `config.classifier`; found if it was judged before.

    Raises:
        ConfigError, CheckpointError, StorageError: the backbone or its weights cannot be had.
        DataError: its features are not finite.
    """
    features = probe_features(pictures, config, progress)
    key = fingerprint(_VERSION, features.key, config.train.use_gpu, config.train.cpus_per_worker)
    uri = join(pictures.uri, CHOICES, f"{key}.json")
    if pictures.storage.exists(uri):
        return Judgement.model_validate_json(pictures.storage.read_bytes(uri))
    train, validation = features.part("train"), features.part("validation")
    if not all(np.isfinite(vectors).all() for vectors, _ in (train, validation)):
        raise DataError("features that are not finite in 16 bits; are these the weights of a trained network?")
    knows = fit_neighbors(train, validation)
    picture_s, num_parameters = _cost(config, pictures)
    found = Judgement(
        logme=logme(*train),
        h_score=h_score(*train),
        knn=float((knows(validation[0]).argmax(axis=1) == validation[1]).mean()),
        picture_s=picture_s,
        num_parameters=num_parameters,
        dim=train[0].shape[1],
    )
    pictures.storage.write_bytes(uri, found.model_dump_json(indent=1).encode())
    return found


def _cost(config: Config, pictures: PictureSet) -> tuple[float, int]:
    """Seconds per picture, the fastest of some batches after one that does not count, and the number of parameters."""
    classifier = config.classifier
    assert classifier is not None
    torch.set_num_threads(config.train.cpus_per_worker)
    device = device_of(config.train.use_gpu)
    backbone = to_channels_last(begin_backbone(classifier, pictures.storage, pictures.kind)).to(device).eval()
    shown, bf16 = as_shown(backbone, example(backbone, classifier, _TIMED), device), config.train.precision == "bf16"
    times = []
    for _ in range(1 + _REPEATS):
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            backbone(shown).sum().item()  # which waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:]) / _TIMED, sum(value.numel() for value in backbone.parameters())
