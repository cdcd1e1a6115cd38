"""Depthwise convolutions on a CPU in bfloat16, whose gradients the library finds many times slower than it could.

Two of its gradients have no fast kernel in bfloat16: of the input where the stride is 2, and of the weights where the
kernel is wider than 3. The first is a convolution itself, of stride 1, over gradients with zeros between them; the
second is found in float32. `benchmarks/depthwise.py` has the times.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

FAST_KERNEL = 3
"""The widest whose weights have a fast gradient in bfloat16, at stride 1."""
Pair = tuple[int, int]


class FastDepthwise(TorchFunctionMode):
    """Within it, what autocast would convolve depthwise on a CPU in bfloat16 gets the faster gradients.

    A mode and not a module, so that it serves the backbones of every library as they are.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchFunctionMode`."""
        if func is torch.conv2d and torch.is_grad_enabled() and _is_bf16():
            return _convolve(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _is_bf16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16


def _convolve(
    input: Tensor,  # noqa: A002 (torch.conv2d calls it so)
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    is_depthwise = 1 < groups == weight.shape[0] == input.shape[-3]
    if (
        not is_depthwise
        or input.ndim != 4
        or input.device.type != "cpu"
        or isinstance(padding, str)
        or _pair(dilation) != (1, 1)
    ):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    apply: Any = _Depthwise.apply
    found: Tensor = apply(input.bfloat16(), weight.bfloat16(), _pair(stride), _pair(padding))
    return found if bias is None else found + bias.bfloat16()[:, None, None]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pictures: Tensor, kernel: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(pictures, kernel)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(pictures, kernel, None, stride, padding, 1, len(kernel))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        pictures, kernel = ctx.saved_tensors
        of_pictures = of_kernel = None
        if ctx.needs_input_grad[0]:
            of_pictures = _of_input(pictures, kernel, gradient, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_kernel = _of_weights(pictures, kernel, gradient, ctx.stride, ctx.padding)
        return of_pictures, of_kernel, None, None


def _of_input(pictures: Tensor, kernel: Tensor, gradient: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The transposed convolution: the flipped kernel over the gradients, with zeros where the stride left out."""
    sizes = [
        side + 2 * pad - width + 1
        for side, pad, width in zip(pictures.shape[2:], padding, kernel.shape[2:], strict=True)
    ]
    if stride != (1, 1):
        spread = torch.empty(
            *gradient.shape[:2], *sizes, dtype=gradient.dtype, memory_format=torch.channels_last
        ).zero_()
        spread[:, :, :: stride[0], :: stride[1]] = gradient
        gradient = spread
    rest = [width - 1 - pad for width, pad in zip(kernel.shape[2:], padding, strict=True)]
    return torch.conv2d(gradient, kernel.flip(2, 3), None, 1, rest, 1, len(kernel))


def _of_weights(pictures: Tensor, kernel: Tensor, gradient: Tensor, stride: Pair, padding: Pair) -> Tensor:
    is_fast = max(kernel.shape[2:]) <= FAST_KERNEL and stride == (1, 1)
    kind = torch.bfloat16 if is_fast else torch.float32
    inputs = (tensor.to(kind) for tensor in (gradient, pictures, kernel))
    found = torch.ops.aten.convolution_backward(
        *inputs, None, stride, padding, (1, 1), False, (0, 0), len(kernel), (False, True, False)
    )
    of_kernel: Tensor = found[1]
    return of_kernel.to(kernel.dtype)


def _pair(value: int | Iterable[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    first, *others = value
    return first, others[-1] if others else first
