"""Networks of keras.applications as backbones: Keras runs them on torch, and their weights are torch's own.

Keras's layers keep statistics among their parameters, are told by each call whether they train, and compute on a device
of their own choice. So a network is called without any state (`stateless_call`), and its state is here: parameters,
buffers, and norm layers that train or not as the schedule has it.
"""

import os
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ray_app.models.backbones import IMAGENET, Backbone, Shown, UnknownBackboneError, load, not_finite, refuse
from ray_app.models.h5 import load_h5

_BLOCK = re.compile(r"^((.*?_)?((stage|conv)_?\d+_)?block_?\d+[a-z]?(?=_)|expanded_conv(_\d+)?(?=_)|conv_[dp]w_\d+)")
"""How the names of the layers of one block begin."""
TOP = "predictions"
"""The layer of a whole network that gives the classes."""


class Application(nn.Module):
    """A network of Keras without its classifier: pictures `[n, 3, side, side]` -> vectors `[n, dim]`.

    Parameters are `layers.BLOCK.LAYER.NAME`, blocks and layers from the input to the output.
    """

    def __init__(self, model: Any, order: list[int], norms: dict[str, nn.Module]) -> None:
        super().__init__()
        self._call, self._order = model.stateless_call, order
        blocks = OrderedDict[str, nn.Module]()
        trained, kept = (
            {id(one) for one in some} for some in (model.trainable_variables, model.non_trainable_variables)
        )
        places = {}
        for number, variable in enumerate(model.variables):
            layer, _, name = variable.path.replace(".", "_").partition("/")
            if layer.startswith("seed_generator"):  # numbered by how many this process has made
                layer, name = "seeds", f"of_{number}"
            block = blocks.setdefault(_block_of(layer), nn.Module())
            if layer not in dict(block.named_children()):
                block.add_module(layer, norms.get(layer, nn.Module()))
            holder, name = block.get_submodule(layer), name.replace("/", "_")
            if id(variable) in trained:
                holder.register_parameter(name, variable.value)
            else:
                holder.register_buffer(name, variable.value.detach())
            places[id(variable)] = holder, name
        assert len(places) == len(trained) + len(kept)
        self.layers = nn.Sequential(blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self._trained = [places[id(variable)] for variable in model.trainable_variables]
        self._kept = [places[id(variable)] for variable in model.non_trainable_variables]

    def forward(self, pictures: Tensor) -> Tensor:
        """Vectors; Keras has channels last."""
        import keras  # noqa: PLC0415

        trained, kept = ([getattr(holder, name) for holder, name in some] for some in (self._trained, self._kept))
        with keras.device(str(pictures.device)):
            shown = pictures[:, self._order].movedim(1, -1)
            maps, after = self._call(trained, kept, shown, training=self.training)
        with torch.no_grad():
            for value, changed in zip(kept, after, strict=True):
                if changed is not value:
                    value.copy_(changed)
        vectors: Tensor = self.pool(maps.movedim(-1, 1)).flatten(1)
        return vectors


def build_application(
    name: str,
    weights: Mapping[str, Tensor] | bytes | None = None,
    *,
    pretrained: bool = False,
    maps: bool = False,
    side: int = 64,
) -> Backbone:
    """The network of keras.applications.

    Args:
        name: as there, for example ResNet50.
        weights: an h5 file as Keras writes or publishes it (`notop`), or tensors by our names.
        pretrained: take the weights that Keras offers (a download, the first time).
        maps: give feature maps.
        side: of the pictures whose maps are wanted.

    Raises:
        UnknownBackboneError: no such network, without such maps, or Keras is not installed.
        WeightsError: weights of another network, or that are not finite: names and shapes that differ.
        OSError: Keras's weights cannot be fetched.
    """
    keras = _keras()
    known = [one for one in dir(keras.applications) if one[0].isupper()]
    if name not in known:
        raise UnknownBackboneError(f"keras.applications has no network {name!r}; it has {', '.join(known)}")
    make = getattr(keras.applications, name)
    norms: dict[str, nn.Module] = {}
    with keras.device("cpu"):
        keras.utils.clear_session(free_memory=False)  # layers without a name are numbered from the first
        theirs = _fetched(make) if pretrained else make(include_top=False, weights=None)
        model = keras.models.clone_model(theirs, clone_function=_clone_by(keras, norms))
        with torch.no_grad():
            for mine, its in zip(model.variables, theirs.variables, strict=True):
                mine.value.copy_(its.value)
        if isinstance(weights, bytes):
            load_h5(model, weights)
    shown, order = _shown(sys.modules[make.__module__].preprocess_input)
    network = Application(model, order, norms)
    if isinstance(weights, Mapping):
        load(network, weights, TOP)
    refuse(not_finite(network.state_dict()))
    example = torch.zeros(1, 3, side, side) if maps else None
    return Backbone(network, int(model.output_shape[-1]), shown, maps=example)


def _keras() -> Any:
    """The library, on torch: it reads which one it runs on when it is first imported."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras  # noqa: PLC0415  an extra, and seconds
    except ImportError:
        raise UnknownBackboneError("needs the Keras library: pip install 'ray-retail-finetune[keras]'") from None
    if keras.backend.backend() != "torch":
        raise UnknownBackboneError(f"Keras runs on {keras.backend.backend()} here: set KERAS_BACKEND=torch")
    keras.config.set_image_data_format("channels_last")
    return keras


def _clone_by(keras: Any, norms: dict[str, nn.Module]) -> Any:
    """Copies layers, of which norms use the statistics of the batch only where their own module trains."""

    class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            return super().call(inputs, training=norms[self.name].training, mask=mask)

    def clone(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return type(layer).from_config(layer.get_config())
        # Empty, but what a schedule knows for a norm layer.
        norms[layer.name] = nn.BatchNorm2d(1, affine=False, track_running_stats=False)
        return BatchNormalization.from_config(layer.get_config())

    return clone


def _fetched(make: Any) -> Any:
    try:
        return make(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises no narrower one
        raise OSError(str(error)) from error


def _shown(preprocess: Any) -> tuple[Shown, list[int]]:
    """What the library's own preprocessing does to pixels, found by asking it, and the order of channels after it."""
    black = preprocess(np.zeros((1, 1, 1, 3), np.float32)).reshape(3)
    pure = preprocess(np.eye(3, dtype=np.float32).reshape(3, 1, 1, 3) * 255).reshape(3, 3) - black
    order = np.abs(pure).argmax(axis=0)  # the channel of the picture that each of the network's is made of
    scale = pure[order, np.arange(3)]
    rgb = np.argsort(order)
    mean, std = (-black / scale)[rgb], (1 / scale)[rgb]
    return Shown(tuple(mean.tolist()), tuple(std.tolist()), IMAGENET.middle), order.tolist()


def _block_of(layer: str) -> str:
    found = _BLOCK.match(layer)
    return found.group() if found else layer
