"""How sure a classifier may be: its logits made sharper or flatter until validation finds them likeliest."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_app.data.picture_set import PictureSet
from ray_app.data.picture_shard import PictureShard, contents_of, share_of
from ray_app.errors import TrainingError
from ray_app.tasks.classifier import TrainedClassifier

ENOUGH = 1_000
"""Inputs of the validation part that are asked at most, for one number."""
RANGE = (0.05, 20.0)
_HALVINGS = 40
_BATCH = 256
_OUT = "head.out."


def calibrated(
    tensors: dict[str, Tensor], trained: TrainedClassifier, pictures: PictureSet, device: torch.device | None = None
) -> tuple[dict[str, Tensor], float]:
    """`tensors`, of which `trained` is the model, with the last layer multiplied by `sharpness`, and that factor.

    (Temperature scaling, Guo et al. 2017, arXiv 1706.04599; the temperature is in the weights, so that whoever reads
    them need not know of it, and no answer changes but for how sure it is.) Without a validation part, as they are.

    Raises:
        TrainingError: an answer is no number.
    """
    if not pictures.size("validation"):
        return tensors, 1.0
    factor = sharpness(*_asked(trained, pictures, device))
    return {name: value * factor if name.startswith(_OUT) else value for name, value in tensors.items()}, factor


def sharpness(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """What logits `[n, classes]` are to be multiplied by to make `labels` likeliest; its inverse is the temperature.

    A share of 1 in n + 2 of each label is spread over all classes (after Platt 1999), so that few labels that are all
    told right do not ask for certainty. The likelihood is concave in the factor: its derivative is halved down to 0.
    Logits that say nothing stay as they are.

    Raises:
        TrainingError: a logit is no number.
    """
    if not np.isfinite(logits).all():
        raise TrainingError(
            "the trained classifier answers pictures or texts of the validation part with infinite or no numbers: "
            "lower learning_rate, or keep_statistics in phases that train the backbone"
        )
    z = torch.from_numpy(logits).double()
    if not bool((z != z[:, :1]).any()):
        return 1.0
    spread = 1 / (len(labels) + 2)
    wanted = (1 - spread) * z[torch.arange(len(labels)), torch.from_numpy(labels)] + spread * z.mean(1)
    low, high = np.log(RANGE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = ((z * float(np.exp(middle))).softmax(1) * z).sum(1)
        low, high = (middle, high) if (expected - wanted).mean() < 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def _asked(
    trained: TrainedClassifier, pictures: PictureSet, device: torch.device | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits and labels of the validation part, or of so many of it, drawn by a seed of their own."""
    total = pictures.size("validation")
    asked = np.zeros(total, np.bool_)
    asked[np.random.default_rng(0).permutation(total)[:ENOUGH]] = True
    shard = PictureShard(share_of(pictures, "validation", 0, 1), lambda rows: contents_of(pictures, rows), window=0)
    before, logits, labels = 0, [], []
    for rows in shard.in_order(_BATCH):
        some = rows[np.flatnonzero(asked[before : before + len(rows.labels)])]
        before += len(rows.labels)
        logits.append(trained.logits(some.values.tolist(), device))
        labels.append(some.labels)
    return np.concatenate(logits), np.concatenate(labels)
