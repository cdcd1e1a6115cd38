"""What a cross-validation found out: metrics of each fold, their mean and spread, and those of all folds together.

Every picture or text is told by a model that did not learn from it, so all answers together are an honest sample.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ray_app.classification_metrics import calibration_error, reliability
from ray_app.config import Config, dump
from ray_app.data.folds import held_out_groups
from ray_app.data.picture_set import PictureSet
from ray_app.schema import SCHEMA_VERSION
from ray_app.tasks.answers import Answers, answers_of
from ray_app.tasks.classification import per_picture
from ray_app.tasks.classify import METRIC
from ray_app.tasks.labels import likeliest
from ray_app.tasks.scoreboard import Estimator


def held_out_answers(folds: Sequence[PictureSet], models: Sequence[str], config: Config) -> list[Answers]:
    """What the published model of each fold says of its test part, found or computed; raises as `answers_of`."""
    return [answers_of(fold, model, config) for fold, model in zip(folds, models, strict=True)]


def out_of_fold(answers: Sequence[Answers], classes: list[str], k: int) -> pa.Table:
    """The first `k` labels of everything that was held out (`schema.LABELS_SCHEMA`)."""
    whole = joined(answers)
    return likeliest(whole.keys, whole.probabilities, classes, min(k, len(classes)))


def cross_validated(
    pictures: PictureSet, folds: Sequence[PictureSet], models: Sequence[str], answers: Sequence[Answers], config: Config
) -> dict[str, Any]:
    """What `metrics.json` holds.

    Args:
        pictures: what was folded.
        folds: its folds.
        models: URI of the published classifier of each.
        answers: what it says of the test part of its fold.
        config: `cross_validation`, `evaluate` and the seed of `train`.
    """
    found = [_metrics(one, fold) for one, fold in zip(answers, folds, strict=True)]
    table = {name: np.array([metrics[name] for metrics in found]) for name in found[0]}
    whole, settings = joined(answers), config.cross_validation
    assert settings is not None
    estimator = Estimator(config.evaluate.bootstrap_samples, config.train.seed)
    pooled = per_picture(whole.probabilities, whole.labels, pictures)
    groups = held_out_groups(folds) if settings.kind == "grouped" else None
    drawn = pictures.kind if groups is None else f"{len(np.unique(groups)):,} groups"
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": {
            "question": f"the label of each {pictures.kind[:-1]} of the train part, by a model that did not see it",
            **dump(settings),
            "dataset": pictures.uri,
            "fingerprint": pictures.manifest.fingerprint,
            pictures.kind: len(whole.labels),
            "classes": pictures.num_classes,
            "spread": "standard deviation over folds, of a sample",
            "interval": f"95% bootstrap percentile over {drawn}, models as they are",
            "bootstrap_samples": config.evaluate.bootstrap_samples,
        },
        "metric": METRIC,
        "folds": [
            {"fold": number, "train": fold.size("train"), "held_out": fold.size("test"), "model": model, "metrics": one}
            for number, (fold, model, one) in enumerate(zip(folds, models, found, strict=True), 1)
        ],
        "mean": {name: float(values.mean()) for name, values in table.items()},
        "std": {name: float(values.std(ddof=1)) for name, values in table.items()},
        "pooled": {name: estimator.mean(values, groups) for name, values in pooled.items()}
        | {"ece": {"mean": _ece(whole)}},
        "notes": [note for fold in folds for note in fold.manifest.notes],
    }


def joined(answers: Sequence[Answers]) -> Answers:
    """All of them, one after another."""
    keys = [key for one in answers for key in one.keys]
    labels, probabilities = ([getattr(one, name) for one in answers] for name in ("labels", "probabilities"))
    return Answers(keys, np.concatenate(labels), np.concatenate(probabilities))


def _metrics(answers: Answers, fold: PictureSet) -> dict[str, float]:
    values = per_picture(answers.probabilities, answers.labels, fold)
    return {name: float(one.mean()) for name, one in values.items()} | {"ece": _ece(answers)}


def _ece(answers: Answers) -> float:
    return calibration_error(reliability(answers.probabilities, answers.labels))
