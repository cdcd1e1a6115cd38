"""The configured backbone with its pretrained weights, and what it is shown of a picture or text."""

import hashlib
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.utils.data import Dataset

from ray_app.checkpoint import CheckpointError
from ray_app.config import Config, fingerprint
from ray_app.content.model_folder import HF, absolute, absolute_weights, hashes_of, model_folder
from ray_app.data.picture_set import Kind
from ray_app.data.pixels import Views
from ray_app.data.tokens import Tokens
from ray_app.errors import ConfigError
from ray_app.models.applications import build_application
from ray_app.models.backbones import Backbone, UnknownBackboneError, WeightsError, build_backbone
from ray_app.models.encoders import build_encoder
from ray_app.models.texts import example_tokens
from ray_app.picture_config import PRETRAINED, ClassifierConfig
from ray_app.storage import Storage, join

Module = TypeVar("Module", bound=nn.Module)
MODEL_FILE = "model.safetensors"
KERAS = "keras"
_BOLD = re.compile(r"\x1b\[1m(.*)\x1b\[0m", re.DOTALL)
OURS = "backbone.network."
"""What stands before the names of a backbone's weights in our own checkpoints."""


def begin_backbone(config: ClassifierConfig, storage: Storage, kind: Kind = "pictures") -> Backbone:
    """The backbone with its pretrained weights, random ones where there are none.

    A local path must be absolute (`settled`) in other processes.

    Raises:
        ConfigError: there is no such backbone, it is not for this kind of inputs or not of this size, or its library
            does not give its weights.
        CheckpointError: the weights are those of another network: names and shapes that differ.
        StorageError: its folder cannot be fetched.
    """
    weights = config.weights
    tensors = None if weights in (None, PRETRAINED) else _tensors(str(weights), config.backbone, storage)
    try:
        with hf_folder(config, storage) as folder:
            backbone = new_backbone(config, tensors, folder, pretrained=weights == PRETRAINED)
    except WeightsError as error:
        source = "what its folder holds" if weights == PRETRAINED else weights
        raise CheckpointError(f"{source}: does not fit {config.backbone}, nothing was loaded:{error}") from None
    except OSError as error:
        line = str(error).strip().partition("\n")[0]
        raise ConfigError(
            [f"classifier.weights: the library did not give those of {config.backbone} ({line}); name a file of them"]
        ) from error
    _check(backbone, config, kind)
    return backbone


def weights_key(config: ClassifierConfig, storage: Storage) -> str:
    """The same for the same backbone with the same weights, wherever they lie."""
    weights = config.weights
    with hf_folder(config, storage) as folder:
        if folder is not None:
            return fingerprint(HF, weights, hashes_of(folder))
    if weights in (None, PRETRAINED):
        return fingerprint(config.backbone, weights)
    return fingerprint(config.backbone, hashlib.sha256(storage.read_bytes(_file(str(weights)))).hexdigest())


def settled(config: Config) -> Config:
    """With absolute paths to a local encoder and local weights: workers have a working directory of their own."""
    classifier = config.classifier
    if classifier is None:
        return config
    changes = {"backbone": absolute(classifier.backbone), "weights": absolute_weights(classifier.weights)}
    return config.model_copy(update={"classifier": classifier.model_copy(update=changes)})


def hf_folder(config: ClassifierConfig, storage: Storage) -> AbstractContextManager[Path | None]:
    """The files of an `hf:` backbone, None for others; raises as `model_folder`."""
    if not config.backbone.startswith(HF):
        return nullcontext()
    return model_folder(storage, config.backbone, "classifier.backbone")


def new_backbone(
    config: ClassifierConfig,
    tensors: Mapping[str, Tensor] | bytes | None = None,
    folder: Path | None = None,
    *,
    pretrained: bool = False,
    pooler: bool = True,
) -> Backbone:
    """The backbone with these weights of its network, those of its library or `folder`, or random ones.

    Args:
        config: names the backbone.
        tensors: by the library's names; of a `keras:` backbone by ours, or an h5 file.
        folder: describes an `hf:` backbone.
        pretrained: take the weights that the library offers, or the folder holds.
        pooler: with the layers of an `hf:` backbone's pooler.

    Raises:
        ConfigError: there is no such backbone, or its library is not installed.
        WeightsError: the tensors are those of another network.
    """
    try:
        maps = config.head.kind == "conv"
        if folder is not None:
            return build_encoder(folder, pretrained=pretrained, maps=maps, pooler=pooler)
        library, _, name = config.backbone.partition(":")
        if library == KERAS:
            return build_application(name, tensors, pretrained=pretrained, maps=maps, side=config.size)
        assert not isinstance(tensors, bytes)
        like = config.weights == PRETRAINED
        return build_backbone(
            config.backbone, tensors, pretrained=pretrained, like_pretrained=like, maps=maps, side=config.size
        )
    except UnknownBackboneError as error:
        named = f"{config.backbone}: " if folder is not None or config.backbone.startswith(KERAS) else ""
        raise ConfigError([f"classifier.backbone: {named}{error}"]) from None


def evaluation_side(config: ClassifierConfig) -> int:
    """Side of what evaluation and serving show."""
    return config.test_size or config.size


def training_views(backbone: Backbone, config: ClassifierConfig) -> Dataset[Tensor]:
    """Pictures or texts as training shows them: pictures changed at random, by the seed that is given with them."""
    if backbone.reader is not None:
        return Tokens(backbone.reader, config.max_tokens)
    return Views(config.size, augment=config.augment)


def evaluation_views(backbone: Backbone, config: ClassifierConfig) -> Dataset[Tensor]:
    """Pictures or texts as evaluation and serving show them."""
    if backbone.reader is not None:
        return Tokens(backbone.reader, config.max_tokens)
    return Views(evaluation_side(config), backbone.shown.middle)


def example(backbone: Backbone, config: ClassifierConfig, count: int) -> Tensor:
    """So many black pictures, or texts, of the full size, as `evaluation_views` would have them."""
    if backbone.reader is not None:
        return example_tokens(config.max_tokens).repeat(count, 1)
    return torch.zeros(count, 3, evaluation_side(config), evaluation_side(config), dtype=torch.uint8)


def to_channels_last(model: Module) -> Module:
    """The same model, its weights in the order of memory in which convolutions are faster."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def as_shown(backbone: Backbone, inputs: Tensor, device: torch.device) -> Tensor:
    """What the backbone is shown of uint8 pictures `[n, 3, side, side]`, channels last, which convolves faster.

    Ids of tokens are shown as they are.
    """
    if backbone.reader is not None:
        return inputs.to(device, non_blocking=True)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in backbone.shown[:2])
    values = (inputs.to(device, non_blocking=True).float() - mean) / std
    return values.contiguous(memory_format=torch.channels_last)


def _tensors(uri: str, backbone: str, storage: Storage) -> dict[str, Tensor] | bytes:
    path = _file(uri)
    if path.endswith(".h5") and backbone.startswith(KERAS):
        return storage.read_bytes(path)
    try:
        tensors = load(storage.read_bytes(path))
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: not a safetensors file ({error}); other formats can run code when they are read, so convert it: "
            "safetensors.torch.save_file(state_dict, path)"
        ) from error
    if any(name.startswith(OURS) for name in tensors):
        return {name.removeprefix(OURS): value for name, value in tensors.items() if name.startswith(OURS)}
    return tensors


def _file(uri: str) -> str:
    """The file of weights, which may be named by its folder: one of ours or a transformers one."""
    return uri if Path(uri).suffix else join(uri, MODEL_FILE)


@torch.no_grad()
def _check(backbone: Backbone, config: ClassifierConfig, kind: Kind) -> None:
    reads: Kind = "pictures" if backbone.reader is None else "texts"
    if reads != kind:
        others = {"pictures": "a ViT, DINOv2, Swin, ConvNeXt or CLIP", "texts": "a BERT, RoBERTa, MiniLM or GPT-2"}
        raise ConfigError(
            [f"classifier.backbone: {config.backbone} is for {reads}, not for {kind}; name {others[kind]}"]
        )
    if backbone.reader is not None:
        try:
            backbone.eval()(example(backbone, config, 1))
        except (RuntimeError, IndexError, ValueError) as error:
            raise ConfigError(
                [f"classifier.max_tokens: {config.max_tokens}, but {config.backbone} cannot read so many: {error}"]
            ) from None
        return
    for name, side in (("size", config.size), ("test_size", evaluation_side(config))):
        try:
            backbone.eval()(torch.zeros(1, 3, side, side))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                [f"classifier.{name}: {side}, but {config.backbone} cannot see such pictures: {_fault(error)}"]
            ) from None


def _fault(error: Exception) -> str:
    """What is wrong, which Keras prints in bold among what it was doing."""
    found = _BOLD.search(str(error))
    return found.group(1) if found else str(error)
