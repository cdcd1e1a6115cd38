"""Evaluation of classifiers: every label of the test part, by models and by simple methods on frozen features."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from ray_app.baselines.probes import fit_probes
from ray_app.checkpoint import read_manifest
from ray_app.classification_metrics import (
    PerPicture,
    calibration_error,
    class_recall,
    confusion_matrix,
    group_accuracy,
    label_ranks,
    macro_recall,
    reliability,
    top_k_accuracy,
)
from ray_app.config import Config
from ray_app.content.picture_features import probe_features
from ray_app.data.picture_set import PictureSet
from ray_app.errors import ConfigError
from ray_app.tasks.answers import answers_of
from ray_app.tasks.classify import METRIC
from ray_app.tasks.scoreboard import Estimator

TOP_K = 5
Probabilities = Mapping[str, NDArray[np.float32]]
"""By method, the first compared with all others: `[pictures, classes]`."""


def evaluate_pictures(
    pictures: PictureSet,
    methods: Mapping[str, str],
    config: Config,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Tell the label of every test picture or text by every method: what `metrics.json` holds.

    Args:
        pictures: whose test part is asked about; simple methods are fitted on its train part, unless
            `evaluate.baselines` is empty or nothing was pretrained.
        methods: name in the table -> URI of a published classifier. The first is compared with all others.
        config: `evaluate`, `classifier` and the workers of `train`.
        progress: where a bar is shown.

    Raises:
        CheckpointError: a checkpoint is incomplete, damaged, or does not fit.
        ConfigError: there is no method at all.
        DataError: what the pretrained backbone gives the simple methods is not finite.
    """
    found, origins = dict[str, NDArray[np.float32]](), dict[str, dict[str, str]]()
    for name, uri in methods.items():
        manifest = read_manifest(pictures.storage, uri)
        other = "" if manifest["dataset"] == pictures.uri else f"; of other {pictures.kind}, not of these"
        origins[name] = {"kind": "model", "fitted_on": f"train part{other}", "checkpoint": uri}
        answers = answers_of(pictures, uri, config, "test", progress)
        labels, found[name] = answers.labels, answers.probabilities
    if config.evaluate.baselines and config.classifier is not None and config.classifier.weights is not None:
        baselines, labels = _baselines(pictures, config, progress)
        found |= baselines
        fitted = "train part, features of the pretrained backbone; validation part chose the settings"
        origins |= {name: {"kind": "baseline", "fitted_on": fitted} for name in baselines}
    if not found:
        raise ConfigError(["evaluate.baselines: empty, and no model was named either, so there is nothing to evaluate"])
    board = picture_scoreboard(found, labels, pictures, config.evaluate.bootstrap_samples, config.train.seed)
    return {"protocol": _protocol(pictures, len(labels), config), "methods": origins, **board}


def picture_scoreboard(
    found: Probabilities, labels: NDArray[np.int64], pictures: PictureSet, samples: int, seed: int
) -> dict[str, Any]:
    """`metrics` by method, `differences` of the first to each other one, and what the first does to each class.

    `confusion` lists label, answer and count, where there is any; `reliability` is for the calibration diagram.
    """
    main, *others = found
    estimator = Estimator(samples, seed)
    values = {method: per_picture(probabilities, labels, pictures) for method, probabilities in found.items()}
    calibration = {method: reliability(probabilities, labels) for method, probabilities in found.items()}
    recall = class_recall(label_ranks(found[main], labels), labels, pictures.num_classes)
    matrix = confusion_matrix(found[main], labels)
    pairs, seen = np.nonzero(matrix), np.bincount(labels, minlength=pictures.num_classes)
    columns = (pictures.manifest.classes, pictures.manifest.train_counts, seen.tolist(), recall.tolist())
    return {
        "main": main,
        "metric": METRIC,
        "metrics": {
            method: {name: estimator.mean(per_picture) for name, per_picture in values[method].items()}
            | {"ece": {"mean": calibration_error(calibration[method])}}  # a resampled one is always larger
            for method in found
        },
        "differences": {
            other: {name: estimator.difference(values[main][name], values[other][name]) for name in values[main]}
            for other in others
        },
        "classes": [
            {"name": name, "train": train, "test": test, "recall": share if test else None}
            for name, train, test, share in zip(*columns, strict=True)
        ],
        "confusion": np.stack([*pairs, matrix[pairs]], axis=1).tolist(),
        "reliability": {
            method: {name: column.tolist() for name, column in bins._asdict().items()}
            for method, bins in calibration.items()
        },
    }


def per_picture(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], pictures: PictureSet
) -> dict[str, PerPicture]:
    """By metric, values whose mean over pictures it is."""
    ranks = label_ranks(probabilities, labels)
    found = {METRIC: top_k_accuracy(ranks, 1)}
    if pictures.num_classes > TOP_K:
        found[f"top{TOP_K}"] = top_k_accuracy(ranks, TOP_K)
    found["macro_recall"] = macro_recall(ranks, labels)
    if pictures.manifest.group_of_class is not None:
        found["group"] = group_accuracy(probabilities, labels, np.array(pictures.manifest.group_of_class))
    return found


def _baselines(
    pictures: PictureSet, config: Config, progress: Progress | None
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """What simple methods say of the test part, and its labels."""
    features = probe_features(pictures, config, progress)
    probes = fit_probes(features.part("train"), features.part("validation"))
    vectors, labels = features.part("test")
    return {name: probe(vectors) for name, probe in probes.items()}, labels


def _protocol(pictures: PictureSet, asked: int, config: Config) -> dict[str, Any]:
    return {
        "question": f"the label of each {pictures.kind[:-1]} of the test part",
        "dataset": pictures.uri,
        "fingerprint": pictures.manifest.fingerprint,
        pictures.kind: asked,
        "classes": pictures.num_classes,
        "groups": len(pictures.manifest.groups) if pictures.manifest.groups else None,
        "interval": f"95% bootstrap percentile over {pictures.kind}",
        "bootstrap_samples": config.evaluate.bootstrap_samples,
    }
