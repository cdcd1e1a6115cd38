"""Folders of the transformers library with tiny vision encoders of random weights."""

from pathlib import Path
from typing import Any

import torch

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "vit": SMALL,
    "deit": SMALL,
    "dinov2": SMALL,
    "clip_vision_model": SMALL,
    "swin": {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "image_size": 32},
}


def tiny(family: str, folder: Path) -> Any:
    """A model of the family, saved."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(4)
    model = AutoModel.from_config(AutoConfig.for_model(family, **SETTINGS[family])).eval()
    model.save_pretrained(folder)
    return model
