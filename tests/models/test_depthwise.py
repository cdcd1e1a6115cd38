"""Gradients of depthwise convolutions in bfloat16 on a CPU: those of the library, sooner."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_app.models.depthwise import FastDepthwise, _Depthwise

CASES = [
    (3, 1, 1, 9),
    (3, 2, 1, 9),
    (3, 2, 1, 10),
    (5, 1, 2, 7),
    (5, 2, 2, 11),
    (5, 2, 2, 12),
    (4, 2, 0, 9),
    (3, 3, 1, 10),
]


def gradients(function: Callable[..., Tensor], pictures: Tensor, kernel: Tensor, *args: Any) -> list[Tensor]:
    pictures, kernel = (tensor.clone().requires_grad_() for tensor in (pictures, kernel))
    found = function(pictures, kernel, *args)
    found.backward(torch.linspace(-1, 1, found.numel(), dtype=found.dtype).reshape(found.shape))
    assert pictures.grad is not None
    assert kernel.grad is not None
    return [found.detach(), pictures.grad, kernel.grad]


@pytest.mark.parametrize(("width", "stride", "padding", "side"), CASES)
def test_gradients_are_those_of_the_convolution(width: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(0)
    pictures = torch.randn(2, 6, side, side + 1).to(memory_format=torch.channels_last).bfloat16()
    kernel = torch.randn(6, 1, width, width).bfloat16()
    apply: Any = _Depthwise.apply
    ours = gradients(apply, pictures, kernel, (stride, stride), (padding, padding))
    exact = gradients(functional.conv2d, pictures.double(), kernel.double(), None, stride, padding, 1, 6)
    for one, other in zip(ours, exact, strict=True):
        assert one.dtype is torch.bfloat16
        torch.testing.assert_close(one.double(), other, rtol=0.02, atol=0.05)


def test_the_mode_serves_networks_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With bias or without, under autocast alone, and only what is depthwise."""
    seen: list[torch.Size] = []
    inner = _Depthwise.forward

    def forward(ctx: Any, pictures: Tensor, *others: Any) -> Tensor:
        seen.append(pictures.shape)
        return inner(ctx, pictures, *others)

    monkeypatch.setattr(_Depthwise, "forward", staticmethod(forward))
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 4, 5, 2, 2, groups=4), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=2)]
    layers += [nn.Conv2d(8, 8, 3, padding="same", groups=8), nn.Conv2d(8, 8, 3, dilation=2, groups=8, bias=False)]
    network, pictures = nn.Sequential(*layers), torch.randn(2, 4, 16, 16)

    def run(*, mode: bool, autocast: bool) -> list[Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            if mode:
                with FastDepthwise():
                    found = network(pictures)
            else:
                found = network(pictures)
        found.float().square().sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    plain = run(mode=False, autocast=True)
    assert not seen
    ours = run(mode=True, autocast=True)
    assert seen == [(2, 4, 16, 16)]
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05 * float(other.abs().max()))
    run(mode=True, autocast=False)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), FastDepthwise():
        network(pictures)
    assert len(seen) == 1
