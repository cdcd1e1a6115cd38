"""How sure a classifier may be: its logits made sharper or flatter until validation finds them likeliest."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_app.content.pretrained import as_shown, evaluation_views
from ray_app.data.picture_set import PictureSet
from ray_app.data.picture_shard import PictureShard, contents_of, share_of
from ray_app.tasks.classifier import TrainedClassifier

ENOUGH = 2_000
"""Inputs of the validation part that are asked at most, for one number."""
RANGE = (0.05, 20.0)
_HALVINGS = 40
_OUT = "head.out."


def calibrated(tensors: dict[str, Tensor], trained: TrainedClassifier, pictures: PictureSet) -> dict[str, Tensor]:
    """`tensors`, of which `trained` is the model, with the last layer multiplied by `sharpness`.

    (Temperature scaling, Guo et al. 2017, arXiv 1706.04599; the temperature is in the weights, so that whoever reads
    them need not know of it, and no answer changes but for how sure it is.) Without a validation part, as they are.
    """
    if not pictures.size("validation"):
        return tensors
    factor = sharpness(*_asked(trained, pictures))
    return {name: value * factor if name.startswith(_OUT) else value for name, value in tensors.items()}


def sharpness(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """What logits `[n, classes]` are to be multiplied by to make `labels` likeliest; its inverse is the temperature.

    A share of 1 in n + 2 of each label is spread over all classes (after Platt 1999), so that few labels that are all
    told right do not ask for certainty. The likelihood is concave in the factor: its derivative is halved down to 0.
    """
    z = torch.from_numpy(logits).double()
    spread = 1 / (len(labels) + 2)
    wanted = (1 - spread) * z[torch.arange(len(labels)), torch.from_numpy(labels)] + spread * z.mean(1)
    low, high = np.log(RANGE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = ((z * float(np.exp(middle))).softmax(1) * z).sum(1)
        low, high = (middle, high) if (expected - wanted).mean() < 0 else (low, middle)
    return float(np.exp((low + high) / 2))


@torch.inference_mode()
def _asked(trained: TrainedClassifier, pictures: PictureSet) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits and labels of the validation part, or of so many of it at even distances."""
    model, size = trained.model.eval(), trained.config.batch_size
    views = evaluation_views(model.backbone, trained.config)
    shard = PictureShard(share_of(pictures, "validation", 0, 1), lambda rows: contents_of(pictures, rows))
    step, before = -(-pictures.size("validation") // ENOUGH), 0
    logits, labels = [], []
    for rows in shard.in_order(size * step):
        some = rows[np.arange(-before % step, len(rows.labels), step)]
        before += len(rows.labels)
        if len(some.labels):
            shown = as_shown(model.backbone, views[some.values.tolist(), 0], torch.device("cpu"))
            logits.append(model(shown).numpy())
            labels.append(some.labels)
    return np.concatenate(logits), np.concatenate(labels)
