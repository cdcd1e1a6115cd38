"""Vision encoders of the transformers library as backbones: ViT, DeiT, DINOv2, Swin, ConvNeXt, ResNet, CLIP's tower."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ray_app.models.backbones import IMAGENET, Shown

PREPROCESSOR_FILE = "preprocessor_config.json"
CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
DEFAULT_SIDE = 224
"""Of networks that see pictures of any size."""


class Seeing(nn.Module):
    """An encoder, and which of its outputs is the vector of a picture."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        names = {name.rpartition(".")[2] for name, _ in encoder.named_parameters()}
        self._has_class_token = not names.isdisjoint(CLASS_TOKENS)

    def forward(self, pictures: Tensor) -> Tensor:
        """Vectors `[n, dim]`, or maps."""
        output = self.encoder(pictures)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        places: Tensor = output.last_hidden_state  # [n, tokens, dim] or a map
        if places.ndim == 4:
            return places.mean((2, 3))
        return places[:, 0] if self._has_class_token else places.mean(1)


def example_picture(config: Any) -> Tensor:
    """A black one of the size that the network is for."""
    side = getattr(config, "image_size", DEFAULT_SIDE)
    height, width = (side, side) if isinstance(side, int) else side
    return torch.zeros(1, 3, height, width)


def shown_by(folder: Path) -> Shown:
    """What its preprocessor does, or the means of ImageNet."""
    path = folder / PREPROCESSOR_FILE
    if not path.is_file():
        return IMAGENET
    given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    mean, std = (
        given.get(name) or usual for name, usual in (("image_mean", IMAGENET.mean), ("image_std", IMAGENET.std))
    )
    if not given.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    return Shown(tuple(mean), tuple(std), _middle(given))


def _middle(given: dict[str, Any]) -> float:
    """Share of the shorter side that is left after its center crop."""
    size, crop = (_side(given.get(name)) for name in ("size", "crop_size"))
    if given.get("do_center_crop") and size and crop:
        return min(1.0, crop / size)
    return float(given.get("crop_pct") or 1.0)


def _side(size: Any) -> int | None:
    """Pixels of the shorter side, which the library writes in three ways."""
    if not isinstance(size, dict):
        return size if isinstance(size, int) else None
    return size.get("shortest_edge") or size.get("height")
