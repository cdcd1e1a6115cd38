"""WiSE-FT: a point between the pretrained backbone and the fine-tuned one (Wortsman et al. 2022, arXiv 2109.01903)."""

import torch
from torch import Tensor, nn

from ray_app.training.optimizer import BACKBONE


def backbone_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the backbone's weights, and of the statistics of its norm layers."""
    return {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if name.startswith(BACKBONE) and value.is_floating_point()
    }


@torch.no_grad()
def interpolate(model: nn.Module, start: dict[str, Tensor], end: dict[str, Tensor], alpha: float) -> None:
    """Give the backbone (1 - alpha) * start + alpha * end; exactly one of them at 0 and at 1."""
    state = model.state_dict()
    for name, value in start.items():
        state[name].copy_(torch.lerp(value, end[name], alpha))
