"""From the bytes of pictures to what a network is shown, in training, in evaluation and when it serves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ray_app.data.squares import opened, squares
from ray_app.picture_config import AugmentConfig

BICUBIC = v2.InterpolationMode.BICUBIC


class Views(Dataset[Tensor]):
    """Pictures as squares of `size` pixels, `[n, 3, size, size]` uint8: their `middle`, or with `augment` random views.

    An index is a list of pictures and a seed, so that what a loader's processes make depends on neither.
    """

    def __init__(self, size: int, middle: float = 1.0, augment: AugmentConfig | None = None) -> None:
        self._size, self._middle = size, middle
        self._change = v2.Compose(_changes(size, augment)) if augment is not None else None

    def __getitem__(self, index: tuple[Sequence[bytes], int]) -> Tensor:
        pictures, seed = index
        if self._change is None:
            return torch.from_numpy(squares(pictures, self._size, self._middle)).permute(0, 3, 1, 2).contiguous()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.stack([self._change(opened(one)) for one in pictures])


def mixed(pictures: Tensor, targets: Tensor, augment: AugmentConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch `[n, 3, side, side]` and its targets `[n, classes]`, mixed with itself in another order.

    mixup (Zhang et al. 2018, arXiv 1710.09412) adds pictures, CutMix (Yun et al. 2019, arXiv 1905.04899) pastes a
    rectangle of one into the other; targets are mixed by the same share.
    """
    kinds = [name for name in ("mixup", "cutmix") if getattr(augment, name)]
    if not kinds:
        return pictures, targets
    kind = kinds[rng.integers(len(kinds))]
    alpha: float = getattr(augment, kind)
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(pictures))).to(pictures.device)
    if kind == "mixup":
        return torch.lerp(pictures[other], pictures, share), torch.lerp(targets[other], targets, share)
    side = pictures.shape[-1]
    half = int(side * (1 - share) ** 0.5 / 2)
    row, column = rng.integers(side, size=2)
    rows, columns = (slice(max(at - half, 0), min(at + half, side)) for at in (int(row), int(column)))
    pictures = pictures.clone()
    pictures[:, :, rows, columns] = pictures[other][:, :, rows, columns]
    kept = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / side**2
    return pictures, torch.lerp(targets[other], targets, kept)


def _changes(size: int, augment: AugmentConfig) -> list[Any]:
    changes: list[Any] = []
    if augment.crop < 1:
        changes.append(v2.RandomResizedCrop(size, (augment.crop, 1.0), interpolation=BICUBIC))
    else:
        changes += [v2.Resize(size, BICUBIC), v2.CenterCrop(size)]
    if augment.flip:
        changes.append(v2.RandomHorizontalFlip())
    if augment.color:
        changes.append(v2.ColorJitter(augment.color, augment.color, augment.color))
    if augment.rand_augment:
        changes.append(v2.RandAugment(magnitude=augment.rand_augment))
    changes.append(v2.PILToTensor())
    if augment.erase:
        changes.append(v2.RandomErasing(augment.erase))
    return changes
