"""Pretrained networks by name: what comes before the classifier of a network of torchvision or timm."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

SHOWN_DIFFERENCES = 8


class Shown(NamedTuple):
    """What a network was trained to see: pixels in [0, 1], minus `mean`, over `std`, of the middle of a picture."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    middle: float
    """Share of the shorter side that it is shown when it is asked."""


Reader = Callable[[Sequence[str], int], Tensor]
"""Texts and how many tokens to read of each -> ids of tokens `[n, tokens]`, -1 after the end of a text."""
IMAGENET = Shown((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875)


class UnknownBackboneError(ValueError):
    """There is no such network, its library is not installed, or it cannot serve as a backbone."""


class WeightsError(ValueError):
    """Weights that do not fit the network, or that no network should have."""


class Backbone(nn.Module):
    """A network without its classifier: pictures `[n, 3, side, side]` -> vectors `[n, dim]`.

    With `maps`, a picture like those that it will see, the feature map `[n, channels, height, width]` that the network
    would pool; its layers behind that are no parameters. With a `reader`, it is for texts: what that makes of them ->
    vectors.

    Raises:
        UnknownBackboneError: there is no such map, or the network cannot see the picture.
    """

    def __init__(
        self, network: nn.Module, dim: int, shown: Shown, *, maps: Tensor | None = None, reader: Reader | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.shown = shown
        self.reader = reader
        self.dim = dim
        self._map: Tensor | None = None
        if maps is not None:
            pools = [module for module in network.modules() if _pools(module)]
            if pools:
                pools[-1].register_forward_pre_hook(self._keep)
            sight = f"see pictures of {' x '.join(map(str, maps.shape[2:]))} pixels"
            if not pools or len(shape := settle(self, maps, sight)) != 4:
                raise UnknownBackboneError("has no feature map that it pools, which the conv head needs")
            self.dim = shape[1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Vectors, or maps."""
        vectors: Tensor = self.network(inputs)
        if self._map is None:
            return vectors
        found, self._map = self._map, None
        return found

    def _keep(self, pool: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        has_channels_last = getattr(getattr(pool, "pool", None), "dim", None) == (1, 2)  # some of timm's
        self._map = arguments[0].movedim(-1, 1) if has_channels_last else arguments[0]


def settle(network: nn.Module, example: Tensor, ability: str) -> torch.Size:
    """Shape of what it makes of the example. What that does not depend on (mask tokens) is no parameter from here on.

    Several workers would wait for its gradient in vain. It is a buffer then, under the same name.

    Raises:
        UnknownBackboneError: the network has not the `ability`.
    """
    training = network.training
    try:
        with torch.enable_grad():
            found: Tensor = network.eval()(example)
            found.sum().backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UnknownBackboneError(f"cannot {ability}: {error}") from None
    unused = {parameter for parameter in network.parameters() if parameter.grad is None}
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter in unused:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
            parameter.grad = None
    network.train(training)
    return found.shape


def build_backbone(
    name: str,
    weights: Mapping[str, Tensor] | None = None,
    *,
    pretrained: bool = False,
    like_pretrained: bool = False,
    maps: bool = False,
    side: int = 64,
) -> Backbone:
    """The backbone `torchvision:NAME` or `timm:NAME`.

    Args:
        name: library and network.
        weights: tensors of the whole network, by the library's names; its classifier may differ or be missing.
        pretrained: take the weights that the library offers (a download, the first time).
        like_pretrained: random weights in a network that sees what it would see with those, which is read into it.
        maps: give feature maps.
        side: of the pictures whose maps are wanted.

    Raises:
        UnknownBackboneError: no such network or library, or without such maps.
        WeightsError: weights of another network, or that are not finite: names and shapes that differ.
        OSError: the library's weights cannot be fetched.
    """
    library, _, network_name = name.partition(":")
    network, shown = _LIBRARIES[library](network_name, pretrained, like_pretrained)
    dim, classifiers = _behead(network)
    if weights is not None:
        load(network, weights, *classifiers)
    try:
        return Backbone(network, dim, shown, maps=torch.zeros(1, 3, side, side) if maps else None)
    except UnknownBackboneError as error:
        raise UnknownBackboneError(f"{name}: {error}") from None


def _torchvision(name: str, pretrained: bool, like_pretrained: bool) -> tuple[nn.Module, Shown]:
    import torchvision.models as library  # noqa: PLC0415  seconds of every process that needs none

    names = library.list_models(library)
    if name not in names:
        raise UnknownBackboneError(f"torchvision has no classifier {name!r}; it has {', '.join(names)}")
    has_more = name in ("googlenet", "inception_v3")
    settings = {"aux_logits": False, "init_weights": False} if has_more and not pretrained else {}
    weights = library.get_model_weights(name).DEFAULT if pretrained or like_pretrained else None
    network = library.get_model(name, weights=weights if pretrained else None, **settings)
    if has_more:
        network.aux_logits, network.transform_input = False, weights is not None
        for classifier in {"aux1", "aux2", "AuxLogits"} & {*dict(network.named_children())}:
            setattr(network, classifier, None)
    if weights is None:
        return network, IMAGENET
    transform = weights.transforms()
    middle = min(1.0, transform.crop_size[0] / transform.resize_size[0])
    return network, Shown(tuple(transform.mean), tuple(transform.std), middle)


def _timm(name: str, pretrained: bool, _: bool) -> tuple[nn.Module, Shown]:
    try:
        import timm  # noqa: PLC0415  an extra, and seconds
    except ImportError:
        raise UnknownBackboneError(
            f"timm:{name} needs the timm library: pip install 'ray-retail-finetune[pictures]'"
        ) from None
    if not timm.is_model(name.partition(".")[0]):
        near = ", ".join(timm.list_models(f"*{name[:6]}*")[:20])
        raise UnknownBackboneError(f"timm has no network {name!r}" + (f"; some it has: {near}" if near else ""))
    network = timm.create_model(name, pretrained=pretrained)
    trained = cast("dict[str, Any]", network.pretrained_cfg)
    return network, Shown(tuple(trained["mean"]), tuple(trained["std"]), trained["crop_pct"])


_LIBRARIES = {"torchvision": _torchvision, "timm": _timm}


def _behead(network: Any) -> tuple[int, list[str]]:
    """Take off what gives the classes; the length of the vectors that it was given, and its names.

    A network of timm that has no such layer, or several of whose answers it takes the mean, does so itself.
    """
    if not hasattr(network, "get_classifier"):
        return _without(network, _classifier(network))
    given = network.get_classifier()
    heads = [given] if isinstance(given, nn.Module) else list(given)
    inner = {module for head in heads for module in head.modules() if _outputs(module) == network.num_classes}
    layers = [name for name, module in network.named_modules() if module in inner]
    if len(layers) == 1:
        return _without(network, layers[0])
    names = [name for name, module in network.named_modules() if module in heads]
    network.reset_classifier(0)
    return network.head_hidden_size, names


def _outputs(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) else None


def _classifier(network: nn.Module) -> str:
    """Name of the layer that gives the classes: the last linear one, or the last convolution of SqueezeNet."""
    for kind in (nn.Linear, nn.Conv2d):
        names: list[str] = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if names:
            return names[-1]
    raise UnknownBackboneError(f"{type(network).__name__} has no layer that gives classes")


def _without(network: nn.Module, classifier: str) -> tuple[int, list[str]]:
    last = network.get_submodule(classifier)
    parent, _, name = classifier.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Identity())
    return last.in_features if isinstance(last, nn.Linear) else cast("nn.Conv2d", last).in_channels, [classifier]


def _pools(module: nn.Module) -> bool:
    """Whether it makes a map of one place: torch's own pooling, or timm's."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return module.output_size in (1, (1, 1))
    return type(module).__name__ == "SelectAdaptivePool2d"


def load(network: nn.Module, weights: Mapping[str, Tensor], *classifiers: str) -> None:
    """Load all but the classifiers, which are replaced; raises `WeightsError`."""
    replaced = tuple(f"{classifier}." for classifier in classifiers)
    expected = {name: value for name, value in network.state_dict().items() if not name.startswith(replaced)}
    given = {name: value for name, value in weights.items() if not name.startswith(replaced)}
    faults = [f"{name}: missing" for name in expected if name not in given and not is_counter(name)]
    faults += [f"{name}: not a part of this network" for name in given if name not in expected]
    faults += [
        f"{name}: {list(given[name].shape)} where the network has {list(value.shape)}"
        for name, value in expected.items()
        if name in given and given[name].shape != value.shape
    ]
    refuse(faults or not_finite(given))
    network.load_state_dict(given, strict=False)


def refuse(faults: list[str]) -> None:
    """Raise a `WeightsError` where there is a fault."""
    if faults:
        more = f"\n  and {len(faults) - SHOWN_DIFFERENCES} more" if len(faults) > SHOWN_DIFFERENCES else ""
        raise WeightsError("\n  ".join(["", *faults[:SHOWN_DIFFERENCES]]) + more)


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """A fault for each tensor that holds such numbers."""
    return [f"{name}: holds numbers that are not finite" for name, value in weights.items() if not _finite(value)]


def is_counter(name: str) -> bool:
    """Batches that a norm layer has seen, which older files lack and nothing reads."""
    return name.endswith("num_batches_tracked")


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
