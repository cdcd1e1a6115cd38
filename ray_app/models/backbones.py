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

    With `maps`, the feature map `[n, channels, height, width]` that the network would pool. With a `reader`, it is for
    texts: what that makes of them -> vectors.
    """

    def __init__(
        self, network: nn.Module, dim: int, shown: Shown, *, maps: bool = False, reader: Reader | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.shown = shown
        self.reader = reader
        self.dim = dim
        self._map: Tensor | None = None
        if maps:
            pools = [module for module in network.modules() if _pools(module)]
            if not pools:
                raise UnknownBackboneError("has no feature map that it pools, which the conv head needs")
            pools[-1].register_forward_pre_hook(self._keep)
            self.dim = self._channels()

    def forward(self, inputs: Tensor) -> Tensor:
        """Vectors, or maps."""
        vectors: Tensor = self.network(inputs)
        if self._map is None:
            return vectors
        found, self._map = self._map, None
        return found

    def _keep(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self._map = arguments[0]

    @torch.no_grad()
    def _channels(self) -> int:
        training = self.training
        channels = int(self.eval()(torch.zeros(1, 3, 64, 64)).shape[1])
        self.train(training)
        return channels


def build_backbone(
    name: str,
    weights: Mapping[str, Tensor] | None = None,
    *,
    pretrained: bool = False,
    like_pretrained: bool = False,
    maps: bool = False,
) -> Backbone:
    """The backbone `torchvision:NAME` or `timm:NAME`.

    Args:
        name: library and network.
        weights: tensors of the whole network, by the library's names; its classifier may differ or be missing.
        pretrained: take the weights that the library offers (a download, the first time).
        like_pretrained: random weights in a network that sees what it would see with those, which is read into it.
        maps: give feature maps.

    Raises:
        UnknownBackboneError: no such network or library.
        WeightsError: weights of another network, or that are not finite: names and shapes that differ.
        OSError: the library's weights cannot be fetched.
    """
    library, _, network_name = name.partition(":")
    network, shown = _LIBRARIES[library](network_name, pretrained, like_pretrained)
    classifier = _classifier(network)
    if weights is not None:
        load(network, weights, classifier)
    try:
        return Backbone(network, _behead(network, classifier), shown, maps=maps)
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


def _classifier(network: nn.Module) -> str:
    """Name of the layer that gives the classes: the last linear one, or the last convolution of SqueezeNet."""
    for kind in (nn.Linear, nn.Conv2d):
        names: list[str] = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if names:
            return names[-1]
    raise UnknownBackboneError(f"{type(network).__name__} has no layer that gives classes")


def _behead(network: nn.Module, classifier: str) -> int:
    """Take the classifier off; the length of the vectors that it was given."""
    last = network.get_submodule(classifier)
    parent, _, name = classifier.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Identity())
    return last.in_features if isinstance(last, nn.Linear) else cast("nn.Conv2d", last).in_channels


def _pools(module: nn.Module) -> bool:
    """Whether it makes a map of one place: torch's own pooling, or timm's."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return module.output_size in (1, (1, 1))
    return type(module).__name__ == "SelectAdaptivePool2d"


def load(network: nn.Module, weights: Mapping[str, Tensor], classifier: str) -> None:
    """Load all but the classifier, which is replaced; raises `WeightsError`."""
    expected = {name: value for name, value in network.state_dict().items() if not name.startswith(f"{classifier}.")}
    given = {name: value for name, value in weights.items() if not name.startswith(f"{classifier}.")}
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
