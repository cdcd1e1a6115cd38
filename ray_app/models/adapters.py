"""LoRA (Hu et al. 2021, arXiv 2106.09685) by PEFT: small matrices beside the linear layers of a frozen encoder."""

import warnings
from typing import Any

from torch import nn

from ray_app.errors import ConfigError
from ray_app.models.backbones import Backbone
from ray_app.picture_config import LoraConfig

ADAPTER = ".lora_"
"""In the names of their parameters."""
SHOWN_LAYERS = 8


def adapt(backbone: Backbone, config: LoraConfig) -> None:
    """Put adapters into an `hf:` backbone, whose outputs stay what they are until the adapters are trained.

    They are its only parameters from here on: the pretrained ones become buffers, so that no pattern of a schedule can
    give them a rate, and nothing of an optimizer is kept for them.

    Raises:
        ConfigError: PEFT is not installed, or a name is that of no linear layer.
    """
    try:
        import peft  # noqa: PLC0415  an extra, and seconds
    except ImportError as error:
        raise ConfigError(
            [f"classifier.lora: needs the PEFT library ({error}): pip install 'ray-retail-finetune[lora]'"]
        ) from None
    encoder: Any = backbone.network.encoder
    settings = peft.LoraConfig(**config.model_dump() | {"target_modules": _targets(encoder, config.target_modules)})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # of GPT-2's layers: what it sets then is right
        peft.inject_adapter_in_model(settings, encoder)
    for place, module in encoder.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if ADAPTER not in place:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())


def merge(backbone: Backbone) -> None:
    """Add what the adapters have learned to the layers that they stand beside, and take them off."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    adapted = [(name, one) for name, one in backbone.named_modules() if isinstance(one, BaseTunerLayer)]
    for name, layer in adapted:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(backbone.get_submodule(parent), last, layer.get_base_layer())


def _targets(encoder: Any, wanted: tuple[str, ...]) -> list[str]:
    """Full names of the linear layers whose names end so; of all where none is named."""
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415

    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    if not linear:
        raise ConfigError(["classifier.lora: adapts linear layers, and the encoder has none, so it is no transformer"])
    found = {end: [name for name in linear if f".{name}".endswith(f".{end}")] for end in wanted}
    if missing := [end for end in wanted if not found[end]]:
        known = ", ".join(list(dict.fromkeys(name.rpartition(".")[2] for name in linear))[:SHOWN_LAYERS])
        raise ConfigError(
            [f"classifier.lora.target_modules: {missing[0]!r} is no linear layer of the encoder; it has {known}"]
        )
    return [name for names in found.values() for name in names] if wanted else linear
