"""Encoders of the transformers library as backbones, of pictures or of texts: read from a folder, checked, settled."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ray_app.models.backbones import IMAGENET, Backbone, UnknownBackboneError, is_counter, not_finite, refuse, settle
from ray_app.models.texts import Reading, example_tokens, pooling_of, reader_in
from ray_app.models.vision import Seeing, example_picture, shown_by

POOLER = "pooler."


def build_encoder(folder: Path, *, pretrained: bool = False, maps: bool = False, pooler: bool = True) -> Backbone:
    """The encoder that `config.json` in the folder describes; of a model of two towers that for pictures.

    Vectors of pictures are the library's `pooler_output`; where that has layers which the weights lack, or there is
    none, the class token, else the mean over places. Vectors of texts are pooled as `texts.pooling_of` has it.

    Args:
        folder: one of the transformers library.
        pretrained: take the folder's weights, which are safetensors; else they are random.
        maps: give feature maps.
        pooler: keep the layers of the pooler, where weights come from elsewhere.

    Raises:
        UnknownBackboneError: transformers is not installed, or the folder holds no encoder that it can read.
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
        raise UnknownBackboneError(f"cannot be read as an encoder with safetensors weights: {line}") from error
    is_reading = model.main_input_name == "input_ids"
    if not is_reading and model.main_input_name != "pixel_values":
        raise UnknownBackboneError(f"{type(model).__name__} reads {model.main_input_name}, neither pictures nor texts")
    missing = any(fault.startswith(POOLER) and fault.endswith(": missing") for fault in faults)
    is_unpooled = is_reading or not pooler or missing
    refuse([fault for fault in faults if not (is_unpooled and fault.startswith(POOLER))])
    if is_unpooled and any(True for _ in getattr(model, "pooler", nn.Identity()).parameters()):
        model.pooler = None
    if not is_reading:
        seeing, picture = Seeing(model), example_picture(model.config)
        sight = f"see pictures of {picture.shape[2]} x {picture.shape[3]} pixels in color"
        return Backbone(seeing, settle(seeing, picture, sight)[1], shown_by(folder), maps=picture if maps else None)
    reading, reader = Reading(model), reader_in(folder, model)
    dim = settle(reading, example_tokens(), "read texts")[1]
    reading.pooling = pooling_of(model, folder)
    return Backbone(reading, dim, IMAGENET, maps=example_tokens() if maps else None, reader=reader)


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
