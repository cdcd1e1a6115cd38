"""Vision encoders of the transformers library as backbones: ViT, DeiT, DINOv2, Swin, ConvNeXt, ResNet, CLIP's tower."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ray_app.models.backbones import (
    IMAGENET,
    Backbone,
    Shown,
    UnknownBackboneError,
    is_counter,
    not_finite,
    refuse,
)

SETTINGS_FILES = ("config.json", "preprocessor_config.json")
"""Of an encoder's folder: all that its architecture, and what it is shown, are built from."""
POOLER = "pooler."
CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
DEFAULT_SIDE = 224
"""Of networks that see pictures of any size."""


def build_encoder(folder: Path, *, pretrained: bool = False, maps: bool = False, pooler: bool = True) -> Backbone:
    """The vision encoder that `config.json` in the folder describes; of a model of two towers that for pictures.

    Its vectors are the library's `pooler_output`; where that has layers which the weights lack, or there is none, the
    class token, else the mean over places.

    Args:
        folder: one of the transformers library.
        pretrained: take the folder's weights, which are safetensors; else they are random.
        maps: give feature maps.
        pooler: keep the layers of the pooler, where weights come from elsewhere.

    Raises:
        UnknownBackboneError: transformers is not installed, or the folder holds no vision encoder that it can read.
        WeightsError: the weights are not those of this architecture, or not finite: names and shapes that differ.
    """
    try:
        model, faults = _loaded(folder) if pretrained else (_made(_config(folder)), [])
    except ImportError as error:
        raise UnknownBackboneError(
            f"needs the transformers library ({error}): pip install 'ray-retail-finetune[text]'"
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        line = str(error).strip().partition("\n")[0]
        raise UnknownBackboneError(f"cannot be read as a vision encoder with safetensors weights: {line}") from error
    if model.main_input_name != "pixel_values":
        raise UnknownBackboneError(
            f"{type(model).__name__} reads {model.main_input_name}, not pictures; name a vision encoder, such as a "
            "ViT, DINOv2, Swin, ConvNeXt or CLIP"
        )
    untrained = not pooler or any(fault.startswith(POOLER) and fault.endswith(": missing") for fault in faults)
    refuse([fault for fault in faults if not (untrained and fault.startswith(POOLER))])
    if untrained and any(True for _ in getattr(model, "pooler", nn.Identity()).parameters()):
        model.pooler = None
    network = _Pooled(model)
    return Backbone(network, _settle(network, model.config), _shown(folder), maps=maps)


class _Pooled(nn.Module):
    """An encoder, and which of its outputs is the vector of a picture."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        names = {name.rpartition(".")[2] for name, _ in encoder.named_parameters()}
        self._has_class_token = not names.isdisjoint(CLASS_TOKENS)

    def forward(self, pictures: Tensor) -> Tensor:
        output = self.encoder(pictures)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        places: Tensor = output.last_hidden_state  # [n, tokens, dim] or a map
        if places.ndim == 4:
            return places.mean((2, 3))
        return places[:, 0] if self._has_class_token else places.mean(1)


def _config(folder: Path) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415  an extra, and seconds

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config = getattr(config, "vision_config", config)
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0  # a masked autoencoder would hide most of the picture, in use too
    return config


def _made(config: Any) -> Any:
    from transformers import AutoModel  # noqa: PLC0415

    return AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)  # type: ignore[no-untyped-call]


def _loaded(folder: Path) -> tuple[Any, list[str]]:
    """The encoder, and what is wrong with its weights."""
    from transformers import AutoModel  # noqa: PLC0415
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    if not any(folder.glob("*.safetensors")):
        raise UnknownBackboneError(
            "the folder has no *.safetensors; other formats can run code when they are read, so convert it where you "
            "trust it: transformers.AutoModel.from_pretrained(folder).save_pretrained(other)"
        )
    disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("transformers").setLevel(logging.ERROR)  # its reports: ours is an error, or nothing
    model, info = AutoModel.from_pretrained(
        folder,
        config=_config(folder),
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    faults = [f"{name}: missing" for name in sorted(info["missing_keys"]) if not is_counter(name)]
    faults += [
        f"{name}: {list(given)} where the network has {list(expected)}"
        for name, given, expected in sorted(info["mismatched_keys"])
    ]
    return model, faults or not_finite(model.state_dict())


def _settle(network: nn.Module, config: Any) -> int:
    """Length of its vectors. What they do not depend on (mask tokens) is no parameter from here on.

    Several workers would wait for its gradient in vain.
    """
    training, side = network.training, getattr(config, "image_size", DEFAULT_SIDE)
    height, width = (side, side) if isinstance(side, int) else side
    try:
        with torch.enable_grad():
            vectors = network.eval()(torch.zeros(1, 3, height, width))
            vectors.sum().backward()
    except (RuntimeError, ValueError) as error:
        raise UnknownBackboneError(f"cannot see pictures of {height} x {width} pixels in color: {error}") from None
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.grad is None:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
            parameter.grad = None
    network.train(training)
    return int(vectors.shape[1])


def _shown(folder: Path) -> Shown:
    """What its preprocessor does, or the means of ImageNet."""
    path = folder / SETTINGS_FILES[1]
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
